/* projection: the gradient of one projection y = W x + s B (A drop(x)). Private to runtime/model.
 *
 *   V = s B^T dY,  dX = W^T dY + mask * (A^T V),  dA = V X^T,  dB^T = U dY^T      (kernels/lowrank)
 *
 * In three steps: cr_projection_reduce in a phase over token blocks; then cr_projection_add_dx and _add_grads in one
 * phase over features; with dropout, cr_projection_add_masked over token blocks in the phase after that.
 */
#ifndef CR_MODEL_PROJECTION_H
#define CR_MODEL_PROJECTION_H

#include "runtime/model/engine_internal.h"

struct grad_in {
    uint32_t layer;
    enum cr_proj proj;
    const float *dy;     /* f32 [n_out]; NULL: only the operand exists */
    size_t dy_stride;    /* floats */
    const void *dy_op;   /* the same as operand */
    size_t dy_op_stride; /* bytes */
    const void *x;       /* operand [n_in] that the forward pass multiplied */
    const struct layer_state *state;
    const struct token_set *set;
};

/* Gradient of one matrix, A or B, of every member. */
struct grad_job {
    const struct grad_in *in;
    bool of_b;
};
job_fn cr_job_grad; /* features [begin, end) of n_in (A) or n_out (B) */

struct grad_pair {
    struct grad_job a, b;
};

/* Sum of up to three products dX += W^T dY into one output. */
struct dx_job {
    struct cr_qgemm_args gemm[3];
    size_t n;
};

/* V from dY, token blocks [begin, end). Nothing to do without an adapter; so with all below. */
void cr_projection_reduce(struct cr_engine *e, const struct grad_in *in, size_t begin, size_t end, void *scratch);

/* Arguments of a gradient over token blocks [begin, end) of one part; false when its member has no adapter here. */
bool cr_projection_grad(const struct cr_engine *e, const struct grad_job *job, const struct token_part *part,
                        struct cr_lowrank_args *args);

/* Runs it for features [begin, end), and for A the gradient of the noise beside it. */
void cr_projection_run_grad(struct cr_engine *e, const struct grad_job *job, const struct token_part *part,
                            const struct cr_lowrank_args *args, size_t begin, size_t end, void *scratch);

/* Adds the jobs of dA, of dB, or both to the phase. `pair` and `in` must live until the phase has run. */
void cr_projection_add_grad_a(struct cr_engine *e, const struct grad_in *in, struct grad_pair *pair);
void cr_projection_add_grad_b(struct cr_engine *e, const struct grad_in *in, struct grad_pair *pair);
void cr_projection_add_grads(struct cr_engine *e, const struct grad_in *in, struct grad_pair *pair);

/* Appends W^T dY (+ A^T V of the members without a mask between) to the sum that cr_job_dx computes. */
void cr_projection_add_dx(struct cr_engine *e, struct dx_job *job, const struct grad_in *in, float *y, size_t y_stride);
job_fn cr_job_dx;

/* Members with dropout: y += mask * (A^T V); with noise: what that adds to dX; token blocks [begin, end). */
void cr_projection_add_masked(struct cr_engine *e, const struct grad_in *in, float *y, size_t y_stride, size_t begin,
                              size_t end, void *scratch);

/* Whether the adapters of any member of this pass add to dX apart from the products: a mask or noise. */
bool cr_projection_drops(const struct cr_engine *e);

/* The operand of an f32 gradient: `op`, or x itself on f32 tiers. */
const void *cr_projection_operand(const struct cr_engine *e, const float *x, const void *op);

#endif
