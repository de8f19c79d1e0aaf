#include "runtime/posterior/sets_file.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "runtime/core/alloc.h"
#include "runtime/core/error.h"
#include "runtime/io/file.h"
#include "runtime/io/json.h"

enum { SUFFIX_BYTES = 24 };

static char *member_path(const char *dir, uint32_t member)
{
    char name[32];
    snprintf(name, sizeof name, "members/%02u", member);
    return cr_path_join(dir, name);
}

static cr_status write_directories(const struct cr_posterior_about *about, const char *dir, struct cr_error *err)
{
    char *all = cr_path_join(dir, "members");
    cr_status status = all != NULL ? cr_dir_create(all, err) : cr_fail(err, CR_E_MEMORY, "no memory for a path");
    cr_free(all);
    for (uint32_t m = 0; m < about->adapter->n_sets && status == CR_OK; m++) {
        struct cr_adapter member = cr_adapter_set(about->adapter, m);
        char *path = member_path(dir, m);
        status = path != NULL ? cr_dir_create(path, err) : cr_fail(err, CR_E_MEMORY, "no memory for a path");
        if (status == CR_OK) {
            status = cr_adapter_save_peft(&member, about->model, path, CR_MEMBER_METHOD, err);
        }
        cr_free(path);
    }
    return status;
}

/* One vector a set, named prefix and number. */
static cr_status write_sets(const struct cr_posterior_about *about, const char *method, const json_t *numbers,
                            const char *prefix, const char *dir, struct cr_error *err)
{
    uint32_t n = about->adapter->n_sets;
    struct cr_posterior_vector *vectors = cr_alloc(n, sizeof *vectors);
    char(*names)[SUFFIX_BYTES] = cr_alloc(n, sizeof *names);
    cr_status status = CR_E_MEMORY;
    if (vectors == NULL || names == NULL) {
        cr_fail(err, status, "no memory for writing %u sets of weights", n);
        goto out;
    }
    for (uint32_t k = 0; k < n; k++) {
        snprintf(names[k], SUFFIX_BYTES, "%s%u", prefix, k);
        vectors[k] = (struct cr_posterior_vector){names[k], cr_adapter_set(about->adapter, k).params};
    }
    struct cr_adapter first = cr_adapter_set(about->adapter, 0);
    struct cr_posterior_about one = *about;
    one.adapter = &first;
    status = cr_posterior_write(&one, method, numbers, vectors, n, NULL, dir, err);
out:
    cr_free(vectors);
    cr_free(names);
    return status;
}

cr_status cr_members_write(const struct cr_posterior_about *about, const char *init, double gain, const char *dir,
                           struct cr_error *err)
{
    json_t *numbers = json_object();
    json_object_set_new(numbers, "members", json_integer(about->adapter->n_sets));
    json_object_set_new(numbers, "init", json_string(init));
    json_object_set_new(numbers, "gain", json_real(gain));
    cr_status status = write_directories(about, dir, err);
    if (status == CR_OK) {
        status = write_sets(about, "ensemble", numbers, ".member", dir, err);
    }
    json_decref(numbers);
    return status;
}

char *cr_members_first(const char *dir)
{
    char *own = cr_path_join(dir, "adapter_config.json");
    char *member = member_path(dir, 0);
    bool found = own != NULL && member != NULL && access(own, F_OK) != 0 && access(member, F_OK) == 0;
    cr_free(own);
    if (!found) {
        cr_free(member);
        member = NULL;
    }
    return member;
}

void cr_weight_sets_free(struct cr_weight_sets *sets)
{
    cr_free(sets->values);
    memset(sets, 0, sizeof *sets);
}

static cr_status allocate(struct cr_weight_sets *sets, const struct cr_adapter *adapter, uint32_t n,
                          struct cr_error *err)
{
    sets->values = cr_zalloc(n * adapter->n_params, sizeof *sets->values);
    if (sets->values == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for %u sets of %zu weights", n, adapter->n_params);
    }
    sets->n = n;
    return CR_OK;
}

static cr_status read_members(const struct cr_posterior_file *file, const struct cr_adapter *adapter,
                              const struct cr_adapter_base *base, struct cr_weight_sets *sets, struct cr_error *err)
{
    const char *label = cr_safetensors_label(file->st);
    int64_t n = 0;
    CR_TRY(cr_json_get_int(file->numbers, "members", true, 1, CR_WEIGHT_SETS_MAX, &n, label, err));
    CR_TRY(cr_posterior_file_check(file, adapter, (size_t)n, err));
    CR_TRY(allocate(sets, adapter, (uint32_t)n, err));
    for (uint32_t m = 0; m < sets->n; m++) {
        char suffix[SUFFIX_BYTES];
        snprintf(suffix, sizeof suffix, ".member%u", m);
        CR_TRY(cr_posterior_file_vector(file, adapter, base, suffix, sets->values + m * adapter->n_params, err));
    }
    return memcmp(sets->values, adapter->params, adapter->n_params * sizeof *sets->values) == 0
               ? CR_OK
               : cr_fail(err, CR_E_INPUT, "%s: its first member is not the one in members/00", label);
}

cr_status cr_members_read(const char *dir, const struct cr_adapter *adapter, const struct cr_adapter_base *base,
                          struct cr_weight_sets *sets, struct cr_error *err)
{
    struct cr_posterior_file file;
    struct cr_weight_sets made = {0};
    CR_TRY(cr_posterior_file_open(dir, adapter, &file, err));
    cr_status status = read_members(&file, adapter, base, &made, err);
    cr_posterior_file_close(&file);
    if (status == CR_OK) {
        *sets = made;
    } else {
        cr_weight_sets_free(&made);
    }
    return status;
}

static cr_status copy_weights(const struct cr_checkpoint_section *weights, const struct cr_adapter *adapter,
                              const char *label, struct cr_weight_sets *sets, struct cr_error *err)
{
    size_t one = adapter->n_params * sizeof *sets->values;
    size_t n = weights != NULL ? weights->bytes / one : 0;
    if (n < 1 || n > CR_WEIGHT_SETS_MAX || weights->bytes % one != 0) {
        return cr_fail(err, CR_E_INPUT, "%s: %zu bytes of weights, sets of %zu expected", label,
                       weights != NULL ? weights->bytes : 0, one);
    }
    CR_TRY(allocate(sets, adapter, (uint32_t)n, err));
    memcpy(sets->values, weights->data, weights->bytes);
    for (size_t i = 0; i < n * adapter->n_params; i++) {
        if (!isfinite(sets->values[i])) {
            return cr_fail(err, CR_E_INPUT, "%s: weight %zu is %g, a finite number expected", label, i,
                           (double)sets->values[i]);
        }
    }
    return CR_OK;
}

cr_status cr_weight_sets_read_checkpoint(const char *path, const struct cr_adapter *adapter,
                                         struct cr_weight_sets *sets, struct cr_error *err)
{
    struct cr_checkpoint checkpoint;
    struct cr_weight_sets made = {0};
    char label[CR_ESCAPE_BYTES];
    CR_TRY(cr_checkpoint_open(path, &checkpoint, err));
    cr_status status = copy_weights(cr_checkpoint_find(&checkpoint, CR_CKPT_WEIGHTS), adapter,
                                    cr_escape(label, sizeof label, path, strlen(path)), &made, err);
    cr_checkpoint_close(&checkpoint);
    if (status == CR_OK) {
        *sets = made;
    } else {
        cr_weight_sets_free(&made);
    }
    return status;
}
