/* Which tokens of a step go through the model together, and for which sets of parameters. */
#include "runtime/posterior/members.h"
#include "runtime/train/train.h"

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
    uint32_t at_once = sets_at_once(train, cr_batch_part_tokens(&train->data, examples, n));
    for (uint32_t first = 0, group; first < train->n_sets; first += group) {
        group = train->n_sets - first < at_once ? train->n_sets - first : at_once;
        cr_batch_clear(&train->batch);
        for (uint32_t k = first; k < first + group; k++) {
            cr_batch_add_part(&train->batch, k, &train->data, examples, n, weight);
        }
        CR_TRY(cr_engine_train(train->engine, &train->batch, train->noise, train->set_loss, err));
    }
    return CR_OK;
}

cr_status cr_train_accumulate(struct cr_train *train, const uint32_t *examples, size_t n, uint64_t draw, double *loss,
                              uint64_t *tokens, struct cr_error *err)
{
    uint64_t targets = 0;
    for (size_t i = 0; i < n; i++) {
        targets += train->data.examples[examples[i]].n_targets;
    }
    float weight = targets > 0 ? (float)(1.0 / ((double)targets * train->n_sets)) : 0;
    for (uint32_t k = 0; k < train->n_sets; k++) {
        train->noise[k] = (struct cr_engine_noise){.dropout = train->options.dropout,
                                                   .seed = cr_members_seed(train->options.seed, k),
                                                   .step = (uint32_t)draw,
                                                   .flipout = train->method->flipout};
        train->set_loss[k] = 0;
    }
    for (size_t done = 0; done < n;) {
        size_t take = cr_batch_take(&train->data, examples + done, n - done);
        CR_TRY(every_set(train, examples + done, take, weight, err));
        for (size_t i = done; i < done + take; i++) { /* several sets do not multiply them */
            *tokens += train->data.examples[examples[i]].n_ids;
        }
        done += take;
    }
    for (uint32_t k = 0; k < train->n_sets; k++) {
        *loss += train->set_loss[k];
    }
    return CR_OK;
}
