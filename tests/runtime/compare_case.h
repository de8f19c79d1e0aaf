/* compare_case: evaluations that were made up, two times three files of them, and a comparison of the two. */
#ifndef CR_TESTS_COMPARE_CASE_H
#define CR_TESTS_COMPARE_CASE_H

#include <check.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>

#include "credence/kernels/math.h"
#include "runtime/core/alloc.h"
#include "runtime/core/buf.h"
#include "runtime/io/json.h"
#include "runtime/review/compare.h"
#include "tests/support/io_test.h"

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

static inline void make(struct made *m, const char *method, unsigned seed, double skill)
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
        m->running[k] = (struct cr_group_metrics){.nll = (double)k + 0.5,
                                                  .accuracy = 1.0 / (double)(k + 1),
                                                  .perplexity = (double)NAN,
                                                  .entropy = (double)k + 0.25,
                                                  .mutual_information = 0.125 / (double)(k + 1)};
    }
    m->result = (struct cr_eval_result){
        .classification = true,
        .groups = m->groups,
        .n_groups = 3,
        .samples = 1,
        .n_members = MEMBERS,
        .running = m->running,
        .has_ood = true,
        .ood = {
            .n_in = 2, .n_out = 3, .auroc = 0.75, .information_auroc = 0.875, .information_average_precision = 0.625}};
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

static inline const char *put(int slot, const struct made *m, bool no_examples)
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
static inline void make_six(void)
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

static inline bool collect(void *ctx, const char *text, size_t n)
{
    cr_buf_append(ctx, text, n);
    return true;
}

static inline struct cr_compare_options options_for(size_t n_files)
{
    struct cr_compare_options o;
    cr_compare_options_init(&o);
    entries[0].n_files = entries[1].n_files = n_files;
    o.entries = entries;
    o.n_entries = 2;
    return o;
}

static inline json_t *compare(struct cr_compare_options *o, struct cr_buf *tables)
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
static inline double at(const json_t *json, size_t group, size_t method, const char *part, const char *figure,
                        const char *key)
{
    const json_t *m =
        json_array_get(json_object_get(json_array_get(json_object_get(json, "groups"), group), "methods"), method);
    const json_t *value = json_object_get(json_object_get(part != NULL ? json_object_get(m, part) : m, figure), key);
    ck_assert_msg(json_is_number(value), "%zu %zu %s %s", group, method, figure, key);
    return json_number_value(value);
}

static inline void refuse(const struct cr_compare_options *o, cr_status want, const char *parts)
{
    struct cr_error err = {0};
    struct cr_buf tables = {0};
    cr_expect_error(parts, cr_compare(o, NULL, collect, &tables, &err), &err, want, parts);
    ck_assert_ptr_null(tables.data);
    ck_assert_int_eq((int)cr_alloc_live(), 0);
}

#endif
