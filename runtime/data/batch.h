/* batch: which examples go into a pass, in which order, and how they are packed (runtime/core/token_batch.h). */
#ifndef CR_DATA_BATCH_H
#define CR_DATA_BATCH_H

#include "runtime/core/token_batch.h"
#include "runtime/data/dataset.h"

/* A micro-batch takes examples in order while they fit into this many tokens; a longer example stands alone.
 * Fixed: part of the definition of a run. 512 tokens keep the products efficient and the activations small. */
enum { CR_MICRO_TOKENS = 512 };

/* A pass holds a micro-batch for each of several sets of parameters, together at most this many tokens, which is four
 * full ones: a bound of the memory, since it changes no bit. It saves reading the base again, not time that can be
 * measured (bench/RESULTS.md): products are near their best at 512 tokens. */
enum { CR_PASS_TOKENS = 2048 };

/* Tokens of passes that show up to n_sets sets micro-batches of at most part_tokens each, no fewer than one's; and the
 * n_sets, at most those given, from which on it is the same. */
size_t cr_batch_joint(size_t part_tokens, size_t n_sets);
size_t cr_batch_joint_sets(size_t part_tokens, size_t n_sets);

/* Buffers for passes of at most max_tokens tokens (rounded up to 16). Errors: CR_E_MEMORY. */
cr_status cr_batch_init(struct cr_token_batch *batch, size_t max_tokens, struct cr_error *err);
void cr_batch_deinit(struct cr_token_batch *batch);

/* Largest micro-batch that any order of these examples can need, in tokens (multiple of 16). */
size_t cr_batch_capacity(const struct cr_dataset *dataset);

/* Tokens of the shortest example less those it shares; UINT32_MAX of an empty file. */
uint32_t cr_batch_shortest(const struct cr_dataset *dataset);

/* How many of the n examples listed in `order` form the next micro-batch (at least 1). Those of a micro-batch share
 * their lead (dataset.h), or none has one; of the same number of tokens it is the same tokens. */
size_t cr_batch_take(const struct cr_dataset *dataset, const uint32_t *order, size_t n);

/* Empties the batch; then each call adds a part of `member`, ascending: examples order[0 ... n-1] and pads up to a
 * whole block. The same examples for each of several members (an ensemble, draws), or each member's own (tasks). The
 * batch must have room: cr_batch_part_tokens of every part. */
void cr_batch_clear(struct cr_token_batch *batch);
void cr_batch_add_part(struct cr_token_batch *batch, uint32_t member, const struct cr_dataset *dataset,
                       const uint32_t *order, size_t n, float weight);

/* Examples that belong to members by their task: set_of[1 + task] is the member, set_of[0] that of examples without a
 * task. sorted = the n examples of `order` by member, those of one in their order. */
void cr_batch_sort(const struct cr_dataset *dataset, const uint32_t *set_of, uint32_t n_sets, const uint32_t *order,
                   size_t n, uint32_t *sorted);

/* Packs the first of n sorted examples, a part a member: while they fit into CR_MICRO_TOKENS with the pads of every
 * part, at least one. Returns how many. */
size_t cr_batch_fill_sorted(struct cr_token_batch *batch, const struct cr_dataset *dataset, const uint32_t *set_of,
                            const uint32_t *sorted, size_t n, float weight);

/* Tokens that a part of these examples takes with its pads. */
size_t cr_batch_part_tokens(const struct cr_dataset *dataset, const uint32_t *order, size_t n);

/* Packs examples order[0 ... n-1], all of member 0. Every row gets row_weight = weight (1 / targets of the whole step).
 */
void cr_batch_fill(struct cr_token_batch *batch, const struct cr_dataset *dataset, const uint32_t *order, size_t n,
                   float weight);

/* order[0 ... n-1] = the examples of `pool` in the order of this epoch: a permutation keyed by (seed, epoch). */
void cr_epoch_order(const uint32_t *pool, size_t n, uint64_t seed, uint32_t epoch, uint32_t *order);

#endif
