#include "runtime/posterior/output_dir.h"

#include <string.h>
#include <sys/stat.h>

#include "credence/credence.h"
#include "runtime/core/alloc.h"
#include "runtime/io/file.h"
#include "runtime/posterior/posterior_file.h"

const char *const cr_output_names[CR_OUTPUT_N] = {"summary.json", CR_POSTERIOR_FILE, "adapter_config.json",
                                                  "adapter_model.safetensors", "adapter.gguf"};

/* Directories of adapters beside the one that stands for them all. */
static const char *const set_names[] = {"members", "tasks"};

/* What a run of finetune writes besides. */
static const char held_out[] = "valid.jsonl";
static const char *const run_names[] = {"train.jsonl", held_out};

enum { N_SETS = 2, N_RUN = 2, N_OF_ADAPTER = CR_OUTPUT_N - CR_OUTPUT_OF_ADAPTER };

/* An input compared with the entries of a directory; `failed` once memory could not be had. */
struct search {
    const char *dir, *path;
    bool failed;
};

/* Whether `path` is dir/name, by itself or by another name, or would be it once the directory is made. */
static bool is_entry(struct search *s, const char *dir, const char *name, const char *path)
{
    char *full = cr_path_join(dir, name), *parent = cr_path_parent(path);
    s->failed = s->failed || full == NULL || parent == NULL;
    bool same = !s->failed && (strcmp(full, path) == 0 || cr_same_file(full, path) ||
                               (strcmp(cr_base_name(path), name) == 0 && cr_same_file(parent, dir)));
    cr_free(full);
    cr_free(parent);
    return same;
}

/* Whether a directory lies in dir/name. */
static bool is_below(struct search *s, const char *name, const char *directory)
{
    char *holder = cr_path_join(directory, "..");
    bool below = holder != NULL && is_entry(s, s->dir, name, holder);
    s->failed = s->failed || holder == NULL;
    cr_free(holder);
    return below;
}

/* A directory is an adapter: one of a run's sets, or made of links to the files of the run. */
static const char *find_directory(struct search *s)
{
    for (int i = 0; i < N_SETS; i++) {
        if (is_below(s, set_names[i], s->path)) {
            return set_names[i];
        }
    }
    for (int i = 0; i < CR_OUTPUT_N; i++) {
        char *inside = cr_path_join(s->path, cr_output_names[i]);
        bool found = inside != NULL && is_entry(s, s->dir, cr_output_names[i], inside);
        s->failed = s->failed || inside == NULL;
        cr_free(inside);
        if (found) {
            return cr_output_names[i];
        }
    }
    return NULL;
}

static bool is_of_adapter(const char *path)
{
    for (int i = CR_OUTPUT_OF_ADAPTER; i < CR_OUTPUT_N; i++) {
        if (strcmp(cr_base_name(path), cr_output_names[i]) == 0) {
            return true;
        }
    }
    return false;
}

static const char *find_file(struct search *s, bool run)
{
    for (int i = 0; i < CR_OUTPUT_N; i++) {
        if (is_entry(s, s->dir, cr_output_names[i], s->path)) {
            return cr_output_names[i];
        }
    }
    for (int i = 0; run && i < N_RUN; i++) {
        if (is_entry(s, s->dir, run_names[i], s->path)) {
            return run_names[i];
        }
    }
    char *parent = cr_path_parent(s->path);
    const char *found = NULL;
    s->failed = s->failed || parent == NULL;
    if (run && !s->failed && strncmp(cr_base_name(s->path), "step-", 5) == 0 &&
        is_entry(s, s->dir, "checkpoints", parent)) { /* one of the same step takes its place */
        found = "checkpoints";
    }
    for (int i = 0; i < N_SETS && found == NULL && !s->failed && is_of_adapter(s->path); i++) {
        found = is_below(s, set_names[i], parent) ? set_names[i] : NULL;
    }
    cr_free(parent);
    return found;
}

cr_status cr_output_keep_inputs(const char *dir, bool run, const struct cr_output_input *inputs, size_t n,
                                struct cr_error *err)
{
    struct stat info;
    char shown[CR_ESCAPE_BYTES], shown_dir[CR_ESCAPE_BYTES];
    for (size_t i = 0; i < n; i++) {
        struct search s = {.dir = dir, .path = inputs[i].path};
        if (s.path == NULL || s.path[0] == '\0') {
            continue;
        }
        bool directory = stat(s.path, &info) == 0 && S_ISDIR(info.st_mode);
        const char *found = directory ? find_directory(&s) : find_file(&s, run);
        if (s.failed) {
            return cr_fail(err, CR_E_MEMORY, "no memory for a path");
        }
        if (found != NULL && !(found == held_out && strcmp(inputs[i].flag, "--valid") == 0)) {
            return cr_fail(err, CR_E_USAGE, "%s %.300s would be lost: --output %.300s writes over or removes its %s",
                           inputs[i].flag, cr_escape(shown, sizeof shown, s.path, strlen(s.path)),
                           cr_escape(shown_dir, sizeof shown_dir, dir, strlen(dir)), found);
        }
    }
    return CR_OK;
}

cr_status cr_output_check(const char *output, const char *flag, const char *path, struct cr_error *err)
{
    struct cr_output_input input = {.flag = flag, .path = path};
    return cr_output_keep_inputs(output, true, &input, 1, err);
}

cr_status cr_output_keep_adapter(const char *adapter, const char *flag, const char *path, struct cr_error *err)
{
    struct search s = {.dir = adapter, .path = path};
    char shown[CR_ESCAPE_BYTES];
    const char *found = path != NULL ? find_file(&s, false) : NULL;
    if (s.failed) {
        return cr_fail(err, CR_E_MEMORY, "no memory for a path");
    }
    return found == NULL ? CR_OK
                         : cr_fail(err, CR_E_USAGE, "%s %.300s is a file of --adapter", flag,
                                   cr_escape(shown, sizeof shown, path, strlen(path)));
}

cr_status cr_output_clear(const char *dir, struct cr_error *err)
{
    cr_status status = cr_dir_remove_files(dir, cr_output_names, CR_OUTPUT_N, err);
    for (size_t i = 0; status == CR_OK && i < N_SETS; i++) {
        char *path = cr_path_join(dir, set_names[i]);
        status = path != NULL ? cr_dir_remove_children(path, cr_output_names + CR_OUTPUT_OF_ADAPTER, N_OF_ADAPTER, err)
                              : cr_fail(err, CR_E_MEMORY, "no memory for a path");
        cr_free(path);
    }
    return status;
}

cr_status cr_output_take(const char *dir, bool force, int *lock_fd, struct cr_error *err)
{
    int fd = -1;
    CR_TRY(cr_dir_prepare_output(dir, force, false, err));
    CR_TRY(cr_dir_lock(dir, &fd, err));
    cr_status status = cr_output_clear(dir, err);
    if (status != CR_OK) {
        cr_dir_unlock(fd);
        return status;
    }
    *lock_fd = fd;
    return CR_OK;
}
