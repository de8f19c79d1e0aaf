#include "runtime/posterior/run_summary.h"

#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/io/file.h"
#include "runtime/io/json.h"

/* Beyond any summary of ours, whose lists grow with the validations. */
#define MAX_SUMMARY_BYTES ((size_t)1 << 28)

/* A text of exactly so many bytes. */
static bool get_text(const json_t *object, const char *key, char *out, size_t bytes)
{
    const char *text = NULL;
    size_t n = 0;
    bool good = cr_json_get_str(object, key, true, &text, &n, NULL, NULL) == CR_OK && n == bytes;
    if (good) {
        memcpy(out, text, n);
        out[n] = '\0';
    }
    return good;
}

static bool get_count(const json_t *object, const char *key, uint64_t *out)
{
    int64_t value = 0;
    bool good = cr_json_get_int(object, key, true, 0, INT64_MAX, &value, NULL, NULL) == CR_OK;
    *out = (uint64_t)value;
    return good;
}

static bool read_members(const json_t *summary, struct cr_run_summary *run)
{
    const json_t *settings = json_object_get(summary, "settings"), *digests = json_object_get(summary, "digests");
    const char *validation = NULL;
    size_t n = 0;
    bool good = json_is_object(settings) && json_is_object(digests) &&
                get_text(summary, "run_id", run->run_id, sizeof run->run_id - 1) &&
                get_text(digests, "data", run->data, sizeof run->data - 1) && get_count(settings, "seed", &run->seed) &&
                get_count(summary, "n_train", &run->n_train) && get_count(summary, "n_valid", &run->n_valid) &&
                cr_json_get_str(settings, "validation", true, &validation, &n, NULL, NULL) == CR_OK;
    run->splits = good && strcmp(validation, "held out") == 0;
    return good;
}

cr_status cr_run_summary_read(const char *dir, struct cr_run_summary *out, bool *found, struct cr_error *err)
{
    json_t *summary = NULL;
    struct cr_run_summary run;
    struct cr_error why;
    char *path = cr_path_join(dir, "summary.json");
    if (path == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for a path");
    }
    cr_status status = cr_json_load(path, MAX_SUMMARY_BYTES, &summary, &why);
    *found = status == CR_OK && json_is_object(summary) && read_members(summary, &run);
    if (*found) {
        *out = run;
    }
    json_decref(summary);
    cr_free(path);
    return status == CR_E_MEMORY ? cr_fail(err, status, "%s", why.message) : CR_OK;
}
