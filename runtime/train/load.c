/* Reading what a run needs: model, tokenizer, training and validation data. */
#include "runtime/train/train.h"

#include <stdio.h>
#include <string.h>

#include "runtime/core/alloc.h"

static void phase(const struct cr_train *train, const char *name)
{
    struct cr_progress progress = cr_progress_of(name);
    cr_host_progress(train->host, &progress);
}

static cr_status stop_early(const struct cr_train *train, struct cr_error *err)
{
    return cr_host_stopped(train->host) ? cr_fail(err, CR_E_STOPPED, "stopped before the first step; nothing written")
                                        : CR_OK;
}

static cr_status load_model(struct cr_train *train, struct cr_error *err)
{
    phase(train, "load");
    CR_TRY(cr_model_open(train->options.model, &train->model, err));
    cr_model_warn(train->model, train->host);
    CR_TRY(stop_early(train, err));
    CR_TRY(cr_tokenizer_open(train->model->gguf, &train->tokenizer, err));
    uint32_t *length = &train->options.max_seq_length;
    CR_TRY(cr_dataset_limit(*length, train->model->config.n_ctx, length, err));
    for (uint32_t layer = 0; layer < train->model->config.n_layers; layer++) {
        for (int proj = 0; proj < CR_N_PROJ; proj++) {
            const struct cr_qmat *w = &train->model->layers[layer].proj[proj];
            train->linear_params += (uint64_t)w->n_rows * w->n_cols;
        }
    }
    return stop_early(train, err);
}

static cr_status load_data(struct cr_train *train, struct cr_error *err)
{
    const struct cr_finetune_options *o = &train->options;
    struct cr_dataset_options options = {.max_seq_length = o->max_seq_length,
                                         .on_long_skip = o->on_long_skip,
                                         .train_on_prompt = o->train_on_prompt,
                                         .chat_template = o->chat_template,
                                         .system = o->system,
                                         .normalize = o->normalize};
    phase(train, "data");
    CR_TRY(cr_dataset_open(o->data, train->tokenizer, &options, train->host, &train->data, err));
    CR_TRY(stop_early(train, err));
    train->n_labels = train->data.n_labels;
    if (o->valid == NULL) {
        return CR_OK;
    }
    struct cr_dataset *valid = &train->valid_file;
    CR_TRY(cr_dataset_open(o->valid, train->tokenizer, &options, train->host, valid, err));
    if (valid->classification != train->data.classification) {
        return cr_fail(err, CR_E_INPUT, "validation file holds %s, the training file %s",
                       valid->classification ? "choices" : "texts", train->data.classification ? "choices" : "texts");
    }
    if (memcmp(valid->digest, train->data.digest, sizeof valid->digest) == 0) {
        cr_host_log(train->host, CR_LOG_WARNING, "training and validation data are the same file contents");
    }
    if (valid->n_labels > train->n_labels) { /* the tokens of letters that the training file does not need */
        train->n_labels = valid->n_labels;
        memcpy(train->data.label_ids, valid->label_ids, sizeof train->data.label_ids);
    }
    return stop_early(train, err);
}

/* An answer that questions offer and none to train on has is learned to be wrong. */
static void warn_of_missing_answers(const struct cr_train *train)
{
    uint32_t found = 0; /* a bit a letter */
    char missing[3 * CR_LABELS_MAX + 1] = "";
    for (size_t i = 0; i < train->n_train; i++) {
        found |= (uint32_t)1 << train->data.examples[train->train_pool[i]].answer;
    }
    size_t n = 0;
    for (uint32_t i = 0; i < train->n_labels; i++) {
        if ((found >> i & 1) == 0) {
            n += (size_t)snprintf(missing + n, sizeof missing - n, "%s%c", n > 0 ? ", " : "", (char)('A' + (int)i));
        }
    }
    if (n > 0) {
        cr_host_log(train->host, CR_LOG_WARNING,
                    "answer %s: offered by questions, but none of the %zu to train on is answered so", missing,
                    train->n_train);
    }
}

static cr_status split(struct cr_train *train, struct cr_error *err)
{
    size_t n = train->data.n;
    size_t n_other = train->valid_file.n;
    train->train_pool = cr_alloc(n, sizeof *train->train_pool);
    train->valid_pool = cr_alloc(n > n_other ? n : n_other, sizeof *train->valid_pool);
    if (train->train_pool == NULL || train->valid_pool == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for the order of %zu examples", n);
    }
    if (train->options.valid == NULL && !train->options.no_valid) {
        train->valid = &train->data;
        cr_dataset_split(&train->data, train->options.seed, CR_HELD_OUT_SHARE, train->train_pool, &train->n_train,
                         train->valid_pool, &train->n_valid);
    } else {
        train->valid = &train->valid_file;
        train->n_train = n;
        train->n_valid = n_other;
        for (size_t i = 0; i < n; i++) {
            train->train_pool[i] = (uint32_t)i;
        }
        for (size_t i = 0; i < n_other; i++) {
            train->valid_pool[i] = (uint32_t)i;
        }
    }
    if (train->n_train == 0) {
        return cr_fail(err, CR_E_INPUT, "no example left to train on (%zu in the file)", n);
    }
    if (train->n_valid == 0 && (train->options.keep_best || train->options.patience > 0)) {
        return cr_fail(err, CR_E_USAGE, "%zu examples leave none for validation: --keep best and --patience need some",
                       n);
    }
    cr_host_log(train->host, CR_LOG_INFO, "%zu examples to train on, %zu to validate, %s", train->n_train,
                train->n_valid, train->data.classification ? "choices" : "texts");
    warn_of_missing_answers(train); /* texts have no labels */
    return CR_OK;
}

cr_status cr_train_load(struct cr_train *train, struct cr_error *err)
{
    CR_TRY(load_model(train, err));
    CR_TRY(load_data(train, err));
    return split(train, err);
}
