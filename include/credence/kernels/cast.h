/* cast: f32 TL16 to and from the bf16 operand layout (round to nearest even, NaN stays a quiet NaN).
 *
 * Range: token blocks. n_features even. No aliasing: not in place. Exact. Same bits on every tier.
 */
#ifndef CREDENCE_KERNELS_CAST_H
#define CREDENCE_KERNELS_CAST_H

#include "credence/cpu.h"
#include "credence/kernels/tl16.h"

#ifdef __cplusplus
extern "C" {
#endif

struct cr_cast_args {
    float *f32;
    size_t f32_stride; /* floats between token blocks */
    uint16_t *bf16;
    size_t bf16_stride; /* bytes */
    size_t n_features;
};

typedef void cr_cast_fn(const struct cr_cast_args *args, size_t begin, size_t end);

struct cr_cast_ops {
    cr_cast_fn *to_bf16, *from_bf16;
};

CR_API cr_status cr_cast_ops_init(struct cr_cast_ops *ops, enum cr_tier tier);

/* Checked entries: the call when the arguments are sound, else CR_E_USAGE, a message and nothing touched. */
CR_API cr_status cr_cast_to_bf16_checked(const struct cr_cast_ops *ops, const struct cr_cast_args *args, size_t begin,
                                         size_t end, struct cr_error *err);
CR_API cr_status cr_cast_from_bf16_checked(const struct cr_cast_ops *ops, const struct cr_cast_args *args, size_t begin,
                                           size_t end, struct cr_error *err);

#ifdef __cplusplus
}
#endif
#endif
