/* Which tokens of a step go through the model together, and for which sets of parameters. */
#include "runtime/train/train.h"

#include <inttypes.h>
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/posterior/members.h"
#include "runtime/posterior/sets_file.h"

/* How many sets share a pass: as many parts of so many tokens as the engine has room for. */
static uint32_t sets_at_once(const struct cr_train *train, size_t part_tokens)
{
    size_t fit = train->batch.max_tokens / part_tokens;
    size_t most = train->options.members_at_once > 0 ? train->options.members_at_once : train->n_sets;
    fit = fit < most ? fit : most;
    return (uint32_t)(fit > 1 ? fit : 1);
}

/* One micro-batch through every set. */
static cr_status every_set(struct cr_train *train, const uint32_t *examples, size_t n, float weight,
                           struct cr_error *err)
{
    uint32_t at_once = sets_at_once(train, cr_batch_part_tokens(&train->seen, examples, n));
    for (uint32_t first = 0, group; first < train->n_sets; first += group) {
        group = train->n_sets - first < at_once ? train->n_sets - first : at_once;
        cr_batch_clear(&train->batch);
        for (uint32_t k = first; k < first + group; k++) {
            cr_batch_add_part(&train->batch, k, &train->seen, examples, n, weight);
        }
        CR_TRY(cr_engine_train(train->engine, &train->batch, train->noise, train->set_loss, err));
    }
    return CR_OK;
}

static size_t task_of(const struct cr_train *train, uint32_t example)
{
    return (size_t)(train->data.examples[example].task + 1);
}

/* A task's share of all examples over its target tokens in this step. */
static void weigh_tasks(struct cr_train *train, const uint32_t *examples, size_t n)
{
    double *weight = train->task_weight;
    memset(weight, 0, (train->data.n_tasks + 1) * sizeof *weight);
    for (size_t i = 0; i < n; i++) {
        weight[task_of(train, examples[i])] += (double)train->data.examples[examples[i]].n_targets;
    }
    for (size_t t = 0; t <= train->data.n_tasks; t++) {
        weight[t] = weight[t] > 0 ? train->task_examples[t] / (weight[t] * (double)train->n_train) : 0;
    }
}

static void set_row_weights(struct cr_train *train)
{
    struct cr_token_batch *batch = &train->batch;
    for (size_t row = 0; train->task_weight != NULL && row < batch->n_rows; row++) {
        batch->row_weight[row] = (float)train->task_weight[task_of(train, batch->example[batch->row_token[row]])];
    }
}

/* Micro-batches of which each example is its own set's. */
static cr_status by_task(struct cr_train *train, const uint32_t *examples, size_t n, float weight, struct cr_error *err)
{
    cr_batch_sort(&train->seen, train->set_of, train->n_sets, examples, n, train->sorted);
    if (train->task_weight != NULL) {
        weigh_tasks(train, examples, n);
    }
    for (size_t done = 0; done < n;) {
        done +=
            cr_batch_fill_sorted(&train->batch, &train->seen, train->set_of, train->sorted + done, n - done, weight);
        set_row_weights(train);
        CR_TRY(cr_engine_train(train->engine, &train->batch, train->noise, train->set_loss, err));
    }
    return CR_OK;
}

/* Micro-batches that every set sees. */
static cr_status by_every_set(struct cr_train *train, const uint32_t *examples, size_t n, float weight,
                              struct cr_error *err)
{
    for (size_t done = 0; done < n;) {
        size_t take = cr_batch_take(&train->seen, examples + done, n - done);
        CR_TRY(every_set(train, examples + done, take, weight, err));
        done += take;
    }
    return CR_OK;
}

cr_status cr_train_accumulate(struct cr_train *train, const uint32_t *examples, size_t n, uint64_t draw, double *loss,
                              uint64_t *tokens, struct cr_error *err)
{
    bool tasks = train->set_of != NULL;
    uint64_t targets = 0;
    for (size_t i = 0; i < n; i++) {
        targets += train->data.examples[examples[i]].n_targets;
        *tokens += train->data.examples[examples[i]].n_ids; /* several sets do not multiply them */
    }
    double terms = tasks ? (double)n : (double)targets * train->n_sets;
    float weight = terms > 0 ? (float)(1.0 / terms) : 0;
    for (uint32_t k = 0; k < train->n_sets; k++) {
        uint64_t seed = train->options.seed;
        train->noise[k] = (struct cr_engine_noise){.dropout = train->options.dropout,
                                                   .flipout = train->method->flipout,
                                                   .seed = tasks ? seed : cr_members_seed(seed, k),
                                                   .step = (uint32_t)draw};
        train->set_loss[k] = 0;
    }
    CR_TRY(tasks ? by_task(train, examples, n, weight, err) : by_every_set(train, examples, n, weight, err));
    for (uint32_t k = 0; k < train->n_sets; k++) {
        *loss += train->set_loss[k];
    }
    return CR_OK;
}

bool cr_train_owns_rows(const struct cr_train *train)
{
    return train->method->own_rows != NULL && train->method->own_rows(&train->options, train->data.classification);
}

cr_status cr_train_check_tasks(const struct cr_train *train, struct cr_error *err)
{
    char shown[CR_ESCAPE_BYTES];
    const char *path = cr_escape(shown, sizeof shown, train->options.data, strlen(train->options.data));
    if (cr_train_owns_rows(train) && !train->data.classification) {
        return cr_fail(err, CR_E_USAGE, "%s: trained label rows need questions with choices, not texts", path);
    }
    if (train->method->sharing != CR_BY_TASK || train->n_sets == 1) {
        return CR_OK;
    }
    if (train->n_sets == 0) {
        return cr_fail(err, CR_E_INPUT, "%s: no line names a task, which --method %s trains by (field \"task\")", path,
                       train->method->name);
    }
    if (train->data.n_tasks >= CR_WEIGHT_SETS_MAX) {
        return cr_fail(err, CR_E_INPUT, "%s: %zu tasks, at most %d", path, train->data.n_tasks, CR_WEIGHT_SETS_MAX - 1);
    }
    for (size_t i = 0; i < train->n_train; i++) {
        const struct cr_example *example = &train->data.examples[train->train_pool[i]];
        if (example->task < 0) {
            return cr_fail(err, CR_E_INPUT, "%s:%" PRIu64 ": names no task, which --method %s trains by", path,
                           example->line, train->method->name);
        }
    }
    return CR_OK;
}

/* The set of each task of `data`, which may be another file than that of the training; unknown ones are of set 0. */
static uint32_t *sets_of_tasks(const struct cr_train *train, const struct cr_dataset *data)
{
    uint32_t *set_of = cr_zalloc(data->n_tasks + 1, sizeof *set_of);
    for (size_t t = 0; set_of != NULL && train->n_sets > 1 && t < data->n_tasks; t++) {
        for (size_t k = 0; k < train->data.n_tasks; k++) {
            set_of[t + 1] =
                strcmp(data->task_names[t], train->data.task_names[k]) == 0 ? (uint32_t)k + 1 : set_of[t + 1];
        }
    }
    return set_of;
}

static cr_status count_tasks(struct cr_train *train, struct cr_error *err)
{
    if (train->method->tokens_by_task == NULL || !train->method->tokens_by_task(&train->options)) {
        return CR_OK;
    }
    train->task_examples = cr_zalloc(train->data.n_tasks + 1, sizeof *train->task_examples);
    train->task_weight = cr_zalloc(train->data.n_tasks + 1, sizeof *train->task_weight);
    if (train->task_examples == NULL || train->task_weight == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for the weights of %zu tasks", train->data.n_tasks);
    }
    for (size_t i = 0; i < train->n_train; i++) {
        train->task_examples[task_of(train, train->train_pool[i])]++;
    }
    return CR_OK;
}

cr_status cr_train_assign_tasks(struct cr_train *train, struct cr_error *err)
{
    if (train->method->sharing != CR_BY_TASK) {
        return CR_OK;
    }
    train->set_of = sets_of_tasks(train, &train->data);
    train->valid_set_of = sets_of_tasks(train, train->valid);
    train->sorted = cr_alloc(train->n_train > train->n_valid ? train->n_train : train->n_valid, sizeof *train->sorted);
    if (train->set_of == NULL || train->valid_set_of == NULL || train->sorted == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for the tasks of %zu examples", train->n_train);
    }
    cr_batch_sort(train->valid, train->valid_set_of, train->n_sets, train->valid_pool, train->n_valid, train->sorted);
    memcpy(train->valid_pool, train->sorted, train->n_valid * sizeof *train->sorted);
    return count_tasks(train, err);
}
