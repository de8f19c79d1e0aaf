/* Whole runs with method prefix: starts of the vertices, learning, exact resume, thread counts, validation by draws,
 * rates, files, refusals. */
#include <check.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/adapter/files.h"
#include "runtime/core/alloc.h"
#include "runtime/core/buf.h"
#include "runtime/posterior/method.h"
#include "runtime/posterior/posterior.h"
#include "tests/support/kernel_test.h"
#include "tests/support/method_test.h"
#include "tests/support/tiny_model.h"
#include "tests/support/train_test.h"

static void init(struct cr_train_run *run, const char *output)
{
    cr_train_run_init(run, output);
    run->options.method = "prefix";
    run->options.vertices = 3;
    run->options.prefix_length = 5;
    run->options.valid_draws = 4;
    run->options.lr = 2e-2;
    run->options.head_lr = 2e-3;
    run->options.steps = 10;
}

/* Everything that a resume has to bring back. */
static void full_init(struct cr_train_run *run, const char *output)
{
    cr_train_full_init(run, output);
    run->options.method = "prefix";
    run->options.dropout = 0;
    run->options.rank = 8;
    run->options.alpha = 0;
    run->options.targets = "q_proj,v_proj";
    run->options.vertices = 3;
    run->options.prefix_length = 5;
    run->options.valid_draws = 3;
    run->options.save_every = 1;
    run->options.keep_checkpoints = 20;
    run->options.report_every = 1;
}

/* The adapter of a checkpoint or a directory, all vertices. Returns owned. */
static struct cr_posterior *open_prefix(const char *name)
{
    struct cr_posterior *p = cr_method_open(name);
    ck_assert_ptr_nonnull(p->adapter->prefix);
    return p;
}

static struct cr_posterior *open_step(const char *output, int step)
{
    char name[300];
    snprintf(name, sizeof name, "%s/checkpoints/step-%08d.cck", output, step);
    return open_prefix(name);
}

/* Every vertex starts from other texts, although all prompts begin alike; label rows from the model's own. */
START_TEST(start)
{
    struct cr_train_run run;
    init(&run, "out");
    run.options.save_every = 1;
    run.options.keep_checkpoints = 20;
    cr_train_must(&run);
    struct cr_posterior *p = open_step("out", 0);
    const struct cr_prefix *prefix = p->adapter->prefix;
    ck_assert_uint_eq(prefix->n_vertices, 3);
    ck_assert_uint_eq(prefix->n_rows, 5);
    ck_assert_uint_eq(prefix->n_labels, 2);
    size_t tensor = cr_prefix_tensor(prefix), head = (size_t)prefix->n_labels * prefix->n_embd;
    const float *rows = prefix->params + cr_prefix_rows_floats(prefix);
    for (uint32_t i = 0; i < 3; i++) {
        for (uint32_t j = 0; j < i; j++) {
            ck_assert(memcmp(prefix->params + cr_prefix_at(prefix, 0, i), prefix->params + cr_prefix_at(prefix, 0, j),
                             2 * tensor * sizeof(float)) != 0);
            double apart = 0, size = 0;
            for (size_t k = 0; k < head; k++) {
                double d = (double)rows[i * head + k] - (double)rows[j * head + k];
                apart += d * d;
                size += (double)rows[i * head + k] * (double)rows[i * head + k];
            }
            /* noise of 1 % on either side: sqrt(2) / 100, give or take 1 / sqrt(2 * 128) of it, three times that */
            ck_assert_double_eq_tol(sqrt(apart / size), 0.01414, 0.01414 * 3 / 16);
        }
    }
    cr_posterior_close(p);
}
END_TEST

/* Questions whose answer is always the second: what a prefix before an untrained model can say. */
START_TEST(learns)
{
    struct cr_train_run run;
    struct cr_buf lines = {0};
    char path[1024];
    for (int i = 0; i < 40; i++) {
        cr_buf_printf(&lines, "{\"question\":\"number %d\",\"choices\":[\"left\",\"right\"],\"answer\":1}\n", i * i);
    }
    cr_train_write("second.jsonl", lines.data, lines.n);
    cr_buf_free(&lines);
    snprintf(path, sizeof path, "%s", cr_train_path("second.jsonl"));
    init(&run, "out");
    run.options.data = path;
    run.options.steps = 40;
    run.options.eval_every = 5;
    run.options.report_every = 5;
    run.options.vertices = _i == 0 ? 1 : 3;
    cr_train_must(&run);
    json_t *summary = json_load_file(cr_train_path("out/summary.json"), 0, NULL);
    const json_t *evals = json_object_get(summary, "evaluations"), *facts = json_object_get(summary, "posterior");
    double first = json_real_value(json_object_get(json_array_get(evals, 0), "nll"));
    ck_assert_msg(run.result.best_nll < first - 0.1 && run.result.final_loss < 0.5, "validation %g then %g, loss %g",
                  first, run.result.best_nll, run.result.final_loss);
    ck_assert_uint_eq(json_array_size(json_object_get(facts, "path")), _i == 0 ? 0 : 6);
    ck_assert(isfinite(json_real_value(json_object_get(facts, "centroid_nll"))));
    ck_assert(json_object_get(json_object_get(summary, "settings"), "rank") == NULL);
    ck_assert_int_eq(json_integer_value(json_object_get(json_object_get(summary, "settings"), "prefix-length")), 5);
    json_decref(summary);
}
END_TEST

START_TEST(texts)
{
    struct cr_train_run run;
    char path[1024];
    snprintf(path, sizeof path, "%s", cr_train_path("texts.jsonl"));
    init(&run, "out");
    run.options.data = path;
    run.options.prefix_length = 40; /* longer than any text: several make a vertex */
    run.options.vertices = 2;
    run.options.steps = 20;
    run.options.report_every = 1;
    cr_train_must(&run);
    char *journal = cr_train_journal("out");
    json_t *line = json_loads(strtok(journal, "\n"), 0, NULL);
    ck_assert_double_lt(run.result.final_loss, json_real_value(json_object_get(line, "loss")) - 0.3);
    json_decref(line);
    cr_free(journal);
    struct cr_posterior *p = open_prefix("out");
    ck_assert_uint_eq(p->adapter->prefix->n_labels, 0);
    cr_posterior_close(p);
}
END_TEST

static void same_runs(const char *a, const char *b)
{
    static const char *const names[] = {CR_POSTERIOR_FILE, "adapter_model.safetensors", "adapter_config.json"};
    cr_train_same_files(a, b, names, sizeof names / sizeof names[0]);
    cr_train_same_journals(a, b);
}

START_TEST(stop_and_resume)
{
    struct cr_train_run run;
    full_init(&run, "whole");
    cr_train_must(&run);
    full_init(&run, "cut");
    cr_train_stop(&run, 1 + 2 * _i);
    cr_train_must(&run);
    same_runs("whole", "cut");
    cr_train_must(&run);
    ck_assert(run.result.nothing_to_do);
}
END_TEST

START_TEST(any_thread_count)
{
    struct cr_train_run run;
    full_init(&run, "one");
    cr_train_must(&run);
    full_init(&run, "many");
    run.options.grad_checkpoint = _i == 0 ? CR_YES : CR_NO;
    cr_train_must_on(&run, 2 + _i);
    same_runs("one", "many");
}
END_TEST

static double first_evaluation(const char *output, uint32_t draws, uint32_t vertices)
{
    struct cr_train_run run;
    init(&run, output);
    run.options.valid_draws = draws;
    run.options.vertices = vertices;
    run.options.eval_every = 3;
    run.options.steps = 3;
    cr_train_must(&run);
    return run.result.best_nll;
}

/* Draws of validation are draws: more of them, or the centroid, give another number; one vertex has nothing to draw. */
START_TEST(validation)
{
    double centroid = first_evaluation("a", 0, 3), one = first_evaluation("b", 1, 3),
           ten = first_evaluation("c", 10, 3);
    ck_assert_msg(centroid != one && one != ten && centroid != ten, "%.9g %.9g %.9g", centroid, one, ten);
    /* Three steps set the vertices little apart, so a mean over draws is about the centroid's: their sum, or a draw's
     * share of it, is ten times more or less. */
    ck_assert(ten > centroid / 2 && ten < 2 * centroid);
    ck_assert(first_evaluation("d", 0, 1) == first_evaluation("e", 10, 1));
}
END_TEST

/* The label rows have a rate of their own: with one next to nothing they stay where they start. */
START_TEST(rates)
{
    struct cr_train_run run;
    init(&run, "out");
    run.options.head_lr = 1e-12;
    run.options.save_every = 1;
    run.options.keep_checkpoints = 20;
    cr_train_must(&run);
    struct cr_posterior *at[2] = {open_step("out", 0), open_step("out", 10)};
    const struct cr_prefix *prefix = at[0]->adapter->prefix;
    size_t n = cr_prefix_rows_floats(prefix), m = cr_prefix_floats(prefix);
    double moved = 0;
    for (size_t i = 0; i < m; i++) {
        double d = fabs((double)at[1]->adapter->params[i] - (double)at[0]->adapter->params[i]);
        moved += i < n ? d : 0;
        ck_assert(i < n || d <= 1e-10);
    }
    ck_assert_double_gt(moved, 1);
    cr_posterior_close(at[0]);
    cr_posterior_close(at[1]);
}
END_TEST

/* posterior.safetensors holds what the last checkpoint holds; the PEFT directory the mean of its vertices. */
START_TEST(files)
{
    struct cr_train_run run;
    init(&run, "out");
    cr_train_must(&run);
    struct cr_posterior *p = open_prefix("out"), *at = open_step("out", 10);
    const struct cr_prefix *prefix = p->adapter->prefix;
    ck_assert_uint_eq(p->adapter->n_params, at->adapter->n_params);
    cr_expect_same("parameters", p->adapter->params, at->adapter->params, p->adapter->n_params);
    char from[1024], to[1024];
    snprintf(from, sizeof from, "%s", cr_train_path("out"));
    snprintf(to, sizeof to, "%s", cr_train_path("centroid"));
    struct cr_export_options o = {.size = sizeof o, .adapter = from, .output = to, .format = "peft"};
    ck_assert_int_eq(cr_export(&o, NULL, NULL), CR_OK);
    struct cr_posterior *mean = open_prefix("centroid");
    ck_assert_uint_eq(mean->adapter->prefix->n_vertices, 1);
    ck_assert_str_eq(mean->adapter->method, "prefix-mean");
    for (uint32_t layer = 0; layer < prefix->n_layers; layer++) {
        for (size_t i = 0; i < 2 * cr_prefix_tensor(prefix); i++) {
            double sum = 0;
            for (uint32_t j = 0; j < 3; j++) {
                sum += (double)prefix->params[cr_prefix_at(prefix, layer, j) + i] / 3;
            }
            float got = mean->adapter->params[cr_prefix_at(mean->adapter->prefix, layer, 0) + i];
            ck_assert_double_eq_tol((double)got, sum, 0x1p-23 * fabs(sum) + 1e-15);
        }
    }
    struct cr_error err;
    o.format = "gguf";
    snprintf(to, sizeof to, "%s", cr_train_path("x.gguf"));
    ck_assert_int_eq(cr_export(&o, NULL, &err), CR_E_USAGE);
    ck_assert_ptr_nonnull(strstr(err.message, "no GGUF form"));
    o.format = "peft";
    o.sample_set = true;
    ck_assert_int_eq(cr_export(&o, NULL, &err), CR_E_USAGE);
    ck_assert_ptr_nonnull(strstr(err.message, "only its centroid"));
    ck_assert(!cr_train_exists("out/adapter.gguf"));
    cr_posterior_close(p);
    cr_posterior_close(at);
    cr_posterior_close(mean);
}
END_TEST

/* Tables of PEFT hold keys of llama bases in the other order of rows, and the rest as it lies. */
START_TEST(key_order)
{
    struct cr_train_run run;
    init(&run, "out");
    cr_train_must(&run);
    size_t n;
    struct cr_posterior *p = open_prefix("out");
    const struct cr_prefix *prefix = p->adapter->prefix;
    uint8_t *bytes = cr_train_bytes("out/" CR_POSTERIOR_FILE, &n);
    size_t wide = prefix->n_features, head_dim = p->base.head_dim,
           heads = (size_t)prefix->n_vertices * prefix->n_labels;
    ck_assert(p->base.permuted_qk);
    /* tensors in the order of their names at the end of the file: head, vertices */
    const uint8_t *tables = bytes + n - 3 * prefix->n_rows * 2 * prefix->n_layers * wide * sizeof(float);
    ck_assert_mem_eq(tables - heads * prefix->n_embd * sizeof(float), prefix->params + cr_prefix_rows_floats(prefix),
                     heads * prefix->n_embd * sizeof(float));
    for (size_t i = 0; i < wide; i++) {
        float key, value;
        size_t row = 2, layer = 1, vertex = 1;
        size_t at = ((vertex * prefix->n_rows + row) * 2 * prefix->n_layers + 2 * layer) * wide + i;
        memcpy(&key, tables + at * sizeof key, sizeof key);
        memcpy(&value, tables + (at + wide) * sizeof value, sizeof value);
        size_t half = head_dim / 2, in_head = i % head_dim;
        size_t own = i - in_head + 2 * (in_head % half) + in_head / half;
        const float *k = prefix->params + cr_prefix_at(prefix, (uint32_t)layer, (uint32_t)vertex);
        ck_assert(key == k[cr_prefix_row_at(prefix, row, own)]);
        ck_assert(value == k[cr_prefix_tensor(prefix) + cr_prefix_row_at(prefix, row, i)]);
    }
    cr_free(bytes);
    cr_posterior_close(p);
}
END_TEST

START_TEST(refusals)
{
    struct cr_train_run run;
    char path[1024];
    CR_TRAIN_REFUSE(run, init, vertices, 0, "--vertices 0");
    CR_TRAIN_REFUSE(run, init, vertices, 9, "--vertices 9");
    CR_TRAIN_REFUSE(run, init, prefix_length, 0, "--prefix-length 0");
    CR_TRAIN_REFUSE(run, init, prefix_length, 257, "--prefix-length 257");
    CR_TRAIN_REFUSE(run, init, valid_draws, 1001, "--valid-draws");
    CR_TRAIN_REFUSE(run, init, head_lr, -1, "--head-lr -1");
    CR_TRAIN_REFUSE(run, init, rank, 4, "of low-rank adapters");
    CR_TRAIN_REFUSE(run, init, alpha, 4, "of low-rank adapters");
    CR_TRAIN_REFUSE(run, init, dropout, 0.1, "of low-rank adapters");
    CR_TRAIN_REFUSE(run, init, targets, "all", "of low-rank adapters");
    CR_TRAIN_REFUSE(run, init, adapter, "here", "starts from training texts");
    CR_TRAIN_REFUSE(run, init, method, "adamw", "--vertices belongs to --method prefix");
    struct cr_buf same = {0};
    for (int i = 0; i < 12; i++) {
        cr_buf_puts(&same, "{\"prompt\":\"one and two is \",\"completion\":\"three\"}\n");
    }
    cr_train_write("same.jsonl", same.data, same.n);
    cr_buf_free(&same);
    snprintf(path, sizeof path, "%s", cr_train_path("same.jsonl"));
    init(&run, "out");
    run.options.data = path;
    cr_train_must_fail(&run, CR_E_INPUT, "different beginnings");
    ck_assert(!cr_train_exists("out"));
    init(&run, "prefix");
    cr_train_must(&run);
    snprintf(path, sizeof path, "%s", cr_train_path("prefix"));
    cr_train_run_init(&run, "out");
    run.options.adapter = path;
    cr_train_must_fail(&run, CR_E_USAGE, "cannot go on from");
}
END_TEST

/* What is predicted grows with what is allocated: 8 vertices of 64 rows against 1 of 1 in 2 layers, 2 x 32 features. */
START_TEST(memory_is_predicted)
{
    double mb[2];
    for (int i = 0; i < 2; i++) {
        struct cr_train_run run;
        init(&run, "out");
        run.options.dry_run = true;
        run.options.vertices = i == 0 ? 1 : 8;
        run.options.prefix_length = i == 0 ? 1 : 64;
        cr_train_must(&run);
        mb[i] = run.result.predicted_mb;
    }
    /* parameters, gradients and two moments: 4 x 2 layers x 8 x 2 x 64 rows x 32 features x 4 bytes, all but a 64th and
     * what the process happens to hold more before the first */
    ck_assert_double_ge(mb[1] - mb[0], 4.0 * 2 * 8 * 2 * 64 * 32 * 4 / 1048576 * 0.98 - 0.25);
}
END_TEST

/* Memory that cannot be had, at every place from the start to the files. */
START_TEST(no_memory)
{
    long live = cr_alloc_live();
    cr_status status = CR_E_MEMORY;
    for (long at = 1 + _i; status != CR_OK; at += 3) {
        struct cr_train_run run;
        init(&run, "out");
        run.options.steps = 1;
        run.options.force = true;
        cr_alloc_fail_at(at, true);
        status = cr_train_run_go(&run);
        cr_alloc_fail_at(0, false);
        ck_assert_msg(status == CR_OK || status == CR_E_MEMORY, "%ld: %d %s", at, status, run.err.message);
        ck_assert_int_eq(cr_alloc_live(), live);
        ck_assert_int_lt(at, 5000);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("prefix train");
    TCase *all = tcase_create("all");
    tcase_set_timeout(all, 60);
    tcase_add_checked_fixture(all, cr_train_dir_make, cr_train_dir_drop);
    tcase_add_test(all, start);
    tcase_add_loop_test(all, learns, 0, 2);
    tcase_add_test(all, texts);
    tcase_add_loop_test(all, stop_and_resume, 0, 4);
    tcase_add_loop_test(all, any_thread_count, 0, 2);
    tcase_add_test(all, validation);
    tcase_add_test(all, rates);
    tcase_add_test(all, files);
    tcase_add_test(all, key_order);
    tcase_add_test(all, refusals);
    tcase_add_test(all, memory_is_predicted);
    tcase_add_loop_test(all, no_memory, 0, 3);
    suite_add_tcase(suite, all);
    return cr_run_suite(suite);
}
