/* jacobian: gradients of log p(class) of single examples with respect to all weights of an adapter.
 *
 * d log p_c = d z_c - sum_k p_k d z_k: the Jacobian of the logits up to the same row added to each class, which no
 * softmax sees. Each (example, class) is a part of a batch with gradients of its own, so that as many as fit share a
 * pass over the base. Private to runtime/eval.
 */
#ifndef CR_EVAL_JACOBIAN_H
#define CR_EVAL_JACOBIAN_H

#include "runtime/adapter/adapter.h"
#include "runtime/data/batch.h"
#include "runtime/model/engine.h"

/* Parts of one pass at most, unless one example has more classes. */
enum { CR_JACOBIAN_PARTS = 8 };

struct cr_jacobian {
    struct cr_lora *slots; /* owned: [n_parts][n_slots], the adapter's weights with gradients of each part's own: what
                            * the engine is made with */
    float *grads;          /* owned: [n_parts][n_params] */
    struct cr_engine_noise *noise; /* owned: [n_parts] zeros */
    double *loss;                  /* owned: [n_parts] */
    size_t n_params;
    uint32_t n_parts;
};

uint64_t cr_jacobian_bytes(const struct cr_adapter *adapter, uint32_t n_labels);

/* The slots alone, by which the size of an engine is known; then the gradients, most of the bytes. The adapter, twice
 * the same, is borrowed. Errors: CR_E_MEMORY. */
cr_status cr_jacobian_init(struct cr_jacobian *j, const struct cr_adapter *adapter, uint32_t n_labels,
                           struct cr_error *err);
cr_status cr_jacobian_allocate(struct cr_jacobian *j, const struct cr_adapter *adapter, struct cr_error *err);
void cr_jacobian_deinit(struct cr_jacobian *j); /* zeroed: no effect */

/* How many of the n examples listed in order have room together, at least 1. */
size_t cr_jacobian_take(const struct cr_jacobian *j, const struct cr_dataset *dataset, const uint32_t *order, size_t n);

/* Fills the rows of so many examples: class c of example i at rows + (first class of i + c) n_params, classes one
 * behind the other. batch: large enough for any one example. Errors: those of cr_engine_train. */
cr_status cr_jacobian_run(struct cr_jacobian *j, struct cr_engine *engine, struct cr_token_batch *batch,
                          const struct cr_dataset *dataset, const uint32_t *order, size_t n, struct cr_error *err);

#endif
