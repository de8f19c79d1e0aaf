/* batch: examples packed on one token axis for a pass through the model.
 *
 * Sequences follow each other without padding; the last token block is filled up with pad tokens that form a last
 * segment of their own (id 0, example UINT32_MAX, no loss). A loss row is a token whose hidden state predicts
 * something that counts.
 */
#ifndef CR_DATA_BATCH_H
#define CR_DATA_BATCH_H

#include "runtime/data/dataset.h"

/* A micro-batch takes examples in order while they fit into this many tokens; a longer example stands alone.
 * Fixed: part of the definition of a run. 512 tokens keep the products efficient and the activations small. */
enum { CR_MICRO_TOKENS = 512 };

struct cr_batch {
    size_t n_tokens, n_blocks;   /* real tokens; blocks of 16 incl. pads */
    int32_t *ids;                /* [n_blocks * 16] */
    uint32_t *pos;               /* place inside the example */
    uint32_t *example;           /* example number in the dataset */
    uint32_t *seg;               /* [n_seg + 1] token bounds */
    size_t n_seg;
    size_t n_rows;               /* loss rows, ascending tokens */
    uint32_t *row_token;
    int32_t *row_target;         /* texts: token id; choices: answer (index) */
    uint32_t *row_choices;       /* choices: n_choices of the example; texts: 0 */
    float *row_weight;           /* weight of the row's loss in the step's mean */
    size_t max_tokens, max_rows, max_seg; /* capacities */
};

/* Buffers for micro-batches of at most max_tokens tokens (rounded up to 16). Errors: CR_E_MEMORY. */
cr_status cr_batch_init(struct cr_batch *batch, size_t max_tokens, struct cr_error *err);
void cr_batch_deinit(struct cr_batch *batch);

/* Largest micro-batch that any order of these examples can need, in tokens (multiple of 16). */
size_t cr_batch_capacity(const struct cr_dataset *dataset);

/* How many of the n examples listed in `order` form the next micro-batch (at least 1). */
size_t cr_batch_take(const struct cr_dataset *dataset, const uint32_t *order, size_t n);

/* Packs examples order[0 ... n-1]. Every row gets row_weight = weight (1 / targets of the whole step). */
void cr_batch_fill(struct cr_batch *batch, const struct cr_dataset *dataset, const uint32_t *order, size_t n,
                   float weight);

/* order[0 ... n-1] = the examples of `pool` in the order of this epoch: a permutation keyed by (seed, epoch). */
void cr_epoch_order(const uint32_t *pool, size_t n, uint64_t seed, uint32_t epoch, uint32_t *order);

#endif
