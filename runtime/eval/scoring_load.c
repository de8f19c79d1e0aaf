/* Data sets of an evaluation: examples that count, and which set of weights answers for which task. */
#include "runtime/eval/scoring_parts.h"

#include <inttypes.h>
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/core/host.h"

static cr_status load_data(struct cr_scoring *s, const char *path, struct cr_scoring_set *set, struct cr_error *err)
{
    const struct cr_eval_options *o = &s->options;
    struct cr_dataset_options options = {.max_seq_length = o->max_seq_length,
                                         .on_long_skip = o->on_long_skip,
                                         .train_on_prompt = o->train_on_prompt,
                                         .answer_optional = set == &s->ood || (s->answers && set == &s->main),
                                         .chat_template = o->chat_template,
                                         .system = o->system,
                                         .normalize = o->normalize};
    set->path = path;
    return cr_dataset_open(path, s->tokenizer, &options, s->host, &set->data, err);
}

/* The first `limit` examples of each task (those without a task count as one). */
static cr_status choose_examples(const struct cr_scoring *s, struct cr_scoring_set *set, struct cr_error *err)
{
    set->order = cr_alloc(set->data.n, sizeof *set->order);
    uint64_t *taken = cr_zalloc(set->data.n_tasks + 1, sizeof *taken);
    if (set->order == NULL || taken == NULL) {
        cr_free(taken);
        return cr_fail(err, CR_E_MEMORY, "no memory for the order of %zu examples", set->data.n);
    }
    for (size_t i = 0; i < set->data.n; i++) {
        uint64_t *of_task = &taken[set->data.examples[i].task + 1];
        if (s->options.limit == 0 || *of_task < s->options.limit) {
            ++*of_task;
            set->order[set->n++] = (uint32_t)i;
        }
    }
    cr_free(taken);
    return CR_OK;
}

/* Which set answers for which task of this file. Call after choose_examples. */
static cr_status assign_tasks(const struct cr_scoring *s, struct cr_scoring_set *set, struct cr_error *err)
{
    char path[CR_ESCAPE_BYTES], shown[CR_ESCAPE_BYTES];
    if (!s->sets.by_task) {
        return s->options.strict_task
                   ? cr_fail(err, CR_E_USAGE, "--strict-task: no adapter by task answers here, which could know a task")
                   : CR_OK;
    }
    set->set_of = cr_zalloc(set->data.n_tasks + 1, sizeof *set->set_of);
    if (set->set_of == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for %zu tasks", set->data.n_tasks);
    }
    for (size_t t = 0; t < set->data.n_tasks; t++) {
        set->set_of[t + 1] = cr_sets_of_task(&s->sets, set->data.task_names[t]);
    }
    cr_escape(path, sizeof path, set->path, strlen(set->path));
    for (size_t i = 0; i < set->n; i++) {
        const struct cr_example *example = &set->data.examples[set->order[i]];
        bool unknown = set->set_of[example->task + 1] == 0;
        const char *task = example->task >= 0 ? set->data.task_names[example->task] : "";
        set->n_global += unknown;
        if (unknown && s->options.strict_task) {
            return cr_fail(err, CR_E_INPUT, "%s:%" PRIu64 ": task \"%s\" is unknown to the adapter (--strict-task)",
                           path, example->line, cr_escape(shown, sizeof shown, task, strlen(task)));
        }
    }
    if (set->n_global > 0) {
        cr_host_log(s->host, CR_LOG_WARNING,
                    "%s: %" PRIu64 " of %zu examples name no task that the adapter knows: the "
                    "tasks' common one answers",
                    path, set->n_global, set->n);
    }
    return CR_OK;
}

bool cr_scoring_gathers(const struct cr_scoring *s)
{
    return s->differentiates && s->sets.logit_draws == 0;
}

/* A file beside that of the data. */
static cr_status load_beside(struct cr_scoring *s, const char *flag, const char *path, struct cr_scoring_set *set,
                             struct cr_error *err)
{
    if (path == NULL) {
        return CR_OK;
    }
    if (!s->main.data.classification) {
        return cr_fail(err, CR_E_USAGE, "--%s needs questions with choices, the data file holds texts", flag);
    }
    CR_TRY(load_data(s, path, set, err));
    if (!set->data.classification) {
        return cr_fail(err, CR_E_INPUT, "the --%s file holds texts, the data file choices", flag);
    }
    if (set->data.n_labels > s->n_labels) {
        s->n_labels = set->data.n_labels;
        s->label_ids = set->data.label_ids;
    }
    CR_TRY(choose_examples(s, set, err));
    return assign_tasks(s, set, err);
}

cr_status cr_scoring_load_sets(struct cr_scoring *s, struct cr_error *err)
{
    CR_TRY(load_data(s, s->options.data, &s->main, err));
    CR_TRY(choose_examples(s, &s->main, err));
    if (s->differentiates && !s->main.data.classification) {
        return cr_fail(err, CR_E_USAGE,
                       "the linearised model answers questions with choices, the data file holds texts%s",
                       s->sets.logit_draws > 0 ? ": --weights or --mean answers them" : "");
    }
    CR_TRY(assign_tasks(s, &s->main, err));
    s->n_labels = s->main.data.n_labels;
    s->label_ids = s->main.data.classification ? s->main.data.label_ids : NULL;
    CR_TRY(load_beside(s, "ood", s->options.ood, &s->ood, err));
    return load_beside(s, cr_scoring_gathers(s) ? "valid" : "calibrate", s->options.calibrate, &s->calibration, err);
}

void cr_scoring_close_set(struct cr_scoring_set *set)
{
    cr_free(set->order);
    cr_free(set->set_of);
    cr_dataset_close(&set->data);
}
