#include "runtime/posterior/sets_file.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "runtime/core/alloc.h"
#include "runtime/core/buf.h"
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

/* "tasks/NAME" with the bytes of the name, at most 63, that no directory should have as %XX. */
static char *task_path(const char *dir, const char *name)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-";
    struct cr_buf text = {0};
    cr_buf_puts(&text, "tasks/");
    for (const char *c = name; *c != '\0'; c++) {
        bool keep = strchr(plain, *c) != NULL || (*c == '.' && c > name);
        cr_buf_printf(&text, keep ? "%c" : "%%%02X", keep ? *c : (unsigned char)*c);
    }
    char *path = text.failed ? NULL : cr_path_join(dir, text.data);
    cr_buf_free(&text);
    return path;
}

/* A PEFT directory of set k. Takes path. */
static cr_status write_directory(const struct cr_posterior_about *about, uint32_t k, const char *method, char *path,
                                 struct cr_error *err)
{
    struct cr_adapter set = cr_adapter_set(about->adapter, k);
    cr_status status = path != NULL ? cr_dir_create(path, err) : cr_fail(err, CR_E_MEMORY, "no memory for a path");
    if (status == CR_OK) {
        status = cr_adapter_save_peft(&set, about->model, path, method, err);
    }
    cr_free(path);
    return status;
}

static cr_status make_parent(const char *dir, const char *name, struct cr_error *err)
{
    char *path = cr_path_join(dir, name);
    cr_status status = path != NULL ? cr_dir_create(path, err) : cr_fail(err, CR_E_MEMORY, "no memory for a path");
    cr_free(path);
    return status;
}

/* ".member3"; of tasks ".mean", ".task0", ".task1" ... */
static void suffix_of(char out[SUFFIX_BYTES], bool tasks, uint32_t k)
{
    if (tasks && k == 0) {
        snprintf(out, SUFFIX_BYTES, ".mean");
    } else {
        snprintf(out, SUFFIX_BYTES, ".%s%u", tasks ? "task" : "member", tasks ? k - 1 : k);
    }
}

/* One vector a set. Takes numbers. */
static cr_status write_sets(const struct cr_posterior_about *about, bool tasks, json_t *numbers, const char *dir,
                            struct cr_error *err)
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
        suffix_of(names[k], tasks, k);
        vectors[k] = (struct cr_posterior_vector){names[k], cr_adapter_set(about->adapter, k).params};
    }
    struct cr_adapter first = cr_adapter_set(about->adapter, 0);
    struct cr_posterior_about one = *about;
    one.adapter = &first;
    status = cr_posterior_write(&one, tasks ? "bora" : "ensemble", numbers, vectors, n, NULL, dir, err);
out:
    cr_free(vectors);
    cr_free(names);
    json_decref(numbers);
    return status;
}

cr_status cr_members_write(const struct cr_posterior_about *about, const char *init, double gain,
                           struct cr_head_nll nll, const char *dir, struct cr_error *err)
{
    CR_TRY(make_parent(dir, "members", err));
    for (uint32_t m = 0; m < about->adapter->n_sets; m++) {
        const char *method = about->adapter->n_labels > 0 ? CR_HEADLESS_MEMBER : CR_MEMBER_METHOD;
        CR_TRY(write_directory(about, m, method, member_path(dir, m), err));
    }
    json_t *numbers = json_object();
    cr_json_put(&numbers, "members", json_integer(about->adapter->n_sets));
    cr_json_put(&numbers, "init", json_string(init));
    cr_json_put(&numbers, "gain", json_real(gain));
    cr_head_nll_record(&nll, numbers);
    return write_sets(about, false, numbers, dir, err);
}

static json_t *name_list(char *const *names, size_t n)
{
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++) {
        cr_json_add(&list, json_string(names[i])); /* strings of JSON lines: UTF-8 */
    }
    return list;
}

json_t *cr_tasks_json(char *const *names, size_t n, bool joined)
{
    json_t *object = json_object();
    cr_json_put(&object, "joined", json_boolean(joined));
    cr_json_put(&object, "tasks", name_list(names, n));
    return object;
}

cr_status cr_tasks_write(const struct cr_posterior_about *about, char *const *names, double tau, const char *prior,
                         const char *dir, struct cr_error *err)
{
    uint32_t n = about->adapter->n_sets - 1;
    CR_TRY(make_parent(dir, "tasks", err));
    for (uint32_t d = 0; d < n; d++) {
        CR_TRY(write_directory(about, d + 1, CR_TASK_METHOD, task_path(dir, names[d]), err));
    }
    json_t *numbers = json_object();
    cr_json_put(&numbers, "tasks", name_list(names, n));
    cr_json_put(&numbers, "tau", json_real(tau));
    cr_json_put(&numbers, "prior", json_string(prior));
    return write_sets(about, true, numbers, dir, err);
}

cr_status cr_members_first(const char *dir, char **path, struct cr_error *err)
{
    bool own = false;
    CR_TRY(cr_dir_has(dir, "adapter_config.json", &own, err));
    char *member = member_path(dir, 0);
    if (member == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for a path");
    }
    bool found = !own && access(member, F_OK) == 0;
    *path = found ? member : NULL;
    cr_free(found ? NULL : member);
    return CR_OK;
}

void cr_weight_sets_free(struct cr_weight_sets *sets)
{
    cr_free(sets->values);
    cr_own_head_free(&sets->head);
    json_decref(sets->names);
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
    sets->head.nll = (struct cr_head_nll){(double)NAN, (double)NAN};
    return CR_OK;
}

/* The names of n - 1 tasks. */
static cr_status take_names(const json_t *names, const char *label, struct cr_weight_sets *sets, struct cr_error *err)
{
    bool good = json_is_array(names);
    for (size_t i = 0; good && i < json_array_size(names); i++) {
        good = json_is_string(json_array_get(names, i));
    }
    if (!good) {
        return cr_fail(err, CR_E_INPUT, "%s: a list of the names of its tasks expected", label);
    }
    sets->names = json_incref((json_t *)(uintptr_t)names);
    return CR_OK;
}

static cr_status count_sets(const struct cr_posterior_file *file, bool tasks, struct cr_weight_sets *sets, uint32_t *n,
                            struct cr_error *err)
{
    const char *label = cr_safetensors_label(file->st);
    int64_t members = 0;
    if (!tasks) {
        CR_TRY(cr_json_get_int(file->numbers, "members", true, 1, CR_WEIGHT_SETS_MAX, &members, label, err));
        *n = (uint32_t)members;
        return CR_OK;
    }
    CR_TRY(take_names(json_object_get(file->numbers, "tasks"), label, sets, err));
    size_t n_tasks = json_array_size(sets->names);
    *n = (uint32_t)n_tasks + 1;
    return n_tasks < CR_WEIGHT_SETS_MAX ? CR_OK : cr_fail(err, CR_E_INPUT, "%s: %zu tasks", label, n_tasks);
}

/* The matrices of the first set are those of the adapter beside the file, which takes over the rest. */
static cr_status read_sets(const struct cr_posterior_file *file, bool tasks, struct cr_adapter **adapter,
                           const struct cr_adapter_base *base, struct cr_weight_sets *sets, struct cr_error *err)
{
    uint32_t n = 0;
    CR_TRY(count_sets(file, tasks, sets, &n, err));
    char suffix[SUFFIX_BYTES];
    suffix_of(suffix, tasks, 0);
    CR_TRY(cr_posterior_file_add_rows(file, suffix, adapter, err));
    CR_TRY(cr_posterior_file_check(file, *adapter, n, err));
    CR_TRY(allocate(sets, *adapter, n, err));
    CR_TRY(cr_own_head_read(file, *adapter, &sets->head, err));
    size_t n_set = (*adapter)->n_params;
    for (uint32_t k = 0; k < n; k++) {
        suffix_of(suffix, tasks, k);
        CR_TRY(cr_posterior_file_vector(file, *adapter, base, suffix, sets->values + k * n_set, err));
    }
    if (memcmp(sets->values, (*adapter)->params, cr_adapter_rows_begin(*adapter) * sizeof *sets->values) != 0) {
        return cr_fail(err, CR_E_INPUT, "%s: its %s", cr_safetensors_label(file->st),
                       tasks ? "mean is not the adapter beside it" : "first member is not the one in members/00");
    }
    memcpy((*adapter)->params, sets->values, n_set * sizeof *sets->values);
    return CR_OK;
}

static cr_status read_file(const char *dir, bool tasks, struct cr_adapter **adapter, const struct cr_adapter_base *base,
                           struct cr_weight_sets *sets, struct cr_error *err)
{
    struct cr_posterior_file file;
    struct cr_weight_sets made = {0};
    CR_TRY(cr_posterior_file_open(dir, *adapter, &file, err));
    cr_status status = read_sets(&file, tasks, adapter, base, &made, err);
    cr_posterior_file_close(&file);
    if (status == CR_OK) {
        *sets = made;
    } else {
        cr_weight_sets_free(&made);
    }
    return status;
}

cr_status cr_members_read(const char *dir, struct cr_adapter **adapter, const struct cr_adapter_base *base,
                          struct cr_weight_sets *sets, struct cr_error *err)
{
    return read_file(dir, false, adapter, base, sets, err);
}

cr_status cr_tasks_read(const char *dir, struct cr_adapter **adapter, const struct cr_adapter_base *base,
                        struct cr_weight_sets *sets, struct cr_error *err)
{
    return read_file(dir, true, adapter, base, sets, err);
}

uint32_t cr_weight_sets_find(const struct cr_weight_sets *sets, const char *task)
{
    for (size_t i = 0; i < json_array_size(sets->names); i++) {
        if (strcmp(json_string_value(json_array_get(sets->names, i)), task) == 0) {
            return (uint32_t)i + 1;
        }
    }
    return 0;
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

static cr_status read_names(const struct cr_checkpoint *checkpoint, const char *label, struct cr_weight_sets *sets,
                            struct cr_error *err)
{
    const struct cr_checkpoint_section *section = cr_checkpoint_find(checkpoint, CR_CKPT_METHOD);
    json_t *object = NULL;
    if (section == NULL) {
        return CR_OK; /* members */
    }
    CR_TRY(cr_json_parse(section->data, section->bytes, label, &object, err));
    cr_status status = take_names(json_object_get(object, "tasks"), label, sets, err);
    sets->joined = json_is_true(json_object_get(object, "joined"));
    json_decref(object);
    if (status == CR_OK && json_array_size(sets->names) + 1 != sets->n) {
        status = cr_fail(err, CR_E_INPUT, "%s: %u sets of weights for %zu tasks", label, sets->n,
                         json_array_size(sets->names));
    }
    return status;
}

cr_status cr_weight_sets_read_checkpoint(const char *path, const struct cr_adapter *adapter,
                                         struct cr_weight_sets *sets, struct cr_error *err)
{
    struct cr_checkpoint checkpoint;
    struct cr_weight_sets made = {0};
    char label[CR_ESCAPE_BYTES];
    CR_TRY(cr_checkpoint_open(path, &checkpoint, err));
    cr_escape(label, sizeof label, path, strlen(path));
    cr_status status = copy_weights(cr_checkpoint_find(&checkpoint, CR_CKPT_WEIGHTS), adapter, label, &made, err);
    if (status == CR_OK) {
        status = read_names(&checkpoint, label, &made, err);
    }
    cr_checkpoint_close(&checkpoint);
    if (status == CR_OK) {
        *sets = made;
    } else {
        cr_weight_sets_free(&made);
    }
    return status;
}
