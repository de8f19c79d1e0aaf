#define _GNU_SOURCE

#include "tests/support/train_test.h"

#include <check.h>
#include <dirent.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "credence/kernels/dequant.h"
#include "runtime/core/alloc.h"
#include "runtime/core/buf.h"
#include "runtime/io/file.h"
#include "runtime/io/hash.h"
#include "runtime/io/sys.h"
#include "runtime/thread/parallel.h"
#include "tests/support/kernel_test.h"
#include "tests/support/tiny_model.h"

static char dir[256];
static struct cr_parallel serial;

const char *cr_train_path(const char *name)
{
    static char paths[4][1024];
    static unsigned next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", dir, name);
    return path;
}

const char *cr_train_kept(const char *name)
{
    static char paths[8][1024];
    static unsigned next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s", cr_train_path(name));
    return path;
}

bool cr_train_exists(const char *name)
{
    return access(cr_train_path(name), F_OK) == 0;
}

uint8_t *cr_train_bytes(const char *name, size_t *n)
{
    uint8_t *data = NULL;
    struct cr_error err = {0};
    ck_assert_msg(cr_file_read(cr_train_path(name), (size_t)1 << 30, &data, n, &err) == CR_OK, "%s", err.message);
    return data;
}

void cr_train_write(const char *name, const void *data, size_t n)
{
    FILE *file = fopen(cr_train_path(name), "wb");
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(data, 1, n, file), n);
    ck_assert_int_eq(fclose(file), 0);
}

bool cr_train_same(const char *a, const char *b)
{
    size_t n[2];
    uint8_t *data[2] = {cr_train_bytes(a, &n[0]), cr_train_bytes(b, &n[1])};
    bool same = n[0] == n[1] && memcmp(data[0], data[1], n[0]) == 0;
    cr_free(data[0]);
    cr_free(data[1]);
    return same;
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

uint64_t cr_train_tree_digest(const char *name)
{
    struct dirent **entries;
    int n = scandir(cr_train_path(name), &entries, NULL, by_name);
    ck_assert_int_ge(n, 0);
    uint64_t digest = 0;
    for (int i = 0; i < n; i++) {
        char inner[400];
        struct stat info;
        snprintf(inner, sizeof inner, "%s/%s", name, entries[i]->d_name);
        bool dots = strcmp(entries[i]->d_name, ".") == 0 || strcmp(entries[i]->d_name, "..") == 0;
        if (!dots && stat(cr_train_path(inner), &info) == 0) {
            uint64_t part[4] = {digest, cr_xxh3_64(inner, strlen(inner)), (uint64_t)info.st_ino, 0};
            if (S_ISDIR(info.st_mode)) {
                part[3] = cr_train_tree_digest(inner);
            } else {
                size_t bytes;
                uint8_t *data = cr_train_bytes(inner, &bytes);
                part[3] = cr_xxh3_64(data, bytes);
                cr_free(data);
            }
            digest = cr_xxh3_64(part, sizeof part);
        }
        free(entries[i]);
    }
    free(entries);
    return digest;
}

static void put_choices(const char *name, unsigned seed)
{
    struct cr_buf buf = {0};
    for (int i = 0; i < CR_TRAIN_CHOICES; i++) {
        seed = seed * 1664525u + 1013904223u;
        int answer = (int)(seed >> 20) & 1;
        cr_buf_printf(&buf,
                      "{\"question\":\"%.*s %s\",\"choices\":[\"left\",\"right\"],\"answer\":%d,\"task\":\"t%d\"}\n",
                      (int)(3 + seed % 23), "a word or two and a few more", answer ? "yes" : "no", answer, i % 2);
    }
    ck_assert(!buf.failed);
    cr_train_write(name, buf.data, buf.n);
    cr_buf_free(&buf);
}

static void put_texts(const char *name)
{
    struct cr_buf buf = {0};
    for (int i = 0; i < CR_TRAIN_TEXTS; i++) {
        cr_buf_printf(&buf, "{\"prompt\":\"%d and %d is \",\"completion\":\"%d\"}\n", i, i + 1, 2 * i + 1);
    }
    ck_assert(!buf.failed);
    cr_train_write(name, buf.data, buf.n);
    cr_buf_free(&buf);
}

/* Whole runs in a test are about contents: waiting for the disk tells nothing and costs minutes. */
static int no_sync(int fd)
{
    (void)fd;
    return 0;
}

void cr_train_dir_make(void)
{
    static struct cr_sys quick;
    quick = cr_sys_real;
    quick.fsync = no_sync;
    cr_sys_set(&quick);
    const char *base = getenv("TMPDIR");
    snprintf(dir, sizeof dir, "%s/cr-train-XXXXXX", base != NULL ? base : "/tmp");
    ck_assert_ptr_nonnull(mkdtemp(dir));
    struct cr_tiny_spec spec = {.type = CR_Q_Q8_0, .seed = 11};
    struct cr_error err = {0};
    ck_assert_msg(cr_tiny_model_file(&spec, cr_train_path("model.gguf"), &err) == CR_OK, "%s", err.message);
    put_choices("choices.jsonl", 1);
    put_choices("other.jsonl", 2);
    put_texts("texts.jsonl");
    cr_parallel_serial(&serial);
}

void cr_train_dir_drop(void)
{
    char command[300];
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    ck_assert_int_eq(system(command), 0);
}

static void on_progress(void *ctx, const struct cr_progress *progress)
{
    struct cr_train_run *run = ctx;
    run->in_validate = strcmp(progress->phase, "validate") == 0;
    if (strcmp(progress->phase, "train") == 0) {
        run->n_steps_seen++;
        run->n_reports += progress->report;
    }
}

static void on_log(void *ctx, enum cr_log_level level, const char *line)
{
    struct cr_train_run *run = ctx;
    if (level == CR_LOG_WARNING) {
        run->n_warnings++;
        snprintf(run->last_warning, sizeof run->last_warning, "%s", line);
    }
}

static bool on_stop(void *ctx)
{
    struct cr_train_run *run = ctx;
    run->n_polls++;
    return (run->stop_at_poll > 0 && run->n_polls >= run->stop_at_poll) ||
           (run->stop_at >= 0 && run->n_steps_seen >= run->stop_at) || (run->stop_in_validate && run->in_validate);
}

void cr_train_run_init(struct cr_train_run *run, const char *output)
{
    static char paths[8][1024];
    static unsigned next;
    memset(run, 0, sizeof *run);
    cr_finetune_options_init(&run->options);
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s", cr_train_path(output));
    static char model[1024];
    static char data[1024];
    snprintf(model, sizeof model, "%s", cr_train_path("model.gguf"));
    snprintf(data, sizeof data, "%s", cr_train_path("choices.jsonl"));
    run->options.model = model;
    run->options.data = data;
    run->options.output = path;
    run->options.batch_size = 4;
    run->options.save_every = 2;
    run->options.report_every = 2;
    run->options.lr = 5e-3;
    run->stop_at = -1;
    run->host.parallel = &serial;
    run->host.cpu_cap = cr_test_cap();
}

cr_status cr_train_run_go(struct cr_train_run *run)
{
    run->host.progress = on_progress;
    run->host.log = on_log;
    run->host.stop = on_stop;
    run->host.ctx = run;
    run->n_steps_seen = 0;
    run->n_reports = 0;
    run->n_warnings = 0;
    run->n_polls = 0;
    memset(&run->err, 0, sizeof run->err);
    return cr_finetune(&run->options, &run->host, &run->result, &run->err);
}

void cr_train_must(struct cr_train_run *run)
{
    cr_status status = cr_train_run_go(run);
    ck_assert_msg(status == CR_OK, "status %d: %s", status, run->err.message);
}

void cr_train_must_on(struct cr_train_run *run, int n_threads)
{
    struct cr_parallel pool;
    cr_parallel_openmp(&pool, n_threads);
    run->host.parallel = &pool;
    cr_train_must(run);
    run->host.parallel = &serial; /* the pool ends here */
}

void cr_train_must_fail(struct cr_train_run *run, cr_status want, const char *part)
{
    cr_status status = cr_train_run_go(run);
    ck_assert_msg(status == want, "status %d, expected %d: %s", status, want, run->err.message);
    ck_assert_msg(strstr(run->err.message, part) != NULL, "\"%s\" lacks \"%s\"", run->err.message, part);
    ck_assert_ptr_null(strchr(run->err.message, '\n'));
}

double cr_train_predicted_mb(struct cr_train_run *run)
{
    double mb = 0;
    int ends[2], status = -1;
    ck_assert_int_eq(pipe(ends), 0);
    pid_t child = fork();
    if (child == 0) {
        bool told = cr_train_run_go(run) == CR_OK && write(ends[1], &run->result.predicted_mb, sizeof mb) == sizeof mb;
        _exit(told ? 0 : 1);
    }
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, 0);
    ck_assert_int_eq(read(ends[0], &mb, sizeof mb), sizeof mb);
    close(ends[0]);
    close(ends[1]);
    return mb;
}

void cr_train_stop(struct cr_train_run *run, long n_steps)
{
    run->stop_at = n_steps;
    cr_train_must_fail(run, CR_E_STOPPED, "--resume");
    run->stop_at = -1;
    run->options.resume = true;
}

void cr_train_full_init(struct cr_train_run *run, const char *output)
{
    cr_train_run_init(run, output);
    run->options.steps = 9;
    run->options.dropout = 0.25;
    run->options.batch_size = 2;
    run->options.grad_accumulation_steps = 3;
    run->options.lr_schedule = CR_LR_COSINE;
    run->options.warmup = 2;
    run->options.weight_decay = 0.1;
    run->options.eval_every = 3;
    run->options.keep_best_set = true;
    run->options.keep_best = true;
}

void cr_train_same_files(const char *a, const char *b, const char *const *names, size_t n)
{
    char x[300];
    char y[300];
    for (size_t i = 0; i < n; i++) {
        snprintf(x, sizeof x, "%s/%s", a, names[i]);
        snprintf(y, sizeof y, "%s/%s", b, names[i]);
        ck_assert_msg(cr_train_same(x, y), "%s differs from %s", x, y);
    }
}

void cr_train_same_outputs(const char *a, const char *b)
{
    static const char *const names[] = {"adapter_config.json", "adapter_model.safetensors", "adapter.gguf"};
    cr_train_same_files(a, b, names, sizeof names / sizeof names[0]);
}

char *cr_train_journal(const char *output)
{
    char name[300];
    snprintf(name, sizeof name, "%s/train.jsonl", output);
    size_t n;
    uint8_t *text = cr_train_bytes(name, &n);
    struct cr_buf out = {0};
    for (char *line = strtok((char *)text, "\n"); line != NULL; line = strtok(NULL, "\n")) {
        json_t *object = json_loads(line, 0, NULL);
        ck_assert_msg(json_is_object(object), "%s", line);
        static const char *const fields[] = {"step",   "epoch", "loss",   "lr",     "grad_norm",
                                             "tokens", "tok_s", "gflops", "rss_mb", "eta_s"};
        ck_assert_uint_eq(json_object_size(object), 10);
        for (int i = 0; i < 10; i++) {
            ck_assert_msg(json_object_get(object, fields[i]) != NULL, "%s", fields[i]);
            if (i >= 6) {
                json_object_del(object, fields[i]);
            }
        }
        char *kept = json_dumps(object, JSON_COMPACT);
        cr_buf_printf(&out, "%s\n", kept);
        free(kept);
        json_decref(object);
    }
    cr_free(text);
    ck_assert(!out.failed);
    return cr_buf_take(&out, NULL);
}

void cr_train_same_journals(const char *a, const char *b)
{
    char *journals[2] = {cr_train_journal(a), cr_train_journal(b)};
    ck_assert_str_eq(journals[0], journals[1]);
    cr_free(journals[0]);
    cr_free(journals[1]);
}
