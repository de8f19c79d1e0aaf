/* curvature: gathers the Kronecker factors of an adapter from what its matrices see in training passes.
 *
 * The observer of an engine (cr_engine_observe). A: x x^T into the large factor, V V^T into the small one; B: dY dY^T
 * times scale squared into the large one, h h^T, h = A x, into the small one. Whoever runs the passes says whether the
 * inputs count: once an example; gradients count in every pass, with the root of their weight in the loss. Large
 * factors are kept to CR_LAPLACE_COLUMNS columns as vectors arrive, so they depend on the order of examples and on the
 * micro-batches, not on threads. Private to runtime/eval.
 */
#ifndef CR_EVAL_CURVATURE_H
#define CR_EVAL_CURVATURE_H

#include "runtime/model/engine.h"
#include "runtime/posterior/laplace_set.h"

struct cr_curvature {
    struct cr_laplace_set *set;       /* borrowed: large and small are added to */
    const struct cr_adapter *adapter; /* borrowed, as the next */
    const struct cr_parallel *parallel;
    size_t *first;    /* owned: matrix of A of each slot; B follows it */
    size_t widest;    /* n of the widest matrix */
    float *rows;      /* owned: [n_workers][CR_LAPLACE_BLOCK][widest] */
    double *scratch;  /* owned: of cr_laplace_large_add */
    size_t n_scratch; /* doubles of a worker */
    bool inputs;      /* this pass shows inputs that have not been counted */
    bool *failed;     /* owned: [n_workers] something was not finite */
};

uint64_t cr_curvature_bytes(const struct cr_adapter *adapter, const struct cr_parallel *parallel);

/* Errors: CR_E_MEMORY. */
cr_status cr_curvature_init(struct cr_curvature *c, struct cr_laplace_set *set, const struct cr_adapter *adapter,
                            const struct cr_parallel *parallel, struct cr_error *err);
void cr_curvature_deinit(struct cr_curvature *c); /* zeroed: no effect */

cr_engine_view_fn cr_curvature_view; /* ctx: struct cr_curvature */

/* Ends the gathering over n examples: the inputs become means, and the factors are made. Errors: CR_E_DIVERGED. */
cr_status cr_curvature_finish(struct cr_curvature *c, uint64_t n_examples, struct cr_error *err);

#endif
