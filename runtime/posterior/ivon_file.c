#include "runtime/posterior/ivon_file.h"

#include <math.h>
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/core/error.h"
#include "runtime/io/json.h"

static const char *const group_keys[CR_IVON_GROUPS] = {"a", "b"};

cr_status cr_ivon_write(const struct cr_ivon_posterior *p, const struct cr_posterior_about *about, const char *dir,
                        struct cr_error *err)
{
    const struct cr_posterior_vector vectors[] = {{".mean", p->mean}, {".hess", p->hess}};
    json_t *numbers = json_object();
    cr_json_put(&numbers, "t", json_integer((json_int_t)p->t));
    for (int g = 0; g < CR_IVON_GROUPS; g++) {
        json_t *group = json_object();
        cr_json_put(&group, "ess", json_real(p->groups[g].ess));
        cr_json_put(&group, "weight_decay", json_real(p->groups[g].weight_decay));
        cr_json_put(&numbers, group_keys[g], group);
    }
    cr_status status = cr_posterior_write(about, "ivon", numbers, vectors, 2, NULL, dir, err);
    json_decref(numbers);
    return status;
}

static cr_status check_group(const struct cr_ivon_group *g, const char *label, struct cr_error *err)
{
    return cr_ivon_takes(g->ess) && g->weight_decay >= 0 && isfinite((float)g->weight_decay)
               ? CR_OK
               : cr_fail(err, CR_E_INPUT,
                         "%s: ess %g and weight decay %g, expected 2^-126 to 2^126 and a number from 0", label, g->ess,
                         g->weight_decay);
}

static cr_status check_hess(const struct cr_adapter *adapter, const float *hess, const struct cr_ivon_group *groups,
                            const char *label, struct cr_error *err)
{
    size_t n_parts;
    struct cr_error why;
    struct cr_ivon_part *parts = cr_ivon_parts_of(adapter, &n_parts);
    if (parts == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for the parts of an adapter");
    }
    cr_status status = cr_ivon_check_hess(hess, parts, n_parts, groups, &why);
    cr_free(parts);
    return status == CR_OK ? CR_OK : cr_fail(err, status, "%s: %s", label, why.message);
}

cr_status cr_ivon_read(const char *dir, const struct cr_adapter *adapter, const struct cr_adapter_base *base,
                       float *hess, struct cr_ivon_group *groups, struct cr_error *err)
{
    struct cr_posterior_file file;
    CR_TRY(cr_posterior_file_open(dir, adapter, &file, err));
    const char *label = cr_safetensors_label(file.st);
    cr_status status = CR_OK;
    for (int g = 0; g < CR_IVON_GROUPS; g++) {
        const json_t *group = json_object_get(file.numbers, group_keys[g]);
        CR_TRY_OUT(status, cr_json_get_number(group, "ess", true, &groups[g].ess, label, err));
        CR_TRY_OUT(status, cr_json_get_number(group, "weight_decay", true, &groups[g].weight_decay, label, err));
        CR_TRY_OUT(status, check_group(&groups[g], label, err));
    }
    CR_TRY_OUT(status, cr_posterior_file_check(&file, adapter, 2, err));
    CR_TRY_OUT(status, cr_posterior_file_mean(&file, adapter, base, hess, err)); /* hess as room */
    memset(hess, 0, adapter->n_params * sizeof *hess);
    CR_TRY_OUT(status, cr_posterior_file_vector(&file, adapter, base, ".hess", hess, err));
    status = check_hess(adapter, hess, groups, label, err);
out:
    cr_posterior_file_close(&file);
    return status;
}

static cr_status read_settings(const struct cr_checkpoint *checkpoint, const char *label, struct cr_ivon_group *groups,
                               struct cr_error *err)
{
    const struct cr_checkpoint_section *section = cr_checkpoint_find(checkpoint, CR_CKPT_SETTINGS);
    json_t *settings = NULL;
    cr_status status = CR_OK;
    if (section == NULL) {
        return cr_fail(err, CR_E_INPUT, "%s: no settings", label);
    }
    CR_TRY(cr_json_parse(section->data, section->bytes, label, &settings, err));
    struct cr_ivon_group *a = &groups[CR_IVON_GROUP_A];
    CR_TRY_OUT(status, cr_json_get_number(settings, "ess", true, &a->ess, label, err));
    CR_TRY_OUT(status, cr_json_get_number(settings, "weight-decay", true, &a->weight_decay, label, err));
    groups[CR_IVON_GROUP_B] = *a;
    CR_TRY_OUT(status, cr_json_get_number(settings, "ess-b", false, &groups[CR_IVON_GROUP_B].ess, label, err));
    CR_TRY_OUT(status, check_group(a, label, err));
    status = check_group(&groups[CR_IVON_GROUP_B], label, err);
out:
    json_decref(settings);
    return status;
}

cr_status cr_ivon_read_checkpoint(const char *path, const struct cr_adapter *adapter, float *hess,
                                  struct cr_ivon_group *groups, struct cr_error *err)
{
    struct cr_checkpoint checkpoint;
    char label[CR_ESCAPE_BYTES];
    cr_escape(label, sizeof label, path, strlen(path));
    CR_TRY(cr_checkpoint_open(path, &checkpoint, err));
    const struct cr_checkpoint_section *section = cr_checkpoint_find(&checkpoint, CR_CKPT_HESSIAN);
    size_t bytes = adapter->n_params * sizeof *hess;
    cr_status status = CR_OK;
    if (section == NULL || section->bytes != bytes) {
        status = cr_fail(err, CR_E_INPUT, "%s: curvature of %zu bytes, expected %zu", label,
                         section != NULL ? section->bytes : 0, bytes);
        goto out;
    }
    memcpy(hess, section->data, bytes);
    CR_TRY_OUT(status, read_settings(&checkpoint, label, groups, err));
    status = check_hess(adapter, hess, groups, label, err);
out:
    cr_checkpoint_close(&checkpoint);
    return status;
}
