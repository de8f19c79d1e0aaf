/* norm2: the sum of squares of a flat vector, chunk by chunk in order: the same bits for any number of threads. */
#ifndef CR_OPTIM_NORM2_H
#define CR_OPTIM_NORM2_H

#include "credence/kernels/adamw.h"
#include "credence/parallel.h"
#include "runtime/core/error.h"

struct cr_norm2 {
    struct cr_adamw_ops ops;
    const struct cr_parallel *parallel; /* borrowed */
    size_t n;
    double *partial; /* owned: one a chunk */
};

size_t cr_norm2_bytes(size_t n); /* that cr_norm2_init allocates */

/* For vectors of n elements. Errors: CR_E_MEMORY. */
cr_status cr_norm2_init(struct cr_norm2 *norm2, size_t n, enum cr_tier tier, const struct cr_parallel *parallel,
                        struct cr_error *err);
void cr_norm2_deinit(struct cr_norm2 *norm2); /* zeroed: no effect */

/* Sum of squares of x [n]: infinite or NaN exactly when an element is or a square overflows a double. */
double cr_norm2_of(struct cr_norm2 *norm2, const float *x);

/* What a gradient of this norm is multiplied with so that its norm is at most max_norm (0: any), as PyTorch does it. */
static inline double cr_clip_factor(double norm, double max_norm)
{
    double ratio = max_norm > 0 ? max_norm / (norm + 1e-6) : 1;
    return ratio < 1 ? ratio : 1;
}

#endif
