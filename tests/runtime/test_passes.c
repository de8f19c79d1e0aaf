/* What passes hold: all sets of weights together, in training and in evaluation, and tokens that texts share wherever
 * they see the same; and what that takes, predicted against measured. */
#include <check.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "runtime/core/buf.h"
#include "runtime/eval/scoring.h"
#include "runtime/thread/machine.h"
#include "tests/support/io_test.h"
#include "tests/support/kernel_test.h"
#include "tests/support/train_test.h"

enum { N_MEMBERS = 4, STEPS = 3 };

static void init(struct cr_train_run *run, const char *output)
{
    cr_train_run_init(run, output);
    run->options.steps = STEPS;
    run->options.no_valid = true;
    run->options.trace = cr_train_kept("trace.json");
}

static void init_members(struct cr_train_run *run, const char *output)
{
    init(run, output);
    run->options.method = "ensemble";
    run->options.members = N_MEMBERS;
    run->options.batch_size = CR_TRAIN_CHOICES;
}

/* How often the engine of the last run did something in its first layer. */
static size_t n_events(const char *name)
{
    json_t *trace = json_load_file(cr_train_path("trace.json"), 0, NULL);
    json_t *event;
    size_t i, n = 0;
    ck_assert_ptr_nonnull(trace);
    json_array_foreach(json_object_get(trace, "traceEvents"), i, event)
    {
        json_t *layer = json_object_get(json_object_get(event, "args"), "layer");
        n += strcmp(json_string_value(json_object_get(event, "name")), name) == 0 && json_integer_value(layer) == 0;
    }
    json_decref(trace);
    return n;
}

static size_t n_training_passes(struct cr_train_run *run)
{
    cr_train_must(run);
    return n_events("attention_bwd");
}

/* Micro-batches are full (all questions in a step), and all members still share each pass. */
START_TEST(members_share_every_pass)
{
    struct cr_train_run run;
    init_members(&run, "one");
    run.options.members = 1;
    size_t alone = n_training_passes(&run);
    ck_assert_uint_gt(alone, STEPS); /* more than a micro-batch of 512 tokens in a step */
    init_members(&run, "together");
    ck_assert_uint_eq(n_training_passes(&run), alone);
    init_members(&run, "apart");
    run.options.members_at_once = 1;
    ck_assert_uint_eq(n_training_passes(&run), N_MEMBERS * alone);
}
END_TEST

/* Memory for one micro-batch and little more: fewer members a pass, the same bits, within what is allowed. */
START_TEST(fewer_members_where_memory_is_short)
{
    static const char *const names[] = {"posterior.safetensors", "members/03/adapter_model.safetensors"};
    struct cr_train_run run;
    init_members(&run, "dry");
    run.options.trace = NULL;
    run.options.members_at_once = 1;
    run.options.dry_run = true;
    cr_train_must(&run);
    double least = run.result.predicted_mb;
    init_members(&run, "short");
    run.host.memory_bytes = (uint64_t)((least + 1) * 1048576);
    size_t apart = n_training_passes(&run);
    ck_assert_double_le(run.result.predicted_mb, least + 1);
    init_members(&run, "together");
    size_t together = n_training_passes(&run);
    ck_assert_msg(apart > together, "%zu passes, %zu with memory enough", apart, together);
    ck_assert_double_gt(run.result.predicted_mb, least + 1);
    cr_train_same_files("short", "together", names, 2);
}
END_TEST

struct count {
    size_t passes, leads;
};

static void count(void *ctx, const struct cr_engine_span *span)
{
    struct count *n = ctx;
    n->passes += strcmp(span->name, "attention") == 0 && span->layer == 0;
}

static cr_status take(void *ctx, const struct cr_score *score, struct cr_error *err)
{
    (void)err;
    *(double *)ctx += score->all->nll;
    return CR_OK;
}

/* Passes over other.jsonl, and whether their texts shared tokens. vertex -1: none. */
static struct count evaluate(const char *adapter, uint32_t samples, int vertex, double *nll)
{
    const char *model = cr_train_kept("model.gguf"), *data = cr_train_kept("other.jsonl"),
               *path = cr_train_kept(adapter);
    struct cr_scoring s = {0};
    struct cr_eval_options o;
    struct cr_error err = {0};
    struct cr_host host = {.n_threads = 1};
    struct count n = {0};
    cr_eval_options_init(&o);
    o.model = model;
    o.data = data;
    o.adapter = path;
    o.samples = samples;
    o.vertex_set = vertex >= 0;
    o.vertex = vertex >= 0 ? (uint32_t)vertex : 0;
    *nll = 0;
    ck_assert_msg(cr_scoring_open(&o, &host, &s, &err) == CR_OK, "%s", err.message);
    cr_engine_trace(s.engine, count, &n);
    ck_assert_msg(cr_scoring_run(&s, &s.main, take, nll, &err) == CR_OK, "%s", err.message);
    n.leads = s.batch.n_lead;
    cr_scoring_close(&s);
    return n;
}

static void train_prefix(const char *output, uint32_t vertices, const char *lambda_per)
{
    struct cr_train_run run;
    init(&run, output);
    run.options.method = "prefix";
    run.options.vertices = vertices;
    run.options.prefix_length = 5;
    run.options.lr = 1e-2;
    run.options.lambda_per = lambda_per;
    cr_train_must(&run);
}

/* Draws and members: as many passes as one of them. */
START_TEST(sets_share_every_pass)
{
    struct cr_train_run run;
    double nll, again;
    init_members(&run, "members");
    cr_train_must(&run);
    train_prefix("prefix", 3, NULL);
    const char *const adapters[] = {"members", "prefix"};
    const uint32_t samples[] = {N_MEMBERS, 4};
    for (int i = 0; i < 2; i++) {
        size_t one = evaluate(adapters[i], 1, -1, &nll).passes;
        ck_assert_uint_gt(one, 1);
        ck_assert_uint_eq(evaluate(adapters[i], samples[i], -1, &again).passes, one);
        ck_assert(nll != again);
    }
}
END_TEST

/* Texts that all see the centroid or a vertex share their lead; with draws each has its own. */
START_TEST(leads_where_nothing_is_drawn)
{
    double point, draw, nll;
    train_prefix("three", 3, NULL);
    train_prefix("one", 1, NULL);
    ck_assert_uint_gt(evaluate("three", 0, -1, &nll).leads, 0);
    ck_assert_uint_gt(evaluate("three", 0, 2, &nll).leads, 0);
    ck_assert_uint_eq(evaluate("three", 2, -1, &nll).leads, 0);
    ck_assert_uint_gt(evaluate("one", 0, -1, &point).leads, 0);
    ck_assert_uint_gt(evaluate("one", 1, -1, &draw).leads, 0); /* nothing to draw from */
    ck_assert(point == draw);
}
END_TEST

/* Training: gradients of shared tokens are formed only where the texts of a step see one point. */
START_TEST(leads_in_training)
{
    static const struct {
        uint32_t vertices;
        const char *lambda_per;
        bool shares;
    } cases[] = {{3, NULL, false},   {3, "text-layer", false}, {3, "text", false},
                 {3, "layer", true}, {3, "step", true},        {1, NULL, true}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char name[8];
        snprintf(name, sizeof name, "out%zu", i);
        train_prefix(name, cases[i].vertices, cases[i].lambda_per);
        ck_assert_msg((n_events("lead_bwd") > 0) == cases[i].shares, "%u vertices, %s: %zu", cases[i].vertices,
                      cases[i].lambda_per != NULL ? cases[i].lambda_per : "nothing said", n_events("lead_bwd"));
    }
}
END_TEST

/* Texts of about half a pass of 512 tokens, so that passes are full. */
static void write_long_questions(const char *name)
{
    struct cr_buf lines = {0};
    for (int i = 0; i < 48; i++) {
        cr_buf_printf(&lines, "{\"task\":\"t%d\",\"question\":\"%0200d\",\"choices\":[\"a\",\"b\"],\"answer\":%d}\n",
                      i % 2, i, i % 2);
    }
    cr_train_write(name, lines.data, lines.n);
    cr_buf_free(&lines);
}

static const struct {
    const char *method;
    uint32_t members;
    double grows; /* at least so many MiB */
} predicted[] = {{"adamw", 0, 4}, {"ivon", 0, 4}, {"swag", 0, 4}, {"blob", 0, 4}, {"bora", 0, 4}, {"ensemble", 16, 61}};

/* The peak is within the prediction, which exceeds it by no more than what is asked for beyond all that is named: 6 MiB
 * and 128 KiB a thread (train/plan.c: OVERHEAD_BYTES, OVERHEAD_PER_WORKER), and a sixteenth of the growth: scratch that
 * this tier and method leave untouched. The growth of the ensemble is ten times the overhead: a term of it that is
 * forgotten, or counts twice, shows. Each case is a process of its own, so that no peak before it counts. */
START_TEST(memory_is_predicted)
{
    struct cr_train_run run;
    double mib = 1024 * 1024, start = (double)cr_machine_rss() / mib;
    write_long_questions("long.jsonl");
    cr_train_run_init(&run, "out");
    run.options.method = predicted[_i].method;
    run.options.data = cr_train_kept("long.jsonl");
    run.options.targets = "all";
    run.options.rank = 64;
    run.options.batch_size = 16;
    run.options.steps = 8;
    run.options.keep_best_set = run.options.keep_best = true;
    run.options.swag_start = 0.25; /* as many snapshots as there is room for */
    run.options.swag_rank = 2;
    run.options.members = predicted[_i].members > 0 ? predicted[_i].members : run.options.members;
    cr_train_must(&run);
    double peak = (double)cr_machine_peak_rss() / mib;
    printf("%s: %.2f MiB predicted, %.2f reached, %.2f at the start\n", predicted[_i].method, run.result.predicted_mb,
           peak, start);
    if (!CR_TEST_SANITIZED) {
        ck_assert_double_ge(run.result.predicted_mb, peak);
        ck_assert_double_le(run.result.predicted_mb, peak + 6 + 0.125 + (peak - start) / 16);
        ck_assert_double_ge(peak - start, predicted[_i].grows);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("passes");
    TCase *all = tcase_create("passes");
    tcase_set_timeout(all, 600);
    tcase_add_checked_fixture(all, cr_train_dir_make, cr_train_dir_drop);
    tcase_add_test(all, members_share_every_pass);
    if (!CR_TEST_SANITIZED) { /* they hold what was freed */
        tcase_add_test(all, fewer_members_where_memory_is_short);
    }
    tcase_add_test(all, sets_share_every_pass);
    tcase_add_test(all, leads_where_nothing_is_drawn);
    tcase_add_test(all, leads_in_training);
    tcase_add_loop_test(all, memory_is_predicted, 0, sizeof predicted / sizeof predicted[0]);
    suite_add_tcase(suite, all);
    return cr_run_suite(suite);
}
