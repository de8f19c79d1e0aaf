/* Everything a run allocates, in one place, and its release. */
#include "runtime/train/train.h"

#include <math.h>
#include <string.h>
#include <unistd.h>

#include "runtime/adapter/files.h"
#include "runtime/adapter/prefix_adapter.h"
#include "runtime/core/alloc.h"
#include "runtime/eval/nll.h"
#include "runtime/io/file.h"

static cr_status no_memory(const char *what, struct cr_error *err)
{
    return cr_fail(err, CR_E_MEMORY, "no memory for %s", what);
}

static double own_lr(const void *schedule, uint64_t step)
{
    return cr_schedule_lr(schedule, step);
}

/* Every set starts from the rows of the model. */
static cr_status add_rows(struct cr_train *train, struct cr_error *err)
{
    if (!cr_train_owns_rows(train)) {
        return CR_OK;
    }
    CR_TRY(cr_adapter_add_rows(&train->adapter, train->n_labels, train->model->config.n_embd, err));
    cr_model_label_rows(train->model, train->workers.tier, train->data.label_ids, train->n_labels,
                        train->adapter->params + cr_adapter_rows_begin(train->adapter));
    return CR_OK;
}

static cr_status show_rows(struct cr_train *train, struct cr_error *err)
{
    train->own_rows = cr_zalloc(train->n_sets, sizeof *train->own_rows);
    if (train->own_rows == NULL) {
        return no_memory("label rows", err);
    }
    for (uint32_t k = 0; k < train->n_sets; k++) {
        struct cr_adapter set = cr_adapter_set(train->adapter, k);
        size_t begin = cr_adapter_rows_begin(&set);
        train->own_rows[k] = (struct cr_label_rows){set.params + begin, set.grads + begin};
    }
    return CR_OK;
}

static cr_status make_adapter(struct cr_train *train, struct cr_error *err)
{
    const struct cr_finetune_options *o = &train->options;
    if (train->method->prefix) {
        CR_TRY(cr_prefix_adapter_create(&train->prefix_shape, true, &train->adapter, err));
        train->adapter->base_hash = train->model->base_hash;
    } else if (train->adapter == NULL) {
        CR_TRY(cr_adapter_create(train->model, o->rank, o->alpha, o->dropout, train->targets, o->seed, true,
                                 &train->adapter, err));
    }
    train->adapter->dropout = o->dropout;
    CR_TRY(add_rows(train, err));
    if (train->adapter->n_sets != train->n_sets) {
        CR_TRY(cr_adapter_repeat(&train->adapter, train->n_sets, err));
    }
    if (cr_train_owns_rows(train)) {
        CR_TRY(show_rows(train, err));
    }
    struct cr_method_setup setup = {.options = &train->options,
                                    .adapter = train->adapter,
                                    .parallel = train->workers.parallel,
                                    .tier = train->workers.tier,
                                    .n_targets = train->n_targets,
                                    .n_examples = train->n_train,
                                    .task_names = train->data.task_names,
                                    .n_tasks = train->data.n_tasks,
                                    .n_steps = train->n_steps,
                                    .steps_per_epoch = train->steps_per_epoch,
                                    .first_eval = train->n_valid == 0 ? 0 : cr_train_eval_every(train),
                                    .own_lr = own_lr,
                                    .schedule = &train->schedule};
    CR_TRY(train->method->create(&setup, &train->state, err));
    CR_TRY(cr_norm2_init(&train->norm2, train->adapter->n_params, train->workers.tier, train->workers.parallel, err));
    if (o->keep_best) {
        train->best_bytes = (size_t)train->method->result_bytes(o, train->adapter->n_params);
        train->best = cr_zalloc(1, train->best_bytes);
        if (train->best == NULL) {
            return no_memory("the best parameters", err);
        }
    }
    return CR_OK;
}

struct cr_adapter *cr_train_acting(const struct cr_train *train)
{
    struct cr_adapter *acting = train->method->acting != NULL ? train->method->acting(train->state) : NULL;
    return acting != NULL ? acting : train->adapter;
}

static cr_status make_engine(struct cr_train *train, struct cr_error *err)
{
    size_t longest = train->data.max_ids > train->valid_file.max_ids ? train->data.max_ids : train->valid_file.max_ids;
    struct cr_engine_options options;
    cr_train_engine_options(train, cr_train_acting(train)->slots, longest, train->recompute, &options);
    CR_TRY(cr_batch_init(&train->batch, options.max_tokens, err));
    CR_TRY(cr_engine_create(&options, &train->engine, err));
    size_t floats = cr_nll_scratch_floats(cr_train_micro_tokens(train, longest), options.n_labels);
    train->scratch = cr_alloc((train->set_of != NULL ? 1 : train->n_sets) * floats, sizeof *train->scratch);
    train->noise = cr_zalloc(train->n_sets, sizeof *train->noise);
    train->set_loss = cr_zalloc(train->n_sets, sizeof *train->set_loss);
    return train->scratch != NULL && train->noise != NULL && train->set_loss != NULL ? CR_OK
                                                                                     : no_memory("validation", err);
}

cr_status cr_train_allocate(struct cr_train *train, struct cr_error *err)
{
    CR_TRY(cr_train_assign_tasks(train, err));
    CR_TRY(make_adapter(train, err));
    CR_TRY(make_engine(train, err));
    train->order = cr_alloc(train->n_train, sizeof *train->order);
    train->order_epoch = UINT64_MAX;
    train->history = cr_zalloc(1, sizeof *train->history + train->max_evals * sizeof(struct cr_train_eval));
    train->shapes = cr_adapter_shapes_text(train->adapter, train->model);
    if (train->shapes == NULL) {
        return no_memory("the shapes of the adapter", err);
    }
    if (train->order == NULL || train->history == NULL) {
        return no_memory("the order of the examples", err);
    }
    CR_TRY(cr_train_start_prefix(train, err));
    train->history->layout = sizeof *train->history;
    train->history->best_nll = (double)NAN;
    train->history->last_report_loss = (double)NAN;
    if (train->options.trace != NULL || cr_host_verbose(train->host, "time")) {
        CR_TRY(cr_trace_create(train->engine, train->options.trace != NULL, &train->trace, err));
    }
    return CR_OK;
}

void cr_train_free(struct cr_train *train)
{
    cr_trace_destroy(train->trace, train->engine);
    cr_journal_close(train);
    cr_engine_destroy(train->engine);
    cr_batch_deinit(&train->batch);
    if (train->method != NULL) {
        train->method->destroy(train->state);
    }
    cr_norm2_deinit(&train->norm2);
    cr_adapter_destroy(train->adapter);
    cr_free(train->best);
    cr_free(train->scratch);
    cr_free(train->set_of);
    cr_free(train->valid_set_of);
    cr_free(train->sorted);
    cr_free(train->task_examples);
    cr_free(train->task_weight);
    cr_free(train->own_rows);
    cr_free(train->noise);
    cr_free(train->set_loss);
    cr_free(train->order);
    cr_free(train->history);
    cr_free(train->train_pool);
    cr_free(train->valid_pool);
    cr_dataset_close(&train->data);
    cr_dataset_close(&train->valid_file);
    cr_tokenizer_close(train->tokenizer);
    cr_model_close(train->model);
    cr_free(train->settings);
    cr_free(train->digests);
    cr_free(train->shapes);
    cr_free(train->checkpoint_dir);
    cr_free(train->journal_path);
    cr_free(train->last_checkpoint);
    cr_workers_release(&train->workers);
    cr_dir_unlock(train->lock_fd);
}
