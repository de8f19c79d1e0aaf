/* rope: rotary position embedding in place (Su et al. 2021, eq. 34), and its inverse for the backward pass.
 *
 * For every head and pair j < n_rot/2 of features (a, b): (a, b) <- (a cos - b sin, a sin + b cos) with the angle of
 * (pos[t], j) from `table`. NORM pairs features (2j, 2j+1), NEOX (j, j + n_rot/2); features >= n_rot pass.
 *
 *   x      TL16 f32 with n_heads * head_dim features, in place
 *   pos    [n_blocks * 16] position of each token
 *   table  [max_pos][n_rot/2][2] cos, sin
 * Range: token blocks. Exact to two products and one sum in f32. Same bits on every tier.
 */
#ifndef CREDENCE_KERNELS_ROPE_H
#define CREDENCE_KERNELS_ROPE_H

#include "credence/cpu.h"
#include "credence/kernels/tl16.h"

#ifdef __cplusplus
extern "C" {
#endif

enum cr_rope_style { CR_ROPE_NORM = 0, CR_ROPE_NEOX = 1 };

struct cr_rope_args {
    float *x;
    size_t x_stride; /* floats between token blocks */
    size_t n_heads, head_dim, n_rot;
    enum cr_rope_style style;
    const uint32_t *pos;
    const float *table;
    int inverse; /* 1: rotate by minus the angle */
};

typedef void cr_rope_fn(const struct cr_rope_args *args, size_t begin, size_t end);

struct cr_rope_ops {
    cr_rope_fn *apply;
};

CR_API cr_status cr_rope_ops_init(struct cr_rope_ops *ops, enum cr_tier tier);

/* Fills table [max_pos][n_rot/2][2]: angle = pos * freq_scale * base^(-2j/n_rot) / factors[j] (factors NULL = 1),
 * evaluated in double with this library's own functions and rounded once to f32. */
CR_API void cr_rope_table(float *table, size_t max_pos, size_t n_rot, double base, double freq_scale,
                          const float *factors);

/* Checked entries: the call when the arguments are sound, else CR_E_USAGE, a message and nothing touched. */
CR_API cr_status cr_rope_apply_checked(const struct cr_rope_ops *ops, const struct cr_rope_args *args, size_t begin,
                                       size_t end, struct cr_error *err);

#ifdef __cplusplus
}
#endif
#endif
