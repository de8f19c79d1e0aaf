#include "runtime/review/review.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/io/file.h"
#include "runtime/io/json.h"
#include "runtime/metrics/calibrate.h"
#include "runtime/metrics/metrics.h"
#include "runtime/metrics/result.h"
#include "runtime/review/review_parts.h"

enum { MAX_COMMANDS = 2, FLOOR_DRAWS = 500 };

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
    struct cr_report_run run;
    struct cr_view view;
    struct cr_report_pair commands[MAX_COMMANDS];
};

static struct cr_report_figure figure(double value, const double interval[2])
{
    return (struct cr_report_figure){.value = value, .low = interval[0], .high = interval[1]};
}

static cr_status set_floor(const struct page *page, const struct cr_outcomes *o, double *floor, struct cr_error *err)
{
    struct cr_estimate estimate;
    double *confidence = cr_alloc(o->n, sizeof *confidence);
    if (confidence == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for the report");
    }
    for (size_t i = 0; i < o->n; i++) {
        confidence[i] = o->items[i].confidence;
    }
    cr_status status =
        cr_ece_floor(confidence, o->n, o->n_bins, CR_BIN_RIGHT_CLOSED, page->o->seed, FLOOR_DRAWS, &estimate, err);
    *floor = estimate.mean;
    cr_free(confidence);
    return status;
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
                                      .auroc_error = m->auroc_error,
                                      .ece_floor = (double)NAN};
    if (o->classification) {
        CR_TRY(set_floor(page, o, &group->ece_floor, err));
        return cr_review_bins(o, &page->kept, group, err);
    }
    return CR_OK;
}

/* All first, then the tasks that have examples, as the result lists them. */
static cr_status set_groups(struct page *page, struct cr_error *err)
{
    const struct cr_eval_result *r = page->e->result;
    struct cr_report_group *groups = cr_zalloc(r->n_groups + 1, sizeof *groups);
    CR_TRY(cr_kept_add(&page->kept, groups, err));
    struct cr_view_group *view = cr_zalloc(r->n_groups + 1, sizeof *view);
    CR_TRY(cr_kept_add(&page->kept, view, err));
    for (size_t g = 0, t = 0; g <= r->n_groups; g++) {
        struct cr_outcomes *o = &view[g].outcomes;
        const struct cr_group_metrics *m = g == 0 ? &r->all : &r->groups[g - 1];
        if (g == 0) {
            *o = page->e->outcomes;
        } else {
            while (strcmp(page->e->task_names[t], m->task) != 0) { /* no example of that task was looked at */
                t++;
            }
            CR_TRY(cr_outcomes_of_task(&page->e->outcomes, (int32_t)t, o, err));
            CR_TRY(cr_kept_add(&page->kept, o->items, err));
        }
        CR_TRY(set_group(page, o, m, g == 0 ? 0 : (uint32_t)t + 1, &groups[g], err));
        view[g].name = groups[g].name;
        view[g].running = r->running != NULL ? r->running + g * r->n_members : NULL;
    }
    page->run = (struct cr_report_run){.groups = groups};
    page->view = (struct cr_view){.groups = view,
                                  .n_groups = r->n_groups + 1,
                                  .n_members = r->n_members,
                                  .ood = page->e->ood,
                                  .in = "this file",
                                  .out = "elsewhere",
                                  .entropy = CR_ENTROPY_SHARE};
    page->report.runs = &page->run;
    page->report.n_runs = page->report.n_seeds = 1;
    page->report.n_groups = r->n_groups + 1;
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
    if (o->adapter != NULL) {
        json_object_set_new(flags, "adapter", cr_json_text(o->adapter));
    }
    return flags;
}

static cr_status set_commands(struct page *page, const char *finetune, struct cr_error *err)
{
    struct cr_buf line = {0};
    json_t *flags = eval_flags(page->o);
    cr_command_line(&line, "eval", flags);
    json_decref(flags);
    if (finetune != NULL) {
        page->commands[page->report.n_commands++] = (struct cr_report_pair){"The training run:", finetune};
    }
    struct cr_report_pair *eval = &page->commands[page->report.n_commands];
    eval->key = "This evaluation:";
    CR_TRY(cr_kept_text(&page->kept, &line, &eval->value, err));
    page->report.n_commands++;
    page->report.commands = page->commands;
    return CR_OK;
}

static cr_status make_page(struct page *page, struct cr_buf *html, struct cr_error *err)
{
    const struct cr_outcomes *outcomes = &page->e->outcomes;
    struct cr_training training = {0};
    struct cr_review_source source = {.data = page->e->data,
                                      .data_hash = page->e->data_hash,
                                      .task_names = page->e->task_names,
                                      .outcomes = &outcomes,
                                      .n = 1};
    page->report.classification = outcomes->classification;
    page->report.n_resamples = CR_BOOTSTRAP;
    CR_TRY(set_groups(page, err));
    CR_TRY(cr_review_charts(&page->view, 1, NULL, &page->kept, &page->report, err));
    CR_TRY(cr_review_examples(&source, page->host, &page->kept, &page->report, err));
    if (page->o->adapter != NULL) {
        CR_TRY(cr_review_training(page->o->adapter, page->host, &page->kept, &training, err));
        CR_TRY(cr_review_training_charts(&training, NULL, 1, &page->kept, &page->report, err));
        page->report.settings = training.settings;
        page->report.n_settings = training.n_settings;
    }
    CR_TRY(set_commands(page, training.command, err));
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
