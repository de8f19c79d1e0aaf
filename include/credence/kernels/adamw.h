/* adamw: one fused step of decoupled weight decay Adam (Loshchilov and Hutter 2019, algorithm 2).
 *
 *   g <- clip * grad;  m <- b1 m + (1-b1) g;  v <- b2 v + (1-b2) g^2
 *   w <- w (1 - lr wd) - lr * (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)
 *
 * w, m, v [n] f32 in/out, grad [n] f32. No aliasing, any alignment. 1 - b and the two corrections are made in double
 * and rounded once. clip, eps, lr / (1 - b1) and 1 - lr wd are finite in f32, eps above 0 there.
 * Range: elements; begin and end multiples of CR_ADAMW_CHUNK or end == n. Elementwise: same bits for any split.
 * norm2: partial[c] = sum of grad^2 over chunk c = begin / CR_ADAMW_CHUNK ..., in double; range as above. The caller
 * adds the partials in chunk order. Tolerance: 8 * 2^-24 relative to sum |terms|. Same bits on every tier.
 */
#ifndef CREDENCE_KERNELS_ADAMW_H
#define CREDENCE_KERNELS_ADAMW_H

#include <stddef.h>
#include <stdint.h>

#include "credence/cpu.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { CR_ADAMW_CHUNK = 4096 };

struct cr_adamw_args {
    float *w, *m, *v;
    const float *grad;
    double *partial; /* norm2 only */
    double lr, beta1, beta2, eps, weight_decay, clip; /* clip: factor of grad, 1 = none */
    uint64_t t; /* number of this step, from 1 */
};

typedef void cr_adamw_fn(const struct cr_adamw_args *args, size_t begin, size_t end);

struct cr_adamw_ops {
    cr_adamw_fn *step, *norm2;
};

CR_API cr_status cr_adamw_ops_init(struct cr_adamw_ops *ops, enum cr_tier tier);

/* Checked entries: the call when the arguments are sound, else CR_E_USAGE, a message and nothing touched. `end` is not
 * checked against n. */
CR_API cr_status cr_adamw_step_checked(const struct cr_adamw_ops *ops, const struct cr_adamw_args *args, size_t begin,
                                       size_t end, struct cr_error *err);
CR_API cr_status cr_adamw_norm2_checked(const struct cr_adamw_ops *ops, const struct cr_adamw_args *args, size_t begin,
                                        size_t end, struct cr_error *err);

#ifdef __cplusplus
}
#endif
#endif
