/* Options of an evaluation: defaults, and what can be refused before any file is read. */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "runtime/core/alloc.h"
#include "runtime/eval/metrics.h"
#include "runtime/eval/scoring.h"
#include "runtime/io/file.h"
#include "runtime/io/json.h"

void cr_eval_options_init(struct cr_eval_options *options)
{
    *options = (struct cr_eval_options){.size = sizeof *options};
}

/* True for two names of one existing file or directory. */
static bool same_file(const char *a, const char *b)
{
    struct stat x;
    struct stat y;
    return a != NULL && b != NULL && stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev &&
           x.st_ino == y.st_ino;
}

/* An output that cannot be written is better refused before the work than after it. */
static cr_status check_output(const char *flag, const char *path, struct cr_error *err)
{
    struct stat info;
    char shown[CR_ESCAPE_BYTES];
    if (path == NULL) {
        return CR_OK;
    }
    if (path[0] == '\0') {
        return cr_fail(err, CR_E_USAGE, "%s: an empty path", flag);
    }
    cr_escape(shown, sizeof shown, path, strlen(path));
    if (lstat(path, &info) == 0 && S_ISDIR(info.st_mode)) {
        return cr_fail(err, CR_E_IO, "%s %s: %s", flag, shown, strerror(EISDIR));
    }
    char *parent = cr_path_parent(path);
    if (parent == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for a path");
    }
    int code = stat(parent, &info) != 0 ? errno : S_ISDIR(info.st_mode) ? 0 : ENOTDIR;
    cr_free(parent);
    return code == 0 ? CR_OK : cr_fail(err, CR_E_IO, "%s %s: its directory: %s", flag, shown, strerror(code));
}

static cr_status check_paths(const struct cr_eval_options *o, struct cr_error *err)
{
    if (o->model == NULL || o->data == NULL) {
        return cr_fail(err, CR_E_USAGE, "%s is required", o->model == NULL ? "--model" : "--data");
    }
    const char *inputs[] = {o->model, o->data, o->adapter};
    const char *names[] = {"--model", "--data", "--adapter"};
    for (int i = 0; i < 3; i++) {
        if (same_file(o->json, inputs[i]) || same_file(o->report, inputs[i])) {
            return cr_fail(err, CR_E_USAGE, "%s is the same file as %s",
                           same_file(o->json, inputs[i]) ? "--json" : "--report", names[i]);
        }
    }
    if (o->json != NULL && o->report != NULL && (strcmp(o->json, o->report) == 0 || same_file(o->json, o->report))) {
        return cr_fail(err, CR_E_USAGE, "--json and --report are the same file");
    }
    CR_TRY(check_output("--json", o->json, err));
    return check_output("--report", o->report, err);
}

cr_status cr_eval_check_options(const struct cr_eval_options *given, struct cr_eval_options *out, struct cr_error *err)
{
    struct cr_eval_options o;
    if (given == NULL || given->size == 0 || given->size > sizeof o) {
        return cr_fail(err, CR_E_USAGE, "options: size %zu, expected %zu or less (cr_eval_options_init sets it)",
                       given != NULL ? given->size : 0, sizeof o);
    }
    cr_eval_options_init(&o);
    memcpy(&o, given, given->size); /* fields that an older caller does not know keep their defaults */
    o.size = sizeof o;
    CR_TRY(check_paths(&o, err));
    if (o.samples > 1) {
        return cr_fail(err, CR_E_USAGE, "--samples %u: one set of weights has no more than 1 sample", o.samples);
    }
    if (o.max_seq_length == 1 || o.max_seq_length >= (uint32_t)1 << 31) {
        return cr_fail(err, CR_E_USAGE, "--max-seq-length %u, expected 2 to the context of the model",
                       o.max_seq_length);
    }
    if (o.seed > UINT32_MAX) {
        return cr_fail(err, CR_E_USAGE, "--seed %llu, expected 0 to 4294967295", (unsigned long long)o.seed);
    }
    if (o.n_bins > CR_BINS_MAX) {
        return cr_fail(err, CR_E_USAGE, "n_bins %u, expected at most %d", o.n_bins, CR_BINS_MAX);
    }
    if (o.settings_json != NULL) {
        json_t *flags = NULL;
        cr_status status = cr_json_parse(o.settings_json, strlen(o.settings_json), "settings_json", &flags, err);
        json_decref(flags);
        if (status != CR_OK) {
            return status == CR_E_MEMORY ? status : cr_fail_prefix(err, CR_E_USAGE, "options");
        }
    }
    o.n_bins = o.n_bins > 0 ? o.n_bins : CR_BINS_DEFAULT;
    *out = o;
    return CR_OK;
}
