/* adamw: the optimiser of a flat parameter vector: its moments and the clipped step.
 *
 * Formulas in credence/kernels/adamw.h. Clipping scales the gradient by min(1, max_norm / (norm + 1e-6)), as
 * torch.nn.utils.clip_grad_norm_ does. Elementwise: every result has the same bits for any number of threads.
 *
 * The state is one block that a checkpoint stores as it is: 16 floats whose first 8 bytes are the number of steps
 * taken (u64), then m [n], then v [n].
 */
#ifndef CR_OPTIM_ADAMW_H
#define CR_OPTIM_ADAMW_H

#include <stdbool.h>

#include "credence/parallel.h"
#include "credence/kernels/adamw.h"
#include "runtime/core/error.h"

struct cr_adamw {
    struct cr_adamw_ops ops;
    const struct cr_parallel *parallel; /* borrowed */
    size_t n;
    float *state; /* owned: [16 + 2n] */
    double beta1, beta2, eps, weight_decay;
    double max_norm; /* 0 = no clipping */
};

/* Bytes that cr_adamw_init allocates for n parameters. */
size_t cr_adamw_bytes(size_t n);

/* Moments zero, beta1 0.9, beta2 0.999, eps 1e-8, no decay, no clipping. Errors: CR_E_MEMORY. */
cr_status cr_adamw_init(struct cr_adamw *adamw, size_t n, enum cr_tier tier, const struct cr_parallel *parallel,
                        struct cr_error *err);
void cr_adamw_deinit(struct cr_adamw *adamw); /* zeroed: no effect */

/* Parameters up to `end` (from the end of the group before), with a rate of their own. */
struct cr_adamw_group {
    size_t end;
    double lr;
};

/* One step of all groups with a gradient of Euclidean norm `norm` (finite): ends ascend, the last is n. */
void cr_adamw_step_groups(struct cr_adamw *adamw, float *w, const float *grad, double norm,
                          const struct cr_adamw_group *groups, size_t n_groups);

/* The same with one rate. */
void cr_adamw_step(struct cr_adamw *adamw, float *w, const float *grad, double norm, double lr);

uint64_t cr_adamw_t(const struct cr_adamw *adamw); /* steps taken */
size_t cr_adamw_state_bytes(const struct cr_adamw *adamw);

/* Puts back a stored state. Errors: CR_E_INPUT when its size is another or a moment is not finite or v negative. */
cr_status cr_adamw_restore(struct cr_adamw *adamw, const void *state, size_t n_bytes, struct cr_error *err);

/* Chunks of CR_ADAMW_CHUNK that n elements are cut into, and one call of a kernel over all of them. */
size_t cr_adamw_chunks(size_t n);
void cr_adamw_run(const struct cr_parallel *parallel, cr_adamw_fn *fn, const struct cr_adamw_args *args, size_t n);

#endif
