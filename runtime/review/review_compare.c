/* The page of several evaluations of one file: figures and diagrams side by side, and whether they differ. */
#include <math.h>
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/core/number.h"
#include "runtime/io/file.h"
#include "runtime/io/json.h"
#include "runtime/review/compare.h"
#include "runtime/review/review_parts.h"

/* With more evaluations than this, diagrams are drawn of pooled groups only. */
enum { FEW = 4 };

/* Everything of a page in the making. */
struct page {
    const struct cr_comparison *c;
    struct cr_kept kept;
    struct cr_report report;
    struct cr_report_run *runs; /* kept: [n_contenders] */
    struct cr_view *views;      /* kept: [n_contenders] */
    const char **names;         /* kept: [n_contenders] */
    json_t *lines;              /* owned: charts brought along */
    struct cr_report_section more;
};

/* The comparison's groups with all of it first. */
static const struct cr_compared_group *group_at(const struct cr_comparison *c, size_t g)
{
    return &c->groups[(g + c->n_groups - 1) % c->n_groups];
}

static struct cr_report_figure figure(const struct cr_estimate *e)
{
    return (struct cr_report_figure){.value = e->mean, .low = e->low, .high = e->high};
}

/* The examples of a group, of all seeds one after the other. */
static cr_status pool(struct page *page, const struct cr_contender *contender, const struct cr_compared_group *g,
                      struct cr_outcomes *out, struct cr_error *err)
{
    struct cr_outcome *items = cr_alloc(page->c->n_seeds * g->n, sizeof *items);
    CR_TRY(cr_kept_add(&page->kept, items, err));
    for (size_t s = 0; s < page->c->n_seeds; s++) {
        for (size_t i = 0; i < g->n; i++) {
            items[s * g->n + i] = contender->runs[s].items[g->items[i]];
        }
    }
    *out = contender->runs[0].evaluation.outcomes;
    out->items = items;
    out->n = page->c->n_seeds * g->n;
    return CR_OK;
}

/* Figures on all examples after the first 1, 2, ... members, means over the seeds; NULL when a seed does not have them.
 * A single member has those of the comparison. */
static cr_status mean_running(struct page *page, size_t m, const struct cr_group_metrics **out, struct cr_error *err)
{
    const struct cr_comparison *c = page->c;
    const struct cr_result_file *runs = c->contenders[m].runs;
    const struct cr_estimate *figures = group_at(c, 0)->of[m].figures;
    size_t n_members = runs[0].result.n_members;
    struct cr_group_metrics *mean = cr_zalloc(n_members, sizeof *mean);
    CR_TRY(cr_kept_add(&page->kept, mean, err));
    for (size_t s = 0; s < c->n_seeds; s++) {
        const struct cr_eval_result *r = &runs[s].result;
        if (r->n_members != n_members || (r->running == NULL && n_members > 1)) {
            return CR_OK;
        }
        for (size_t k = 0; k < n_members && n_members > 1; k++) {
            for (enum cr_figure f = 0; f < CR_N_FIGURES; f++) {
                *cr_figure_in(&mean[k], f) += *cr_figure_in(&r->running[k], f) / (double)c->n_seeds;
            }
            mean[k].entropy += r->running[k].entropy / (double)c->n_seeds;
            mean[k].expected_entropy += r->running[k].expected_entropy / (double)c->n_seeds;
            mean[k].mutual_information += r->running[k].mutual_information / (double)c->n_seeds;
            mean[k].disagreement += r->running[k].disagreement / (double)c->n_seeds;
        }
    }
    for (enum cr_figure f = 0; f < CR_N_FIGURES && n_members == 1; f++) {
        *cr_figure_in(mean, f) = figures[f].mean;
    }
    *out = mean;
    return CR_OK;
}

static cr_status set_group(struct page *page, size_t m, size_t at, struct cr_report_group *group,
                           struct cr_view_group *view, struct cr_error *err)
{
    const struct cr_comparison *c = page->c;
    const struct cr_compared_group *g = group_at(c, at);
    const struct cr_compared *of = &g->of[m];
    struct cr_group_metrics one;
    double auroc = 0;
    uint64_t n = 0;
    view->name = g->name;
    CR_TRY(pool(page, &c->contenders[m], g, &view->outcomes, err));
    if (at == 0) {
        size_t n_members = c->contenders[m].runs[0].result.n_members;
        CR_TRY(mean_running(page, m, &view->running, err));
        view->all = view->running != NULL && n_members > 1 ? &view->running[n_members - 1] : NULL;
    }
    for (size_t s = 0; s < c->n_seeds; s++) {
        struct cr_outcomes seed = view->outcomes;
        seed.items += s * g->n;
        seed.n = g->n;
        CR_TRY(cr_outcomes_measure(&seed, &one, err));
        auroc += one.auroc_error / (double)c->n_seeds;
        n = one.n;
    }
    const struct cr_estimate *nll = &of->figures[CR_FIGURE_NLL];
    *group = (struct cr_report_group){
        .name = g->name,
        .n = n,
        .n_seeds = c->n_seeds,
        .accuracy = figure(&of->figures[CR_FIGURE_ACCURACY]),
        .nll = figure(nll),
        .ece = figure(&of->figures[CR_FIGURE_ECE]),
        .brier = figure(&of->figures[CR_FIGURE_BRIER]),
        .perplexity = {cr_perplexity(nll->mean, 1), cr_perplexity(nll->low, 1), cr_perplexity(nll->high, 1)},
        .auroc_error = auroc,
        .ece_floor = of->floor};
    bool drawn = c->classification && (c->n_contenders <= FEW || !g->is_task);
    return drawn ? cr_review_bins(&view->outcomes, &page->kept, group, err) : CR_OK;
}

/* Entropies of the shifted tasks against those in the domain, of all seeds. */
static cr_status split_entropies(struct page *page, const struct cr_contender *contender, struct cr_ood_entropies *out,
                                 struct cr_error *err)
{
    const struct cr_evaluation *e = &contender->runs[0].evaluation;
    size_t n = page->c->n_seeds * e->outcomes.n;
    out->in = cr_alloc(n, sizeof *out->in);
    CR_TRY(cr_kept_add(&page->kept, out->in, err));
    out->out = cr_alloc(n, sizeof *out->out);
    CR_TRY(cr_kept_add(&page->kept, out->out, err));
    for (size_t i = 0; i < n; i++) {
        const struct cr_outcome *o = &contender->runs[i / e->outcomes.n].items[i % e->outcomes.n];
        if (o->task >= 0 && cr_compare_listed(page->c->options.in_domain, e->task_names[o->task])) {
            out->in[out->n_in++] = o->entropy;
        } else if (o->task >= 0) {
            out->out[out->n_out++] = o->entropy;
        }
    }
    return CR_OK;
}

/* Of --ood if every evaluation has it, in the first seed; else by the tasks in the domain. */
static cr_status set_entropies(struct page *page, size_t m, struct cr_error *err)
{
    const struct cr_comparison *c = page->c;
    struct cr_view *view = &page->views[m];
    bool measured = true;
    for (size_t i = 0; i < c->n_contenders; i++) {
        measured = measured && c->contenders[i].runs[0].result.has_ood;
    }
    view->in = measured ? "this file" : "in domain";
    view->out = measured ? "elsewhere" : "shifted";
    view->entropy = measured ? CR_ENTROPY_SHARE : "entropy, nats";
    if (measured) {
        view->ood = c->contenders[m].runs[0].ood;
        view->found = &c->contenders[m].runs[0].result.ood;
        return CR_OK;
    }
    bool split = c->options.in_domain != NULL && c->classification;
    return split ? split_entropies(page, &c->contenders[m], &view->ood, err) : CR_OK;
}

static cr_status set_runs(struct page *page, struct cr_error *err)
{
    const struct cr_comparison *c = page->c;
    page->runs = cr_zalloc(c->n_contenders, sizeof *page->runs);
    CR_TRY(cr_kept_add(&page->kept, page->runs, err));
    page->views = cr_zalloc(c->n_contenders, sizeof *page->views);
    CR_TRY(cr_kept_add(&page->kept, page->views, err));
    page->names = cr_zalloc(c->n_contenders, sizeof *page->names);
    CR_TRY(cr_kept_add(&page->kept, page->names, err));
    for (size_t m = 0; m < c->n_contenders; m++) {
        struct cr_report_group *groups = cr_zalloc(c->n_groups, sizeof *groups);
        CR_TRY(cr_kept_add(&page->kept, groups, err));
        struct cr_view_group *view = cr_zalloc(c->n_groups, sizeof *view);
        CR_TRY(cr_kept_add(&page->kept, view, err));
        for (size_t g = 0; g < c->n_groups; g++) {
            CR_TRY(set_group(page, m, g, &groups[g], &view[g], err));
        }
        page->names[m] = c->contenders[m].name;
        page->runs[m] = (struct cr_report_run){.name = c->contenders[m].name, .groups = groups};
        page->views[m] = (struct cr_view){.name = c->contenders[m].name,
                                          .groups = view,
                                          .n_groups = c->n_groups,
                                          .n_members = c->contenders[m].runs[0].result.n_members};
        CR_TRY(set_entropies(page, m, err));
    }
    page->report.runs = page->runs;
    page->report.n_runs = c->n_contenders;
    page->report.n_groups = c->n_groups;
    page->report.n_seeds = c->n_seeds;
    return CR_OK;
}

static cr_status set_differences(struct page *page, struct cr_error *err)
{
    const struct cr_comparison *c = page->c;
    struct cr_buf text = {0};
    char accuracy[CR_NUMBER_BYTES], nll[CR_NUMBER_BYTES];
    struct cr_report_difference *list = cr_zalloc(c->n_groups * (c->n_contenders - 1), sizeof *list);
    CR_TRY(cr_kept_add(&page->kept, list, err));
    page->report.differences = list;
    for (size_t g = 0; g < c->n_groups; g++) {
        for (size_t m = 1; m < c->n_contenders; m++) {
            const struct cr_compared *of = &c->groups[g].of[m];
            struct cr_report_difference *d = &list[page->report.n_differences++];
            d->group = c->groups[g].name;
            d->name = c->contenders[m].name;
            d->accuracy = figure(&of->differences[CR_FIGURE_ACCURACY]);
            d->nll = figure(&of->differences[CR_FIGURE_NLL]);
            d->brier = figure(&of->differences[CR_FIGURE_BRIER]);
            d->ece = figure(&of->differences[CR_FIGURE_ECE]);
            d->accuracy_is = cr_compare_words(c, of, CR_FIGURE_ACCURACY);
            d->nll_is = cr_compare_words(c, of, CR_FIGURE_NLL);
        }
    }
    cr_buf_printf(&text,
                  "Both looked at the same examples, so what is common to them drops out. Better, worse: the 95 %% "
                  "interval lies on one side of 0. Equivalent: the 90 %% interval lies within %s points of accuracy or "
                  "%s of NLL (two one-sided tests at 5 %%); not worse: its worse end does. Open: the examples do not "
                  "decide.",
                  cr_number_short(accuracy, c->options.margin_accuracy), cr_number_short(nll, c->options.margin_nll));
    return cr_kept_text(&page->kept, &text, &page->report.margins, err);
}

/* The first adapter that a file was made with, and how many; NULL when there is none. */
static const char *adapter_of(const struct cr_result_file *f, size_t *n)
{
    const json_t *adapter = json_object_get(json_object_get(f->json, "settings"), "adapter");
    *n = json_is_array(adapter) ? json_array_size(adapter) : 1;
    return json_string_value(json_is_array(adapter) ? json_array_get(adapter, 0) : adapter);
}

static cr_status set_facts(struct page *page, struct cr_error *err)
{
    const struct cr_comparison *c = page->c;
    const struct cr_evaluation *first = &c->contenders[0].runs[0].evaluation;
    struct cr_buf text = {0};
    struct cr_report_pair *facts = cr_zalloc(c->n_contenders + 2, sizeof *facts);
    CR_TRY(cr_kept_add(&page->kept, facts, err));
    page->report.facts = facts;
    for (size_t m = 0; m < c->n_contenders && m < FEW; m++) {
        cr_buf_printf(&text, "%s%s", m == 0 ? "" : m + 1 < c->n_contenders ? ", " : " and ", c->contenders[m].name);
    }
    cr_buf_printf(&text, "%s on %s", c->n_contenders > FEW ? " and others" : "", cr_base_name(first->data));
    CR_TRY(cr_kept_text(&page->kept, &text, &page->report.title, err));
    facts[0] = (struct cr_report_pair){.key = "Model", .value = first->model};
    facts[1].key = "Data";
    cr_buf_printf(&text, "%s, %zu examples, contents %s", first->data, first->outcomes.n, first->data_hash);
    CR_TRY(cr_kept_text(&page->kept, &text, &facts[1].value, err));
    page->report.n_facts = 2;
    for (size_t m = 0; m < c->n_contenders; m++) {
        const struct cr_result_file *f = &c->contenders[m].runs[0];
        size_t n_adapters;
        const char *adapter = adapter_of(f, &n_adapters);
        cr_buf_printf(&text, "method %s, %s", f->result.method, adapter != NULL ? adapter : "no adapter");
        if (n_adapters > 1) {
            cr_buf_printf(&text, " and %zu more", n_adapters - 1);
        }
        if (f->result.n_members > 1) {
            cr_buf_printf(&text, ", mean of %zu sets of weights", f->result.n_members);
        }
        if (c->options.entries[m].calibrated) {
            cr_buf_puts(&text, ", at the temperature fitted on held-out examples");
        }
        if (c->n_seeds > 1) {
            cr_buf_printf(&text, "; first of %zu seeds", c->n_seeds);
        }
        struct cr_report_pair *fact = &facts[page->report.n_facts++];
        fact->key = c->contenders[m].name;
        CR_TRY(cr_kept_text(&page->kept, &text, &fact->value, err));
    }
    return CR_OK;
}

/* How the comparison and the first seed of every evaluation are made again. */
static cr_status set_commands(struct page *page, const struct cr_training *training, struct cr_error *err)
{
    const struct cr_comparison *c = page->c;
    struct cr_buf line = {0};
    json_t *flags = NULL;
    struct cr_report_pair *list = cr_zalloc(2 * c->n_contenders + 1, sizeof *list);
    CR_TRY(cr_kept_add(&page->kept, list, err));
    page->report.commands = list;
    for (size_t m = 0; m < c->n_contenders; m++) {
        const json_t *own = json_object_get(c->contenders[m].runs[0].json, "settings");
        if (training[m].command != NULL) {
            struct cr_report_pair *pair = &list[page->report.n_commands++];
            cr_buf_printf(&line, "Training of %s:", c->contenders[m].name);
            CR_TRY(cr_kept_text(&page->kept, &line, &pair->key, err));
            pair->value = training[m].command;
        }
        if (json_object_size(own) > 0) {
            struct cr_report_pair *pair = &list[page->report.n_commands++];
            cr_buf_printf(&line, "Evaluation of %s:", c->contenders[m].name);
            CR_TRY(cr_kept_text(&page->kept, &line, &pair->key, err));
            cr_command_line(&line, "eval", own);
            CR_TRY(cr_kept_text(&page->kept, &line, &pair->value, err));
        }
    }
    if (c->options.settings_json != NULL) {
        CR_TRY(cr_json_parse(c->options.settings_json, strlen(c->options.settings_json), "settings_json", &flags, err));
    }
    cr_command_line(&line, "compare", flags);
    json_decref(flags);
    for (size_t m = 0; m < c->n_contenders; m++) {
        struct cr_buf operand = {0};
        cr_buf_printf(&operand, "%s=", c->contenders[m].name);
        for (size_t s = 0; s < c->n_seeds; s++) {
            cr_buf_printf(&operand, "%s%s", s > 0 ? "," : "", c->contenders[m].runs[s].path);
        }
        cr_buf_puts(&operand, c->options.entries[m].calibrated ? "@calibrated" : "");
        cr_command_operand(&line, operand.data != NULL ? operand.data : "");
        line.failed = line.failed || operand.failed;
        cr_buf_free(&operand);
    }
    struct cr_report_pair *pair = &list[page->report.n_commands++];
    pair->key = "This comparison:";
    return cr_kept_text(&page->kept, &line, &pair->value, err);
}

static cr_status set_training(struct page *page, struct cr_error *err)
{
    const struct cr_comparison *c = page->c;
    struct cr_training *training = cr_zalloc(c->n_contenders, sizeof *training);
    CR_TRY(cr_kept_add(&page->kept, training, err));
    for (size_t m = 0; m < c->n_contenders; m++) {
        size_t n_adapters;
        const char *adapter = adapter_of(&c->contenders[m].runs[0], &n_adapters);
        if (adapter != NULL) {
            CR_TRY(cr_review_training(adapter, c->host, &page->kept, &training[m], err));
        }
    }
    CR_TRY(cr_review_training_charts(training, page->names, c->n_contenders, &page->kept, &page->report, err));
    return set_commands(page, training, err);
}

static cr_status set_examples(struct page *page, struct cr_error *err)
{
    const struct cr_comparison *c = page->c;
    const struct cr_evaluation *first = &c->contenders[0].runs[0].evaluation;
    const struct cr_outcomes **outcomes = cr_zalloc(c->n_contenders, sizeof *outcomes);
    CR_TRY(cr_kept_add(&page->kept, outcomes, err));
    for (size_t m = 0; m < c->n_contenders; m++) {
        outcomes[m] = &c->contenders[m].runs[0].evaluation.outcomes;
    }
    struct cr_review_source source = {.data = first->data,
                                      .data_hash = first->data_hash,
                                      .task_names = first->task_names,
                                      .outcomes = outcomes,
                                      .names = page->names,
                                      .n = c->n_contenders};
    return cr_review_examples(&source, c->host, &page->kept, &page->report, err);
}

static cr_status make_page(struct page *page, struct cr_buf *html, struct cr_error *err)
{
    page->report.classification = page->c->classification;
    page->report.n_resamples = CR_COMPARE_DRAWS;
    CR_TRY(set_facts(page, err));
    CR_TRY(set_runs(page, err));
    CR_TRY(set_differences(page, err));
    const char *charts = page->c->options.charts;
    if (charts != NULL) {
        CR_TRY(cr_review_lines(charts, &page->kept, &page->lines, &page->more, err));
    }
    CR_TRY(cr_review_charts(page->views, page->c->n_contenders, charts != NULL ? &page->more : NULL, &page->kept,
                            &page->report, err));
    CR_TRY(set_examples(page, err));
    CR_TRY(set_training(page, err));
    cr_report_html(&page->report, html);
    return html->failed ? cr_fail(err, CR_E_MEMORY, "no memory for the report") : CR_OK;
}

cr_status cr_review_compare(const struct cr_comparison *comparison, struct cr_error *err)
{
    struct page page = {.c = comparison};
    struct cr_buf html = {0};
    cr_status status = make_page(&page, &html, err);
    if (status == CR_OK) {
        status = cr_file_write(comparison->options.report, html.data, html.n, err);
    }
    cr_buf_free(&html);
    json_decref(page.lines);
    cr_kept_free(&page.kept);
    return status;
}
