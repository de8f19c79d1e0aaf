/* Comparisons of evaluations that were made up: figures against their definition, intervals against the paired
 * bootstrap of single differences, margins, groups, refusals of what cannot be compared, files that are broken. */
#include <check.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "credence/kernels/math.h"
#include "runtime/core/alloc.h"
#include "runtime/core/buf.h"
#include "runtime/eval/compare.h"
#include "runtime/eval/metrics.h"
#include "runtime/io/file.h"
#include "runtime/io/hash.h"
#include "runtime/io/json.h"
#include "tests/support/io_test.h"
#include "tests/support/kernel_test.h"

enum { N = 60, SEEDS = 3, MEMBERS = 2 };

static const char *const tasks[] = {"home", "away", "far|off", "empty"};

/* An evaluation with numbers that depend on its seed and on how good it is. */
struct made {
    struct cr_outcome items[N];
    struct cr_group_metrics groups[3], running[4 * MEMBERS];
    double entropies[5];
    struct cr_eval_result result;
    struct cr_evaluation e;
};

static void make(struct made *m, const char *method, unsigned seed, double skill)
{
    *m = (struct made){.entropies = {0.1, 1e-300, 1, 0.25, 1.0 / 3}};
    for (size_t i = 0; i < N; i++) {
        struct cr_outcome *o = &m->items[i];
        double noise = (double)((i * 7919 + seed * 104729) % 1009) / 1009; /* 0 ... 1 */
        double p = 0.05 + 0.9 * (skill * 0.5 + noise * 0.5);
        *o = (struct cr_outcome){.index = (uint32_t)i,
                                 .line = i + 1 + i / 10,
                                 .n_targets = 1,
                                 .task = i % 4 == 3 ? -1 : (int32_t)(i % 4),
                                 .prediction = p > 0.5,
                                 .correct = p > 0.5,
                                 .confidence = p > 0.5 ? p : 1 - p,
                                 .nll = -cr_ln(p),
                                 .brier = 2 * (1 - p) * (1 - p),
                                 .entropy = p / 3};
    }
    for (size_t k = 0; k < 4 * MEMBERS; k++) {
        m->running[k] = (struct cr_group_metrics){
            .nll = (double)k + 0.5, .accuracy = 1.0 / (double)(k + 1), .perplexity = (double)NAN};
    }
    m->result = (struct cr_eval_result){.classification = true,
                                        .groups = m->groups,
                                        .n_groups = 3,
                                        .samples = 1,
                                        .n_members = MEMBERS,
                                        .running = m->running,
                                        .has_ood = true,
                                        .ood = {.n_in = 2, .n_out = 3, .auroc = 0.75}};
    for (int g = 0; g < 3; g++) {
        snprintf(m->groups[g].task, sizeof m->groups[g].task, "%s", tasks[g]);
    }
    snprintf(m->result.method, sizeof m->result.method, "%s", method);
    m->e = (struct cr_evaluation){.result = &m->result,
                                  .outcomes = {m->items, N, true, CR_BINS_DEFAULT},
                                  .task_names = tasks,
                                  .n_tasks = 4,
                                  .model = "m.gguf",
                                  .data = "test.jsonl",
                                  .data_hash = "0123456789abcdef0123456789abcdef",
                                  .ood = {.in = m->entropies, .out = m->entropies + 2, .n_in = 2, .n_out = 3}};
}

static char paths[8][1024];

static const char *put(int slot, const struct made *m, bool no_examples)
{
    char name[32];
    struct cr_error err = {0};
    snprintf(name, sizeof name, "%d.json", slot);
    snprintf(paths[slot], sizeof paths[slot], "%s", cr_test_path(name));
    struct cr_eval_options options = {.json = paths[slot], .no_examples = no_examples, .settings_json = "{\"seed\":3}"};
    ck_assert_msg(cr_result_write(&m->e, &options, &err) == CR_OK, "%s", err.message);
    return paths[slot];
}

static const char *files_of[2][SEEDS];
static struct cr_compare_entry entries[2];

/* Two methods with three seeds each. */
static void make_six(void)
{
    for (int method = 0; method < 2; method++) {
        for (int s = 0; s < SEEDS; s++) {
            struct made m;
            make(&m, method == 0 ? "adamw" : "ivon", (unsigned)s + 3 * (unsigned)method, method == 0 ? 0.5 : 0.6);
            files_of[method][s] = put(method * SEEDS + s, &m, false);
        }
        entries[method] = (struct cr_compare_entry){.files = files_of[method], .n_files = SEEDS};
    }
}

static bool collect(void *ctx, const char *text, size_t n)
{
    cr_buf_append(ctx, text, n);
    return true;
}

static struct cr_compare_options options_for(size_t n_files)
{
    struct cr_compare_options o;
    cr_compare_options_init(&o);
    entries[0].n_files = entries[1].n_files = n_files;
    o.entries = entries;
    o.n_entries = 2;
    return o;
}

static json_t *compare(struct cr_compare_options *o, struct cr_buf *tables)
{
    struct cr_error err = {0};
    static char path[1024];
    json_t *json = NULL;
    snprintf(path, sizeof path, "%s", cr_test_path("comparison.json"));
    o->json = path;
    ck_assert_msg(cr_compare(o, NULL, collect, tables, &err) == CR_OK, "%s", err.message);
    ck_assert_int_eq(cr_json_load(path, 1 << 24, &json, &err), CR_OK);
    return json;
}

/* groups[group].methods[method].path..., a number */
static double at(const json_t *json, size_t group, size_t method, const char *part, const char *figure, const char *key)
{
    const json_t *m =
        json_array_get(json_object_get(json_array_get(json_object_get(json, "groups"), group), "methods"), method);
    const json_t *value = json_object_get(json_object_get(part != NULL ? json_object_get(m, part) : m, figure), key);
    ck_assert_msg(json_is_number(value), "%zu %zu %s %s", group, method, figure, key);
    return json_number_value(value);
}

START_TEST(round_trip)
{
    struct made m;
    struct cr_result_file f = {0};
    struct cr_error err = {0};
    make(&m, "swag", 5, 0.7);
    ck_assert_msg(cr_result_load(put(0, &m, false), false, &f, &err) == CR_OK, "%s", err.message);
    ck_assert_str_eq(f.result.method, "swag");
    ck_assert_str_eq(f.evaluation.data_hash, m.e.data_hash);
    ck_assert_uint_eq(f.evaluation.outcomes.n, N);
    for (size_t i = 0; i < N; i++) {
        const struct cr_outcome *a = &m.items[i], *b = &f.items[i];
        ck_assert(a->line == b->line && a->task == b->task && a->prediction == b->prediction);
        ck_assert(a->correct == b->correct && a->n_targets == b->n_targets && a->index == b->index);
        ck_assert(a->nll == b->nll && a->confidence == b->confidence); /* the same bits */
        ck_assert(a->brier == b->brier && a->entropy == b->entropy);
    }
    ck_assert_uint_eq(f.result.n_groups, 3); /* no example of "empty" */
    for (size_t k = 0; k < 4 * MEMBERS; k++) {
        ck_assert(f.result.running[k].nll == m.running[k].nll);
        ck_assert(f.result.running[k].accuracy == m.running[k].accuracy);
    }
    ck_assert_uint_eq(f.ood.n_in, 2);
    ck_assert_uint_eq(f.ood.n_out, 3);
    ck_assert_mem_eq(f.ood.out, m.entropies + 2, 3 * sizeof(double));
    ck_assert_int_eq((int)json_integer_value(json_object_get(json_object_get(f.json, "settings"), "seed")), 3);
    cr_result_close(&f);
    cr_expect_error("raw", cr_result_load(paths[0], true, &f, &err), &err, CR_E_INPUT, "no calibrated|--calibrate");
    cr_result_close(&f);
    struct made cooler;
    make(&cooler, "swag", 6, 0.7);
    m.e.calibrated = cooler.e.outcomes;
    ck_assert_msg(cr_result_load(put(0, &m, false), true, &f, &err) == CR_OK, "%s", err.message);
    ck_assert(f.items[3].nll == cooler.items[3].nll && f.items[3].nll != m.items[3].nll);
    ck_assert_ptr_null(f.result.running);
    cr_result_close(&f);
}
END_TEST

/* Mean and interval of one figure, seed by seed and example by example. */
static void check_figure(const json_t *json, size_t group, int32_t task, const char *figure,
                         double (*get)(const struct cr_outcome *))
{
    static double difference[SEEDS * N];
    struct cr_error err = {0};
    struct cr_estimate wide, narrow;
    size_t n = 0;
    for (int s = 0; s < SEEDS; s++) {
        struct made a, b;
        make(&a, "", (unsigned)s, 0.5);
        make(&b, "", (unsigned)s + 3, 0.6);
        for (size_t i = 0; i < N; i++) {
            if (task < -1 || a.items[i].task == task) {
                difference[n++] = get(&b.items[i]) - get(&a.items[i]);
            }
        }
    }
    struct cr_paired pairs = {difference, SEEDS, n / SEEDS};
    ck_assert_int_eq(cr_paired_bootstrap(&pairs, 0.95, 9, CR_COMPARE_DRAWS, &wide, &err), CR_OK);
    ck_assert_int_eq(cr_paired_bootstrap(&pairs, 0.90, 9, CR_COMPARE_DRAWS, &narrow, &err), CR_OK);
    /* Sums of at most SEEDS N terms below 4 in another order. */
    double tolerance = 4.0 * SEEDS * N * 0x1p-52;
    ck_assert_double_eq_tol(at(json, group, 1, "difference", figure, "value"), wide.mean, tolerance);
    ck_assert_double_eq_tol(at(json, group, 1, "difference", figure, "low"), wide.low, tolerance);
    ck_assert_double_eq_tol(at(json, group, 1, "difference", figure, "high"), wide.high, tolerance);
    ck_assert_double_eq_tol(at(json, group, 1, "difference", figure, "low90"), narrow.low, tolerance);
    ck_assert_double_eq_tol(at(json, group, 1, "difference", figure, "high90"), narrow.high, tolerance);
    ck_assert_double_gt(wide.high - wide.low, narrow.high - narrow.low);
}

static double correct_of(const struct cr_outcome *o)
{
    return o->correct;
}

static double nll_of(const struct cr_outcome *o)
{
    return o->nll;
}

static double brier_of(const struct cr_outcome *o)
{
    return o->brier;
}

static double ece_of_run(const struct made *m)
{
    struct cr_bin bins[CR_BINS_DEFAULT + 1];
    double confidence[N];
    bool correct[N];
    for (size_t i = 0; i < N; i++) {
        confidence[i] = m->items[i].confidence;
        correct[i] = m->items[i].correct;
    }
    cr_bins_fill(confidence, correct, N, CR_BINS_DEFAULT, CR_BIN_RIGHT_CLOSED, bins);
    return cr_bins_ece(bins, CR_BINS_DEFAULT);
}

START_TEST(figures)
{
    struct cr_buf tables = {0};
    make_six();
    struct cr_compare_options o = options_for(SEEDS);
    o.seed = 9;
    o.in_domain = "home";
    json_t *json = compare(&o, &tables);
    ck_assert_uint_eq(json_array_size(json_object_get(json, "groups")), 5); /* home away far shifted all */
    for (int32_t task = 0; task < 3; task++) {
        check_figure(json, (size_t)task, task, "accuracy", correct_of);
        check_figure(json, (size_t)task, task, "nll", nll_of);
        check_figure(json, (size_t)task, task, "brier", brier_of);
    }
    check_figure(json, 4, -2, "nll", nll_of);
    double ece[2] = {0}, shifted = 0;
    for (int method = 0; method < 2; method++) {
        for (int s = 0; s < SEEDS; s++) {
            struct made m;
            make(&m, "", (unsigned)(s + 3 * method), method == 0 ? 0.5 : 0.6);
            ece[method] += ece_of_run(&m) / SEEDS;
            for (size_t i = 0; i < N && method == 1; i++) {
                shifted += m.items[i].task == 1 || m.items[i].task == 2 ? m.items[i].nll / (SEEDS * N / 2) : 0;
            }
        }
        ck_assert_double_eq_tol(at(json, 4, (size_t)method, NULL, "ece", "value"), ece[method], 1e-13);
    }
    ck_assert_double_eq_tol(at(json, 4, 1, "difference", "ece", "value"), ece[1] - ece[0], 1e-13);
    ck_assert_double_lt(at(json, 4, 1, "difference", "ece", "low"), ece[1] - ece[0]);
    ck_assert_double_gt(at(json, 4, 1, "difference", "ece", "high"), ece[1] - ece[0]);
    ck_assert_double_eq_tol(at(json, 3, 1, NULL, "nll", "value"), shifted, 1e-13);
    ck_assert(strstr(tables.data, "**shifted**, 30 examples\n") != NULL);
    ck_assert(strstr(tables.data, "test.jsonl: 60 examples, 3 seeds.") != NULL);
    ck_assert(strstr(tables.data, "| against adamw |") != NULL);
    ck_assert(strstr(tables.data, "**far|off**") != NULL);
    json_decref(json);
    cr_buf_free(&tables);
}
END_TEST

/* A difference that is the same everywhere has no width: margins decide alone. */
static const struct {
    double shift, margin;
    bool equivalent, not_worse;
    const char *word;
} margins[] = {
    {0.01, 0, true, true, "worse, equivalent"}, {0.01, 0.005, false, false, "worse"},
    {-0.01, 0.005, false, true, "better"},      {-0.25, 0, false, true, "better"},
    {0, 0.001, true, true, "equivalent"},
};

START_TEST(equivalence)
{
    struct made a, b;
    struct cr_buf tables = {0};
    make(&a, "adamw", 1, 0.5);
    make(&b, "ivon", 1, 0.5);
    for (size_t i = 0; i < N; i++) {
        a.items[i].nll = b.items[i].nll = 1;
        b.items[i].nll += margins[_i].shift;
    }
    files_of[0][0] = put(0, &a, false);
    files_of[1][0] = put(1, &b, false);
    entries[0] = (struct cr_compare_entry){.files = files_of[0]};
    entries[1] = (struct cr_compare_entry){.files = files_of[1], .name = "with | bar"};
    struct cr_compare_options o = options_for(1);
    o.margin_nll = margins[_i].margin;
    json_t *json = compare(&o, &tables);
    ck_assert_double_eq_tol(at(json, 3, 1, "difference", "nll", "low"), margins[_i].shift, 1e-12);
    ck_assert_double_eq_tol(at(json, 3, 1, "difference", "nll", "high"), margins[_i].shift, 1e-12);
    const json_t *m = json_array_get(json_object_get(json_array_get(json_object_get(json, "groups"), 3), "methods"), 1);
    const json_t *nll = json_object_get(json_object_get(m, "difference"), "nll");
    const json_t *accuracy = json_object_get(json_object_get(m, "difference"), "accuracy");
    ck_assert_int_eq(json_is_true(json_object_get(nll, "equivalent")), margins[_i].equivalent);
    ck_assert_int_eq(json_is_true(json_object_get(nll, "not_worse")), margins[_i].not_worse);
    ck_assert(json_is_true(json_object_get(accuracy, "equivalent")));
    char end[64];
    snprintf(end, sizeof end, " %s |\n", margins[_i].word);
    ck_assert_msg(strstr(tables.data, end) != NULL, "%s in %s", end, tables.data);
    ck_assert(strstr(tables.data, "| with / bar ") != NULL);
    json_decref(json);
    cr_buf_free(&tables);
}
END_TEST

/* Texts: NLL of a token, documents drawn whole. */
START_TEST(texts)
{
    struct cr_buf tables = {0};
    struct made m;
    for (int f = 0; f < 2; f++) {
        make(&m, f == 0 ? "adamw" : "bora", 1, 0.5);
        m.e.outcomes.classification = m.result.classification = false;
        for (size_t i = 0; i < N; i++) {
            m.items[i].n_targets = (uint32_t)(1 + i % 5);
            m.items[i].nll = (2 - f) * m.items[i].n_targets;
        }
        files_of[f][0] = put(f, &m, false);
        entries[f] = (struct cr_compare_entry){.files = files_of[f]};
    }
    struct cr_compare_options o = options_for(1);
    json_t *json = compare(&o, &tables);
    ck_assert_double_eq_tol(at(json, 3, 0, NULL, "nll", "value"), 2, 1e-13);
    ck_assert_double_eq_tol(at(json, 3, 1, "difference", "nll", "value"), -1, 1e-13);
    ck_assert_double_eq_tol(at(json, 3, 1, "difference", "nll", "low"), -1, 1e-12);
    ck_assert(strstr(tables.data, "perplexity |") != NULL);
    ck_assert(strstr(tables.data, "7.389 |") != NULL); /* e squared */
    json_decref(json);
    cr_buf_free(&tables);
}
END_TEST

/* The page: a row and a diagram for each method and group, the same examples' words, nothing that runs. */
START_TEST(page)
{
    static const char hostile[] = "<script>&\"x";
    struct cr_buf data = {0}, tables = {0};
    struct cr_error err = {0};
    char path[1024];
    uint8_t *text;
    for (int i = 0; i < 2 * N; i++) {
        cr_buf_printf(&data, "{\"question\":\"<b>number %d</b>\",\"choices\":[\"no\",\"yes\"],\"answer\":%d}\n", i,
                      i % 2);
    }
    const char *file = cr_test_path("data.jsonl");
    cr_test_put_file(file, data.data, data.n);
    for (int method = 0; method < 2; method++) {
        for (int s = 0; s < 2; s++) {
            struct made m;
            make(&m, method == 0 ? "adamw" : "ivon", (unsigned)(s + 3 * method), method == 0 ? 0.3 : 0.6);
            m.result.has_ood = _i == 0;
            m.e.data = file;
            cr_hex_128(m.e.data_hash, cr_xxh3_128(data.data, data.n - (_i == 2)));
            files_of[method][s] = put(2 * method + s, &m, false);
        }
        entries[method] = (struct cr_compare_entry){.files = files_of[method], .name = method == 0 ? NULL : hostile};
    }
    struct cr_compare_options o = options_for(2);
    snprintf(path, sizeof path, "%s", cr_test_path("page.html"));
    o.report = path;
    o.in_domain = "home";
    ck_assert_msg(cr_compare(&o, NULL, collect, &tables, &err) == CR_OK, "%s", err.message);
    ck_assert_int_eq(cr_file_read(path, 1 << 24, &text, NULL, &err), CR_OK);
    const char *html = (const char *)text;
    ck_assert(strstr(html, "<script") == NULL && strstr(html, "&lt;script&gt;&amp;&quot;x</td>") != NULL);
    /* Five groups of two; their risks; accuracy, NLL, ECE, Brier by members; two of entropies. */
    size_t n_svg = 0;
    for (const char *at = html; (at = strstr(at, "<svg")) != NULL; at++) {
        n_svg++;
    }
    ck_assert_uint_eq(n_svg, 10 + 5 + 4 + 2);
    ck_assert_int_eq(strstr(html, "elsewhere: mean 0.528") != NULL, _i == 0); /* of 1, 1/4 and 1/3 */
    ck_assert_int_eq(strstr(html, "shifted: mean 0.") != NULL, _i != 0);
    ck_assert_int_eq(strstr(html, "<blockquote dir=\"auto\">&lt;b&gt;number ") != NULL,
                     _i != 2); /* another file: none */
    ck_assert(strstr(html, "nan") == NULL && strstr(html, "inf") == NULL);
    ck_assert(strstr(html, "&#39;&lt;script&gt;&amp;&quot;x=") != NULL); /* the line to type */
    cr_free(text);
    cr_buf_free(&data);
    cr_buf_free(&tables);
    ck_assert_int_eq((int)cr_alloc_live(), 0);
}
END_TEST

static void refuse(const struct cr_compare_options *o, cr_status want, const char *parts)
{
    struct cr_error err = {0};
    struct cr_buf tables = {0};
    cr_expect_error(parts, cr_compare(o, NULL, collect, &tables, &err), &err, want, parts);
    ck_assert_ptr_null(tables.data);
    ck_assert_int_eq((int)cr_alloc_live(), 0);
}

static const struct {
    const char *json, *refusal; /* refusal NULL: what the page shows of it follows */
    const char *shown;
} charts[] = {
    {"{\"title\":\"Ta<u\",\"note\":\"why\",\"charts\":[{\"title\":\"t\",\"x\":\"tau\",\"lines\":[{\"name\":\"small\","
     "\"points\":[[0,2.5],[1,2],[3.5,2.25]]}]}]}",
     NULL, "<h2>Ta&lt;u</h2>\n<p class=\"note\">why</p>"},
    {"{\"title\":\"a\",\"charts\":[{\"title\":\"t\",\"x\":\"tau\",\"lines\":[{\"points\":[[0,2]]}]}]}", NULL,
     "<h2>a</h2>"},
    {"{\"title\":\"a\",\"charts\":[{\"title\":\"t\",\"x\":\"tau\",\"lines\":[{\"points\":[[0,2],[1]]}]}]}",
     "charts.json: point 2 of a line", NULL},
    {"{\"title\":\"a\",\"charts\":[{\"title\":\"t\",\"x\":\"tau\",\"lines\":[{\"points\":[]}]}]}", "a chart without",
     NULL},
    {"{\"title\":\"a\",\"charts\":[{\"title\":\"t\"}]}", "charts.json|\"x\"", NULL},
    {"{\"title\":\"a\"}", "no list of \"charts\"", NULL},
    {"{\"charts\":[]}", "charts.json|\"title\"", NULL},
    {"[]", "charts.json|object", NULL},
    {"{", "charts.json|line 1", NULL},
};

START_TEST(further_charts)
{
    char path[1024], file[1024];
    struct cr_buf tables = {0};
    struct cr_error err = {0};
    uint8_t *text;
    make_six();
    struct cr_compare_options o = options_for(1);
    snprintf(path, sizeof path, "%s", cr_test_path("page.html"));
    snprintf(file, sizeof file, "%s", cr_test_path("charts.json"));
    cr_test_put_file(file, charts[_i].json, strlen(charts[_i].json));
    o.charts = file;
    refuse(&o, CR_E_USAGE, "--report is missing");
    o.report = path;
    if (charts[_i].refusal != NULL) {
        refuse(&o, CR_E_INPUT, charts[_i].refusal);
        return;
    }
    ck_assert_msg(cr_compare(&o, NULL, collect, &tables, &err) == CR_OK, "%s", err.message);
    ck_assert_int_eq(cr_file_read(path, 1 << 24, &text, NULL, &err), CR_OK);
    ck_assert_ptr_nonnull(strstr((const char *)text, charts[_i].shown));
    ck_assert_ptr_nonnull(strstr((const char *)text, ">tau</text>"));
    cr_free(text);
    cr_buf_free(&tables);
    ck_assert_int_eq((int)cr_alloc_live(), 0);
}
END_TEST

START_TEST(refusals)
{
    struct made m;
    make_six();
    struct cr_compare_options o = options_for(SEEDS);
    entries[1].n_files = 2;
    refuse(&o, CR_E_USAGE, "entry 2 has 2 evaluations|the first has 3");
    entries[1].n_files = SEEDS;
    o.n_entries = 1;
    refuse(&o, CR_E_USAGE, "at least two");
    o.n_entries = 2;
    files_of[1][2] = files_of[1][0];
    refuse(&o, CR_E_USAGE, "3.json stands twice");
    o = options_for(1);
    o.margin_accuracy = -1;
    refuse(&o, CR_E_USAGE, "--margin-accuracy -1");
    o = options_for(1);
    o.margin_nll = (double)NAN;
    refuse(&o, CR_E_USAGE, "--margin-nll nan");
    o = options_for(1);
    o.in_domain = "home,nowhere";
    refuse(&o, CR_E_USAGE, "no task \"nowhere\"");
    o.in_domain = "home,away,far|off,empty";
    refuse(&o, CR_E_USAGE, "nothing is left");
    o = options_for(1);
    o.json = files_of[1][0];
    refuse(&o, CR_E_USAGE, "--json is the same file|3.json");
    o = options_for(1);
    o.report = "/nowhere/at/all.html";
    refuse(&o, CR_E_IO, "/nowhere/at/all.html");
    o = options_for(1);
    o.size = 0;
    refuse(&o, CR_E_USAGE, "size 0");

    o = options_for(1);
    make(&m, "ivon", 1, 0.5);
    m.e.data_hash[0] = 'f';
    files_of[1][0] = put(7, &m, false);
    refuse(&o, CR_E_INPUT, "7.json|another test file|0.json|f123456789|0123456789");
    make(&m, "ivon", 1, 0.5);
    m.items[N - 1].line++;
    files_of[1][0] = put(7, &m, false);
    refuse(&o, CR_E_INPUT, "example 60 is line 65|line 66|--on-long");
    make(&m, "ivon", 1, 0.5);
    m.e.outcomes.n = N - 1;
    files_of[1][0] = put(7, &m, false);
    refuse(&o, CR_E_INPUT, "7.json holds 59 examples|60");
    files_of[1][0] = put(7, &m, true);
    refuse(&o, CR_E_INPUT, "7.json: no examples in it|--no-examples");
    files_of[1][0] = "/nowhere/at/all.json";
    refuse(&o, CR_E_IO, "/nowhere/at/all.json");
}
END_TEST

/* A part of the file that is replaced, and what is said of it. Numbers in the file are the first of their kind. */
static const struct {
    const char *from, *to, *parts;
} damages[] = {
    {"\"correct\": [", "\"correct\": [1,", "\"correct\" has 61 numbers, expected 60"},
    {"\"correct\": [", "\"correct\": [2,", "\"correct\" has 61"},
    {"\"nll\": [", "\"nll\": [null,", "\"nll\" has 61"},
    {"\"line\": [1,", "\"line\": [0,", "number 1 of \"line\" is not a whole number from 1"},
    {"\"line\": [1,", "\"line\": [1.5,", "number 1 of \"line\""},
    {"\"line\": [1,", "\"line\": [2,", "line 2 after line 2"},
    {"\"task\": [0,", "\"task\": [4,", "task 4 of line 1, but there are 4"},
    {"\"task\": [0,", "\"task\": [-2,", "number 1 of \"task\""},
    {"\"task\": [0,", "\"task\": [\"x\",", "number 1 of \"task\""},
    {"\"prediction\": [", "\"predicted\": [", "\"targets\" has 0 numbers"},
    {"\"confidence\": [", "\"confident\": [", "\"confidence\" has 0 numbers"},
    {"\"line\": [", "\"lines\": [", "\"line\" is no list"},
    {"\"examples\": {", "\"example\": {", "no examples in it"},
    {"\"xxh3\": \"", "\"xxh3\": \"0123456789", "data.xxh3 of 42"},
    {"\"method\": \"", "\"method\": \"a much too long name for it ", "method"},
    {"\"entropies_out\": [", "\"entropies_out\": [-1,", "entropy 1 of a list"},
    {"\"entropies_in\": [", "\"entropies_in\": [null,", "entropy 1 of a list"},
    {"\"confidence\": [", "\"confidence\": [1.1,", "\"confidence\" has 61"},
    {"\"samples\": 1", "\"samples\": 0", "samples"},
    {"\"home\",", "17,", "data.tasks"},
    {"{", "[", "line 2|column 8"},
};

START_TEST(damaged)
{
    struct made m;
    struct cr_error err = {0};
    struct cr_result_file f = {0};
    uint8_t *text;
    size_t n;
    make(&m, "adamw", 1, 0.5);
    put(0, &m, false);
    ck_assert_int_eq(cr_file_read(paths[0], 1 << 24, &text, &n, &err), CR_OK);
    const char *place = strstr((const char *)text, "\"examples\"");
    const char *found = strstr(place, damages[_i].from);
    found = found != NULL ? found : strstr((const char *)text, damages[_i].from);
    if (damages[_i].from[0] == '{') {
        found = (const char *)text;
    }
    ck_assert_ptr_nonnull(found);
    struct cr_buf broken = {0};
    cr_buf_append(&broken, text, (size_t)(found - (const char *)text));
    cr_buf_puts(&broken, damages[_i].to);
    cr_buf_puts(&broken, found + strlen(damages[_i].from));
    cr_test_put_file(paths[0], broken.data, broken.n);
    cr_expect_error(damages[_i].from, cr_result_load(paths[0], false, &f, &err), &err, CR_E_INPUT, damages[_i].parts);
    cr_result_close(&f);
    cr_buf_free(&broken);
    cr_free(text);
    ck_assert_int_eq((int)cr_alloc_live(), 0);
}
END_TEST

static bool stop(void *ctx)
{
    return *(bool *)ctx;
}

static bool full(void *ctx, const char *text, size_t n)
{
    (void)ctx, (void)text, (void)n;
    return false;
}

START_TEST(stopped_and_full)
{
    bool yes = true;
    struct cr_host host = {.stop = stop, .ctx = &yes};
    struct cr_error err = {0};
    make_six();
    struct cr_compare_options o = options_for(1);
    cr_expect_error("stop", cr_compare(&o, &host, full, NULL, &err), &err, CR_E_STOPPED, "stopped");
    yes = false;
    cr_expect_error("full", cr_compare(&o, &host, full, NULL, &err), &err, CR_E_IO, "takes no more");
}
END_TEST

static cr_status compare_once(void *arg, struct cr_error *err)
{
    struct cr_buf tables = {0};
    cr_status status = cr_compare(arg, NULL, collect, &tables, err);
    if (status == CR_OK && tables.failed) {
        status = cr_fail(err, CR_E_MEMORY, "no memory to keep the tables");
    }
    cr_buf_free(&tables);
    return status;
}

START_TEST(memory)
{
    char path[1024];
    for (int method = 0; method < 2; method++) {
        struct made m;
        make(&m, "ivon", (unsigned)method, 0.5);
        m.e.outcomes.n = 8; /* each resample is made hundreds of times */
        files_of[method][0] = put(method, &m, false);
        entries[method] = (struct cr_compare_entry){.files = files_of[method]};
    }
    struct cr_compare_options o = options_for(1);
    snprintf(path, sizeof path, "%s", cr_test_path("page.html"));
    o.report = path;
    o.in_domain = "home";
    ck_assert_int_gt(cr_test_alloc_sweep("compare", compare_once, &o), 100);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("compare");
    TCase *tcase = tcase_create("compare");
    tcase_add_checked_fixture(tcase, NULL, cr_test_dir_remove);
    tcase_set_timeout(tcase, 120);
    tcase_add_test(tcase, round_trip);
    tcase_add_test(tcase, figures);
    tcase_add_loop_test(tcase, equivalence, 0, sizeof margins / sizeof margins[0]);
    tcase_add_test(tcase, texts);
    tcase_add_loop_test(tcase, page, 0, 3);
    tcase_add_loop_test(tcase, further_charts, 0, sizeof charts / sizeof charts[0]);
    tcase_add_test(tcase, refusals);
    tcase_add_loop_test(tcase, damaged, 0, sizeof damages / sizeof damages[0]);
    tcase_add_test(tcase, stopped_and_full);
    tcase_add_test(tcase, memory);
    suite_add_tcase(suite, tcase);
    return cr_run_suite(suite);
}
