#include "runtime/eval/result.h"

#include <math.h>
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/io/json.h"

json_t *cr_json_finite(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

json_t *cr_json_text(const char *text)
{
    json_t *value = json_string(text);
    char shown[CR_ESCAPE_BYTES];
    return value != NULL ? value : json_string(cr_escape(shown, sizeof shown, text, strlen(text)));
}

static json_t *group(const struct cr_group_metrics *m, bool classification)
{
    json_t *object = json_object();
    json_object_set_new(object, "task", m->task[0] != '\0' ? json_string(m->task) : json_null());
    json_object_set_new(object, "n", json_integer((json_int_t)m->n));
    json_object_set_new(object, "accuracy", cr_json_finite(m->accuracy));
    json_object_set_new(object, "nll", cr_json_finite(m->nll));
    json_object_set_new(object, "ece", cr_json_finite(m->ece));
    json_object_set_new(object, "brier", cr_json_finite(m->brier));
    json_object_set_new(object, "auroc_error", cr_json_finite(m->auroc_error));
    if (!classification) {
        json_object_set_new(object, "perplexity", cr_json_finite(m->perplexity));
    }
    return object;
}

cr_status cr_result_write(const struct cr_eval_result *result, const char *model, const char *path,
                          struct cr_error *err)
{
    json_t *object = json_object();
    json_t *groups = json_array();
    json_object_set_new(object, "model", cr_json_text(model));
    json_object_set_new(object, "method", json_string(result->method));
    json_object_set_new(object, "samples", json_integer(1));
    json_object_set_new(object, "tokens", json_integer((json_int_t)result->tokens));
    json_object_set_new(object, "seconds", cr_json_finite(result->seconds));
    json_object_set_new(object, "tok_s", cr_json_finite(result->tok_s));
    for (size_t i = 0; i < result->n_groups; i++) {
        json_array_append_new(groups, group(&result->groups[i], result->classification));
    }
    json_object_set_new(object, "groups", groups);
    json_object_set_new(object, "all", group(&result->all, result->classification));
    cr_status status = cr_json_write(object, path, err);
    json_decref(object);
    return status;
}
