#include "runtime/review/review.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/io/file.h"
#include "runtime/io/json.h"
#include "runtime/metrics/metrics.h"
#include "runtime/metrics/result.h"
#include "runtime/review/review_parts.h"

/* The answers as they are, and at a fitted temperature. */
enum { RAW, CALIBRATED, MAX_RUNS };
static const char *const run_names[MAX_RUNS] = {"raw answers", "calibrated"};

cr_status cr_review_bins(const struct cr_outcomes *o, struct cr_kept *kept, struct cr_report_group *group,
                         struct cr_error *err)
{
    struct cr_report_bin *bins = cr_zalloc(o->n_bins + 1, sizeof *bins); /* the last is for more than 1, by rounding */
    CR_TRY(cr_kept_add(kept, bins, err));
    for (size_t i = 0; i < o->n; i++) {
        struct cr_report_bin *bin = &bins[cr_bin_of(o->items[i].confidence, o->n_bins, CR_BIN_RIGHT_CLOSED)];
        bin->n++;
        bin->confidence += o->items[i].confidence;
        bin->accuracy += o->items[i].correct;
    }
    for (size_t b = 0; b < o->n_bins; b++) {
        bins[b].confidence /= bins[b].n > 0 ? (double)bins[b].n : 1;
        bins[b].accuracy /= bins[b].n > 0 ? (double)bins[b].n : 1;
    }
    group->bins = bins;
    group->n_bins = o->n_bins;
    return CR_OK;
}

/* Everything of a page in the making. */
struct page {
    const struct cr_eval_options *o;
    const struct cr_host *host;
    const struct cr_evaluation *e;
    struct cr_kept kept;
    struct cr_report report;
    struct cr_report_run runs[MAX_RUNS];
    const struct cr_outcomes *outcomes[MAX_RUNS]; /* kept: [n_groups]; NULL: not calibrated */
    struct cr_view view;
};

static struct cr_report_figure figure(double value, const double interval[2])
{
    return (struct cr_report_figure){.value = value, .low = interval[0], .high = interval[1]};
}

static cr_status set_group(struct page *page, const struct cr_outcomes *o, const struct cr_group_metrics *m,
                           uint32_t stream, struct cr_report_group *group, struct cr_error *err)
{
    struct cr_intervals i;
    CR_TRY(cr_outcomes_bootstrap(o, page->o->seed, stream, page->host, &i, err));
    *group = (struct cr_report_group){.name = stream == 0 ? "all" : m->task,
                                      .n = m->n,
                                      .accuracy = figure(m->accuracy, i.accuracy),
                                      .nll = figure(m->nll, i.nll),
                                      .ece = figure(m->ece, i.ece),
                                      .brier = figure(m->brier, i.brier),
                                      .perplexity = figure(m->perplexity, i.perplexity),
                                      .auroc_error = m->auroc_error};
    CR_TRY(cr_outcomes_ece_floor(o, NULL, page->o->seed, &group->ece_floor, err));
    return o->classification ? cr_review_bins(o, &page->kept, group, err) : CR_OK;
}

/* All first, then the tasks that have examples, as the result lists them. outcomes [n_groups + 1] are filled. */
static cr_status set_run(struct page *page, int run, struct cr_outcomes *outcomes, struct cr_error *err)
{
    const struct cr_eval_result *r = page->e->result;
    const struct cr_outcomes *all = run == RAW ? &page->e->outcomes : &page->e->calibrated;
    struct cr_report_group *groups = cr_zalloc(r->n_groups + 1, sizeof *groups);
    CR_TRY(cr_kept_add(&page->kept, groups, err));
    for (size_t g = 0, t = 0; g <= r->n_groups; g++) {
        const struct cr_group_metrics *m = g == 0 ? &r->all : &r->groups[g - 1];
        if (g == 0) {
            outcomes[g] = *all;
        } else {
            while (strcmp(page->e->task_names[t], m->task) != 0) { /* no example of that task was looked at */
                t++;
            }
            CR_TRY(cr_outcomes_of_task(all, (int32_t)t, &outcomes[g], err));
            CR_TRY(cr_kept_add(&page->kept, outcomes[g].items, err));
        }
        const struct cr_group_metrics *figures = run == RAW ? m : &r->calibrated[g];
        CR_TRY(set_group(page, &outcomes[g], figures, g == 0 ? 0 : (uint32_t)t + 1, &groups[g], err));
    }
    page->runs[run] = (struct cr_report_run){.name = run_names[run], .groups = groups};
    page->report.n_runs++;
    return CR_OK;
}

static cr_status set_runs(struct page *page, struct cr_error *err)
{
    const struct cr_eval_result *r = page->e->result;
    bool several = r->n_members > 1 || r->samples > 1; /* draws of logits are no members */
    page->report.runs = page->runs;
    page->report.n_seeds = 1;
    page->report.n_groups = r->n_groups + 1;
    for (int run = RAW; run <= (page->e->calibrated.items != NULL ? CALIBRATED : RAW); run++) {
        struct cr_outcomes *outcomes = cr_zalloc(r->n_groups + 1, sizeof *outcomes);
        CR_TRY(cr_kept_add(&page->kept, outcomes, err));
        CR_TRY(set_run(page, run, outcomes, err));
        page->outcomes[run] = outcomes;
    }
    struct cr_view_group *view = cr_zalloc(r->n_groups + 1, sizeof *view);
    CR_TRY(cr_kept_add(&page->kept, view, err));
    for (size_t g = 0; g <= r->n_groups; g++) {
        view[g].name = page->runs[RAW].groups[g].name;
        view[g].outcomes = page->outcomes[RAW][g];
        view[g].running = r->running != NULL ? r->running + g * r->n_members : NULL;
        view[g].all = !several ? NULL : g == 0 ? &r->all : &r->groups[g - 1];
    }
    page->view = (struct cr_view){.groups = view,
                                  .n_groups = r->n_groups + 1,
                                  .n_members = r->n_members,
                                  .pair_disagreement = r->pair_disagreement,
                                  .pair_distance = r->pair_distance,
                                  .ood = page->e->ood,
                                  .found = &r->ood,
                                  .in = "this file",
                                  .out = "elsewhere",
                                  .entropy = CR_ENTROPY_SHARE};
    return CR_OK;
}

/* The flags of this evaluation: as the caller tells, else what the options say. Returns owned or NULL. */
static json_t *eval_flags(const struct cr_eval_options *o)
{
    json_t *flags = NULL;
    if (o->settings_json != NULL &&
        cr_json_parse(o->settings_json, strlen(o->settings_json), "settings_json", &flags, NULL) == CR_OK &&
        json_object_size(flags) > 0) {
        return flags;
    }
    json_decref(flags);
    flags = json_object();
    json_object_set_new(flags, "model", cr_json_text(o->model));
    json_object_set_new(flags, "data", cr_json_text(o->data));
    json_t *adapters = json_array();
    for (size_t a = 0; a < o->n_adapters; a++) {
        json_array_append_new(adapters, cr_json_text(o->adapters[a]));
    }
    json_object_set_new(flags, "adapter", adapters);
    return flags;
}

/* The runs that were evaluated, and the lines that repeat them and the evaluation. */
static cr_status set_training(struct page *page, struct cr_error *err)
{
    const struct cr_eval_options *o = page->o;
    struct cr_buf line = {0};
    struct cr_report_pair *commands = cr_zalloc(o->n_adapters + 1, sizeof *commands);
    CR_TRY(cr_kept_add(&page->kept, commands, err));
    page->report.commands = commands;
    if (o->n_adapters > 0) {
        CR_TRY(cr_review_runs(o->adapters, o->n_adapters, page->host, &page->kept, &page->report, commands,
                              &page->report.n_commands, err));
    }
    json_t *flags = eval_flags(o);
    cr_command_line(&line, "eval", flags);
    json_decref(flags);
    struct cr_report_pair *eval = &commands[page->report.n_commands++];
    eval->key = "This evaluation:";
    return cr_kept_text(&page->kept, &line, &eval->value, err);
}

static cr_status make_page(struct page *page, struct cr_buf *html, struct cr_error *err)
{
    page->report.classification = page->e->outcomes.classification;
    page->report.n_resamples = CR_BOOTSTRAP;
    CR_TRY(set_runs(page, err));
    struct cr_review_source source = {.data = page->e->data,
                                      .data_hash = page->e->data_hash,
                                      .task_names = page->e->task_names,
                                      .outcomes = page->outcomes, /* all of it comes first */
                                      .names = page->report.n_runs > 1 ? run_names : NULL,
                                      .n = page->report.n_runs};
    CR_TRY(cr_review_charts(&page->view, 1, NULL, &page->kept, &page->report, err));
    CR_TRY(cr_review_examples(&source, page->host, &page->kept, &page->report, err));
    CR_TRY(set_training(page, err));
    cr_report_html(&page->report, html);
    return html->failed ? cr_fail(err, CR_E_MEMORY, "no memory for the report") : CR_OK;
}

cr_status cr_review_write(const struct cr_eval_options *options, const struct cr_host *host,
                          const struct cr_review_about *about, const struct cr_evaluation *evaluation,
                          struct cr_error *err)
{
    struct page page = {.o = options,
                        .host = host,
                        .e = evaluation,
                        .report = {.title = about->title, .facts = about->facts, .n_facts = about->n_facts}};
    struct cr_buf html = {0};
    cr_status status = make_page(&page, &html, err);
    if (status == CR_OK) {
        status = cr_file_write(options->report, html.data, html.n, err);
    }
    cr_buf_free(&html);
    cr_kept_free(&page.kept);
    return status;
}
