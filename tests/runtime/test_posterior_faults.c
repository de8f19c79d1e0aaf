/* Prediction with posteriors: refusals of those that do not belong or are damaged, of options, failing allocations. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/core/alloc.h"
#include "runtime/core/buf.h"
#include "runtime/adapter/files.h"
#include "runtime/io/file.h"
#include "runtime/posterior/blob_file.h"
#include "runtime/posterior/ivon_file.h"
#include "runtime/posterior/method.h"
#include "runtime/posterior/posterior.h"
#include "runtime/posterior/sets_file.h"
#include "tests/runtime/posterior_case.h"
#include "tests/support/io_test.h"
#include "tests/support/kernel_test.h"
#include "tests/support/tiny_model.h"
#include "tests/support/train_test.h"

static void copy_file(const char *from, const char *to)
{
    size_t n;
    uint8_t *bytes = cr_train_bytes(from, &n);
    cr_train_write(to, bytes, n);
    cr_free(bytes);
}

START_TEST(posteriors_that_do_not_belong)
{
    struct call call;
    size_t n;
    /* Another run's posterior of the same shape; of another rank; of another method. */
    train_ivon("second", other, 3);
    copy_file("second/" CR_POSTERIOR_FILE, "ivon/" CR_POSTERIOR_FILE);
    call_init(&call, "ivon");
    refuse(&call, CR_E_INPUT, "its means are not the adapter beside it");
    train_adamw("narrow", "q_proj,v_proj", 3, 0);
    copy_file("second/" CR_POSTERIOR_FILE, "narrow/" CR_POSTERIOR_FILE);
    call_init(&call, "narrow");
    refuse(&call, CR_E_INPUT, "method \"adamw\"");
    struct cr_train_run run;
    cr_train_run_init(&run, "thin");
    run.options.method = "ivon";
    run.options.rank = 3;
    run.options.steps = 1;
    cr_train_must(&run);
    copy_file("second/" CR_POSTERIOR_FILE, "thin/" CR_POSTERIOR_FILE);
    call_init(&call, "thin");
    refuse(&call, CR_E_INPUT, "has shape 8 x 64, 3 x 64 expected");
    /* A curvature that gives no variance, and a cut file. */
    uint8_t *bytes = cr_train_bytes("second/" CR_POSTERIOR_FILE, &n);
    static const uint8_t minus_one[4] = {0, 0, 0x80, 0xbf};
    uint8_t kept[4];
    for (size_t at = n - 4; at + 4 > n / 2; at -= (n - n / 2) / 2) {
        memcpy(kept, bytes + at, 4);
        memcpy(bytes + at, minus_one, 4);
        cr_train_write("second/" CR_POSTERIOR_FILE, bytes, n);
        call_init(&call, "second");
        refuse(&call, CR_E_INPUT, CR_POSTERIOR_FILE); /* the mean differs, or the curvature is refused */
        memcpy(bytes + at, kept, 4);
    }
    cr_train_write("second/" CR_POSTERIOR_FILE, bytes, n - 4);
    cr_free(bytes);
    call_init(&call, "second");
    refuse(&call, CR_E_INPUT, CR_POSTERIOR_FILE);
    /* Without the file the mean is what is left, and that is said. */
    ck_assert_int_eq(unlink(cr_train_path("second/" CR_POSTERIOR_FILE)), 0);
    call_init(&call, "second");
    eval(&call);
    ck_assert_ptr_nonnull(strstr(call.first_warning, CR_POSTERIOR_FILE));
    ck_assert_uint_eq(call.result.n_members, 1);
    call_free(&call);
    /* Another model. */
    struct cr_tiny_spec spec = {.type = 8, .seed = 12};
    ck_assert_int_eq(cr_tiny_model_file(&spec, model, NULL), CR_OK);
    call_init(&call, "thin");
    refuse(&call, CR_E_BUSY, "base");
}
END_TEST

/* Cut anywhere, or with any byte of the header changed: a refusal, or a posterior whose numbers make sense; no leak. */
START_TEST(damaged_files)
{
    size_t n, refused = 0;
    char path[1024];
    snprintf(path, sizeof path, "%s", cr_train_path("ivon"));
    uint8_t *bytes = cr_train_bytes("ivon/" CR_POSTERIOR_FILE, &n);
    uint64_t header;
    memcpy(&header, bytes, sizeof header);
    long live = cr_alloc_live();
    for (size_t i = 0; i < 400; i++) {
        bool cut = i < 60;
        size_t at = cut ? n * i / 60 : i * 7919 % (size_t)(header + 8);
        uint8_t kept = bytes[at];
        bytes[at] = (uint8_t)(cut ? kept : kept ^ (1u << i % 8));
        cr_train_write("ivon/" CR_POSTERIOR_FILE, bytes, cut ? at : n);
        bytes[at] = kept;
        struct cr_posterior *p = NULL;
        struct cr_error err = {0};
        cr_status status = cr_posterior_open(path, NULL, false, NULL, CR_TIER_SCALAR, &p, &err);
        ck_assert_msg(status == CR_OK || status == CR_E_INPUT, "%zu: %d %s", at, status, err.message);
        ck_assert(!cut || status == CR_E_INPUT);
        if (status == CR_OK) {
            for (int g = 0; g < CR_IVON_GROUPS; g++) {
                ck_assert(p->groups[g].ess > 0 && p->groups[g].weight_decay >= 0);
            }
            cr_posterior_close(p);
        } else {
            ck_assert(strchr(err.message, '\n') == NULL && err.message[0] != '\0');
            refused++;
        }
        ck_assert_int_eq(cr_alloc_live(), live);
    }
    ck_assert_uint_gt(refused, 300);
    cr_free(bytes);
}
END_TEST

START_TEST(refused_options)
{
    struct call call;
    train_adamw("point", "q_proj", 2, 0);
#define REFUSE(name, field, value, part)                                                                               \
    do {                                                                                                               \
        call_init(&call, name);                                                                                        \
        call.options.field = (value);                                                                                  \
        refuse(&call, CR_E_USAGE, part);                                                                               \
    } while (0)
    REFUSE("point", samples, 2, "--samples 2");
    REFUSE("point", posterior_temperature, 2, "--posterior-temperature");
    REFUSE("point", prune, 0.5, "--prune");
    REFUSE("point", mc_dropout, true, "--mc-dropout");
    REFUSE(NULL, samples, 2, "--samples 2");
    REFUSE(NULL, mc_dropout, true, "--adapter");
    REFUSE("ivon", samples, 10001, "--samples 10001");
    REFUSE("ivon", posterior_temperature, -1, "--posterior-temperature");
    REFUSE("ivon", posterior_temperature, (double)NAN, "--posterior-temperature");
    REFUSE("ivon", prune, 1, "--prune");
#undef REFUSE
    call_init(&call, "ivon");
    call.options.mean = true;
    call.options.samples = 3;
    refuse(&call, CR_E_USAGE, "--mean");
    call_init(&call, "ivon");
    call.options.mean = true;
    call.options.posterior_temperature = 2;
    refuse(&call, CR_E_USAGE, "--mean");
    struct cr_export_options o = {.size = sizeof o, .format = "peft"};
    struct cr_error err;
    char from[1024], to[1024];
    snprintf(from, sizeof from, "%s", cr_train_path("point"));
    snprintf(to, sizeof to, "%s", cr_train_path("out"));
    o.adapter = from;
    o.output = to;
    o.sample_set = true;
    ck_assert_int_eq(cr_export(&o, NULL, &err), CR_E_USAGE);
    ck_assert_ptr_nonnull(strstr(err.message, "--sample"));
    o.mean = true;
    ck_assert_int_eq(cr_export(&o, NULL, &err), CR_E_USAGE);
    ck_assert(!cr_train_exists("out"));
    o.sample_set = false;
    o.force = true;
    o.output = from; /* what is read stays as it is */
    ck_assert_int_eq(cr_export(&o, NULL, &err), CR_E_USAGE);
    ck_assert_ptr_nonnull(strstr(err.message, "--output is the same as --adapter"));
    snprintf(to, sizeof to, "%s", cr_train_path("model.gguf"));
    o.output = o.model = to;
    o.format = "gguf";
    ck_assert_int_eq(cr_export(&o, NULL, &err), CR_E_USAGE);
    ck_assert_ptr_nonnull(strstr(err.message, "--output is the same as --model"));
}
END_TEST

static cr_status open_members(void *arg, struct cr_error *err)
{
    struct cr_posterior *p = NULL;
    cr_status status = cr_posterior_open(arg, NULL, false, NULL, CR_TIER_SCALAR, &p, err);
    if (status == CR_OK) {
        ck_assert_uint_eq(p->sets.n, 2);
        cr_posterior_close(p);
    }
    return status;
}

static bool collect(void *ctx, const char *text, size_t n)
{
    cr_buf_append(ctx, text, n);
    return true;
}

/* Without memory a file that is there is not called absent: not the members of an ensemble, not what `info` finds, not
 * the file that an export would write over. */
START_TEST(nothing_is_absent_for_want_of_memory)
{
    struct cr_train_run run;
    struct cr_error err = {0};
    struct cr_buf whole = {0}, text = {0};
    char path[1024], file[1100];
    size_t n[2];
    cr_train_run_init(&run, "ensemble");
    run.options.method = "ensemble";
    run.options.members = 2;
    run.options.steps = 1;
    cr_train_must(&run);
    snprintf(path, sizeof path, "%s", cr_train_path("ensemble"));
    cr_test_alloc_sweep("open", open_members, path);
    snprintf(path, sizeof path, "%s", cr_train_path("ivon"));
    ck_assert_msg(cr_info(path, collect, &whole, &err) == CR_OK, "%s", err.message);
    const char *counts = strstr(whole.data, "checkpoints"); /* of those that can be read */
    ck_assert_ptr_nonnull(counts);
    size_t n_said = (size_t)(counts - whole.data);
    snprintf(file, sizeof file, "%s/adapter_model.safetensors", path);
    struct cr_export_options o = {
        .size = sizeof o, .adapter = path, .output = file, .format = "gguf", .mean = true, .force = true};
    uint8_t *before = cr_train_bytes("ivon/adapter_model.safetensors", &n[0]);
    for (long at = 1; at < 200; at++) {
        cr_buf_clear(&text);
        cr_buf_reserve(&text, 2 * whole.n);
        cr_alloc_fail_at(at, false);
        cr_status status = cr_info(path, collect, &text, &err);
        cr_alloc_fail_at(0, false);
        /* A part of it may say so of itself. */
        ck_assert_msg(status == CR_E_MEMORY || (status == CR_OK && (strncmp(text.data, whole.data, n_said) == 0 ||
                                                                    strstr(text.data, "memory") != NULL)),
                      "%ld: %d\n%s", at, status, status == CR_OK ? text.data : err.message);
        cr_alloc_fail_at(at, false);
        status = cr_export(&o, NULL, &err);
        cr_alloc_fail_at(0, false);
        ck_assert_msg(status == CR_E_MEMORY || status == CR_E_USAGE, "%ld: %d %s", at, status, err.message);
    }
    uint8_t *after = cr_train_bytes("ivon/adapter_model.safetensors", &n[1]);
    ck_assert_uint_eq(n[0], n[1]);
    ck_assert_mem_eq(before, after, n[0]);
    cr_free(before);
    cr_free(after);
    cr_buf_free(&whole);
    cr_buf_free(&text);
}
END_TEST

static long json_left; /* allocations of jansson until one fails; 0: none will */

static void *json_malloc(size_t n)
{
    return json_left > 0 && --json_left == 0 ? NULL : malloc(n);
}

/* One of the files, from the weights of one adapter, or of one in two sets. */
static cr_status write_one(int which, const struct cr_posterior_about *about, float *ones, const char *dir,
                           struct cr_error *err)
{
    static char first[] = "first";
    char *const names[] = {first};
    const float *w = about->adapter->params;
    struct cr_ivon_group groups[CR_IVON_GROUPS] = {{.ess = 2, .weight_decay = 1}, {.ess = 3, .weight_decay = 1}};
    struct cr_ivon_posterior ivon = {.mean = w, .hess = ones, .groups = groups, .t = 6};
    switch (which) {
    case 0:
        return cr_ivon_write(&ivon, about, dir, err);
    case 1:
        return cr_blob_write(w, ones, 0.5, about, dir, err);
    case 2:
        return cr_members_write(about, "pissa", 1, (struct cr_head_nll){(double)NAN, (double)NAN}, dir, err);
    default:
        return cr_tasks_write(about, names, 3, "sq", dir, err);
    }
}

static void same_posterior(const char *a, const char *b)
{
    static const char *const name[] = {CR_POSTERIOR_FILE};
    cr_train_same_files(a, b, name, 1);
}

/* A key that found no memory is no file without it: a file, and the shapes in a checkpoint, are written whole or not.
 */
START_TEST(whole_files)
{
    struct cr_model *m = NULL;
    struct cr_adapter *adapter = NULL;
    struct cr_error err = {0};
    char dirs[2][1024];
    const char *names[] = {"whole", "tried"};
    json_set_alloc_funcs(json_malloc, free);
    ck_assert_msg(cr_model_open(model, &m, &err) == CR_OK, "%s", err.message);
    ck_assert_msg(cr_adapter_load(cr_train_path("ivon"), m, false, false, NULL, &adapter, &err) == CR_OK, "%s",
                  err.message);
    if (_i >= 2) {
        ck_assert_int_eq(cr_adapter_repeat(&adapter, 2, &err), CR_OK);
    }
    float *ones = cr_alloc(adapter->n_params, sizeof *ones);
    for (size_t i = 0; i < adapter->n_params; i++) {
        ones[i] = 1;
    }
    for (int i = 0; i < 2; i++) {
        snprintf(dirs[i], sizeof dirs[i], "%s", cr_train_path(names[i]));
        ck_assert_int_eq(cr_dir_create(dirs[i], &err), CR_OK);
    }
    struct cr_posterior_about about = {.adapter = adapter, .model = m, .template_name = "choices-t1"};
    ck_assert_msg(write_one(_i, &about, ones, dirs[0], &err) == CR_OK, "%s", err.message);
    char *shapes = cr_adapter_shapes_text(adapter, m);
    long n_tried = 0;
    for (bool reached = true; reached; n_tried++) {
        json_left = n_tried + 1;
        cr_status status = write_one(_i, &about, ones, dirs[1], &err);
        reached = json_left == 0;
        json_left = 0;
        ck_assert_msg(status == CR_E_MEMORY || status == CR_OK, "%ld: %d %s", n_tried, status, err.message);
        if (status == CR_OK) {
            same_posterior(names[0], names[1]);
        }
    }
    ck_assert_int_gt(n_tried, 5);
    long at = 1;
    for (bool reached = true; reached; at++) {
        json_left = at;
        char *text = cr_adapter_shapes_text(adapter, m);
        reached = json_left == 0;
        json_left = 0;
        ck_assert_msg(text == NULL || strcmp(text, shapes) == 0, "%ld:\n%s\n%s", at, text, shapes);
        cr_free(text);
    }
    cr_free(shapes);
    cr_free(ones);
    cr_adapter_destroy(adapter);
    cr_model_close(m);
    json_set_alloc_funcs(malloc, free);
}
END_TEST

static cr_status eval_calibrated(void *arg, struct cr_error *err)
{
    struct call call;
    (void)arg;
    call_init(&call, "ivon");
    call.options.samples = 2;
    call.options.calibrate = data;
    cr_status status = cr_eval(&call.options, &call.host, &call.result, err);
    call_free(&call);
    return status;
}

/* Too many draws for the memory there is: refused before anything is drawn; and every allocation may fail. */
START_TEST(memory)
{
    struct call call;
    call_init(&call, "ivon");
    call.options.samples = 10000;
    call.host.memory_bytes = (uint64_t)48 << 20;
    refuse(&call, CR_E_MEMORY, "fewer --samples");
    ck_assert_int_gt(cr_test_alloc_sweep_long("eval", eval_calibrated, NULL, 3), 300);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("posterior faults");
    TCase *all = tcase_create("posterior faults");
    tcase_add_checked_fixture(all, setup, cr_train_dir_drop);
    tcase_set_timeout(all, 300);
    tcase_add_test(all, posteriors_that_do_not_belong);
    tcase_add_test(all, damaged_files);
    tcase_add_test(all, refused_options);
    tcase_add_test(all, nothing_is_absent_for_want_of_memory);
    tcase_add_loop_test(all, whole_files, 0, 4);
    tcase_add_test(all, memory);
    suite_add_tcase(suite, all);
    return cr_run_suite(suite);
}
