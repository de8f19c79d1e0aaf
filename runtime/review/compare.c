/* cr_compare: reads the evaluations, makes sure that they looked at the same examples, and says what differs. */
#include "runtime/review/compare.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/core/options.h"
#include "runtime/io/file.h"
#include "runtime/io/json.h"
#include "runtime/review/review.h"
#include "runtime/thread/float_env.h"

void cr_compare_options_init(struct cr_compare_options *options)
{
    *options = (struct cr_compare_options){.size = sizeof *options};
}

static cr_status check_entries(const struct cr_compare_options *o, struct cr_error *err)
{
    char shown[CR_ESCAPE_BYTES];
    if (o->n_entries < 2) {
        return cr_fail(err, CR_E_USAGE, "%zu evaluation%s, expected at least two to compare", o->n_entries,
                       o->n_entries == 1 ? "" : "s");
    }
    for (size_t e = 0; e < o->n_entries; e++) {
        const struct cr_compare_entry *entry = &o->entries[e];
        if (entry->n_files == 0 || entry->n_files != o->entries[0].n_files) {
            return cr_fail(err, CR_E_USAGE,
                           "entry %zu has %zu evaluations, the first has %zu: give each as many seeds as the first",
                           e + 1, entry->n_files, o->entries[0].n_files);
        }
        for (size_t i = 0; i < entry->n_files; i++) {
            for (size_t j = 0; j < i; j++) {
                if (strcmp(entry->files[i], entry->files[j]) == 0) {
                    return cr_fail(err, CR_E_USAGE, "%s stands twice in one entry: seeds are different runs",
                                   cr_escape(shown, sizeof shown, entry->files[i], strlen(entry->files[i])));
                }
            }
        }
    }
    return CR_OK;
}

/* What is written is none of what is read. */
static cr_status check_outputs(const struct cr_compare_options *o, struct cr_error *err)
{
    char shown[CR_ESCAPE_BYTES];
    for (size_t e = 0; e < o->n_entries; e++) {
        for (size_t i = 0; i < o->entries[e].n_files; i++) {
            const char *input = o->entries[e].files[i];
            bool json = cr_same_file(o->json, input);
            if (json || cr_same_file(o->report, input)) {
                return cr_fail(err, CR_E_USAGE, "%s is the same file as the evaluation %s",
                               json ? "--json" : "--report", cr_escape(shown, sizeof shown, input, strlen(input)));
            }
        }
    }
    if (cr_same_file(o->json, o->charts) || cr_same_file(o->report, o->charts)) {
        return cr_fail(err, CR_E_USAGE, "%s is the same file as --charts",
                       cr_same_file(o->json, o->charts) ? "--json" : "--report");
    }
    if (o->json != NULL && o->report != NULL && (strcmp(o->json, o->report) == 0 || cr_same_file(o->json, o->report))) {
        return cr_fail(err, CR_E_USAGE, "--json and --report are the same file");
    }
    return CR_OK;
}

static cr_status check_options(const struct cr_compare_options *given, struct cr_compare_options *out,
                               struct cr_error *err)
{
    struct cr_compare_options o;
    cr_compare_options_init(&o);
    CR_TRY(cr_options_copy(&o, sizeof o, given, err));
    CR_TRY(check_entries(&o, err));
    if (!(o.margin_accuracy >= 0 && o.margin_accuracy <= 100)) {
        return cr_fail(err, CR_E_USAGE, "--margin-accuracy %g, expected points above 0 to 100", o.margin_accuracy);
    }
    if (!(o.margin_nll >= 0) || !isfinite(o.margin_nll)) {
        return cr_fail(err, CR_E_USAGE, "--margin-nll %g, expected a number above 0", o.margin_nll);
    }
    if (o.seed > UINT32_MAX) {
        return cr_fail(err, CR_E_USAGE, "--seed %" PRIu64 ", expected 0 to 4294967295", o.seed);
    }
    if (o.charts != NULL && o.report == NULL) {
        return cr_fail(err, CR_E_USAGE, "--charts are for a page: --report is missing");
    }
    o.margin_accuracy = o.margin_accuracy > 0 ? o.margin_accuracy : 1.5;
    o.margin_nll = o.margin_nll > 0 ? o.margin_nll : 0.03;
    CR_TRY(cr_json_check_object("settings_json", o.settings_json, err));
    CR_TRY(check_outputs(&o, err));
    CR_TRY(cr_check_output("--json", o.json, err));
    CR_TRY(cr_check_output("--report", o.report, err));
    *out = o;
    return CR_OK;
}

/* Both looked at the same examples of the same file. */
static cr_status check_pair(const struct cr_result_file *a, const struct cr_result_file *b, struct cr_error *err)
{
    const struct cr_outcomes *x = &a->evaluation.outcomes, *y = &b->evaluation.outcomes;
    char first[CR_ESCAPE_BYTES], other[CR_ESCAPE_BYTES];
    cr_escape(first, sizeof first, a->path, strlen(a->path));
    cr_escape(other, sizeof other, b->path, strlen(b->path));
    if (strcmp(a->evaluation.data_hash, b->evaluation.data_hash) != 0) {
        return cr_fail(err, CR_E_INPUT,
                       "%s is of another test file than %s (contents %s and %s): evaluate both on the same one", other,
                       first, b->evaluation.data_hash, a->evaluation.data_hash);
    }
    for (size_t i = 0; i < x->n && i < y->n; i++) {
        if (x->items[i].line != y->items[i].line || x->items[i].task != y->items[i].task) {
            return cr_fail(err, CR_E_INPUT,
                           "example %zu is line %" PRIu64 " in %s and line %" PRIu64
                           " in %s: evaluate both with the same --on-long and --max-seq-length",
                           i + 1, x->items[i].line, first, y->items[i].line, other);
        }
    }
    if (x->n != y->n || x->classification != y->classification) {
        return cr_fail(err, CR_E_INPUT,
                       "%s holds %zu examples and %s %zu: evaluate both with the same --on-long and --max-seq-length",
                       other, y->n, first, x->n);
    }
    return CR_OK;
}

static cr_status load(struct cr_comparison *c, struct cr_error *err)
{
    const struct cr_compare_options *o = &c->options;
    c->contenders = cr_zalloc(o->n_entries, sizeof *c->contenders);
    if (c->contenders == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for %zu evaluations", o->n_entries);
    }
    c->n_seeds = o->entries[0].n_files;
    for (size_t e = 0; e < o->n_entries; e++) {
        struct cr_contender *contender = &c->contenders[e];
        contender->runs = cr_zalloc(c->n_seeds, sizeof *contender->runs);
        if (contender->runs == NULL) {
            return cr_fail(err, CR_E_MEMORY, "no memory for %zu evaluations", c->n_seeds);
        }
        c->n_contenders++;
        for (size_t s = 0; s < c->n_seeds; s++) {
            CR_TRY(cr_result_load(o->entries[e].files[s], o->entries[e].calibrated, &contender->runs[s], err));
            CR_TRY(check_pair(&c->contenders[0].runs[0], &contender->runs[s], err));
        }
        contender->name = o->entries[e].name != NULL ? o->entries[e].name : contender->runs[0].result.method;
    }
    for (size_t e = 0; e < o->n_entries; e++) { /* two of one method are told apart by their files */
        for (size_t other = 0; other < o->n_entries && o->entries[e].name == NULL; other++) {
            if (other != e && strcmp(c->contenders[other].runs[0].result.method, c->contenders[e].name) == 0) {
                c->contenders[e].name = c->contenders[e].runs[0].path;
            }
        }
    }
    c->classification = c->contenders[0].runs[0].evaluation.outcomes.classification;
    return CR_OK;
}

bool cr_compare_listed(const char *list, const char *task)
{
    size_t n = strlen(task);
    for (const char *at = list; at != NULL; at = strchr(at, ',') != NULL ? strchr(at, ',') + 1 : NULL) {
        if (strcspn(at, ",") == n && memcmp(at, task, n) == 0) {
            return true;
        }
    }
    return false;
}

static cr_status check_in_domain(const struct cr_comparison *c, struct cr_error *err)
{
    const struct cr_evaluation *e = &c->contenders[0].runs[0].evaluation;
    char shown[CR_ESCAPE_BYTES];
    for (const char *at = c->options.in_domain; at != NULL; at = strchr(at, ',') != NULL ? strchr(at, ',') + 1 : NULL) {
        size_t t = 0, n = strcspn(at, ",");
        while (t < e->n_tasks && (strlen(e->task_names[t]) != n || memcmp(e->task_names[t], at, n) != 0)) {
            t++;
        }
        if (t == e->n_tasks) {
            return cr_fail(err, CR_E_USAGE, "--in-domain: no task \"%s\" in the evaluations",
                           cr_escape(shown, sizeof shown, at, n));
        }
    }
    return CR_OK;
}

/* Examples of a task; task -1: of all; -2: of the tasks out of domain. */
enum { ALL = -1, SHIFTED = -2 };

static cr_status add_group(struct cr_comparison *c, int32_t task, struct cr_error *err)
{
    const struct cr_evaluation *e = &c->contenders[0].runs[0].evaluation;
    struct cr_compared_group *g = &c->groups[c->n_groups];
    g->items = cr_alloc(e->outcomes.n, sizeof *g->items);
    g->of = cr_zalloc(c->n_contenders, sizeof *g->of);
    c->n_groups++; /* to be freed */
    if (g->items == NULL || g->of == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for groups of %zu examples", e->outcomes.n);
    }
    g->is_task = task >= 0;
    g->name = task >= 0 ? e->task_names[task] : task == ALL ? "all" : "shifted";
    for (size_t i = 0; i < e->outcomes.n; i++) {
        int32_t own = e->outcomes.items[i].task;
        bool shifted = task == SHIFTED && own >= 0 && !cr_compare_listed(c->options.in_domain, e->task_names[own]);
        if (task == ALL || own == task || shifted) {
            g->items[g->n++] = (uint32_t)i;
        }
    }
    if (g->n == 0 && task == SHIFTED) {
        return cr_fail(err, CR_E_USAGE, "--in-domain names every task: nothing is left to be shifted");
    }
    if (g->n == 0) { /* a task without examples */
        cr_free(g->items);
        cr_free(g->of);
        *g = (struct cr_compared_group){0};
        c->n_groups--;
        return CR_OK;
    }
    return cr_compare_measure(c, g, err);
}

static cr_status compare(struct cr_comparison *c, struct cr_error *err)
{
    CR_TRY(load(c, err));
    CR_TRY(check_in_domain(c, err));
    size_t n_tasks = c->contenders[0].runs[0].evaluation.n_tasks;
    c->groups = cr_zalloc(n_tasks + 2, sizeof *c->groups);
    if (c->groups == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for %zu groups", n_tasks + 2);
    }
    for (size_t t = 0; t < n_tasks; t++) {
        CR_TRY(add_group(c, (int32_t)t, err));
    }
    if (c->options.in_domain != NULL) {
        CR_TRY(add_group(c, SHIFTED, err));
    }
    CR_TRY(add_group(c, ALL, err));
    if (c->options.json != NULL) {
        CR_TRY(cr_compare_write(c, err));
    }
    return c->options.report != NULL ? cr_review_compare(c, err) : CR_OK;
}

static void close(struct cr_comparison *c)
{
    for (size_t e = 0; e < c->n_contenders; e++) {
        for (size_t s = 0; s < c->n_seeds; s++) {
            cr_result_close(&c->contenders[e].runs[s]);
        }
        cr_free(c->contenders[e].runs);
    }
    for (size_t g = 0; g < c->n_groups; g++) {
        cr_free(c->groups[g].items);
        cr_free(c->groups[g].of);
    }
    cr_free(c->contenders);
    cr_free(c->groups);
}

cr_status cr_compare(const struct cr_compare_options *options, const struct cr_host *host,
                     bool (*emit)(void *ctx, const char *text, size_t n_bytes), void *ctx, struct cr_error *err)
{
    struct cr_comparison comparison = {.host = host};
    struct cr_buf tables = {0};
    uint64_t saved = cr_float_env_enter();
    cr_status status = CR_OK;
    CR_TRY_OUT(status, check_options(options, &comparison.options, err));
    CR_TRY_OUT(status, compare(&comparison, err));
    cr_compare_tables(&comparison, &tables);
    if (tables.failed) {
        status = cr_fail(err, CR_E_MEMORY, "no memory for the tables");
    } else if (!emit(ctx, tables.data, tables.n)) {
        status = cr_fail(err, CR_E_IO, "the receiver of the tables takes no more");
    }
out:
    cr_float_env_leave(saved);
    cr_buf_free(&tables);
    close(&comparison);
    return status;
}
