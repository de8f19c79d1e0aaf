/* ffn: the two products of the feed-forward half whose outputs nothing but the gated unit reads. Private to
 * runtime/model.
 *
 * An item of either job is a few features of all tokens: their products go to a tile of the worker's scratch, the gated
 * unit passes over it while it is in the second-level cache, and only operands reach memory. A quarter of the stores
 * of whole f32 buffers, none of their reads; the tile loop itself gains 3 % of peak (Zen 4, M 512, 1536 x 576).
 */
#ifndef CR_MODEL_FFN_H
#define CR_MODEL_FFN_H

#include "runtime/model/projection.h"

/* Features [begin, end) of F: g = gate x, u = up x, h = silu(g) u into e->h; g and u into the state when it is kept. */
struct gate_up_job {
    struct cr_qgemm_args gate, up; /* without y */
    const struct layer_state *state;
    const struct token_set *set;
};
job_fn cr_job_gate_up;

/* Features [begin, end) of F: dh = W_down^T dy (or what e->dh holds, `ready`), dg and du as operands, and the gradients
 * that have these features as rows or columns: A of down, B of gate, B of up. */
struct down_dx_job {
    struct dx_job dh; /* without y */
    bool ready;
    const struct layer_state *state;
    const struct token_set *set;
    struct grad_job down_a, gate_b, up_b;
    bool adapts; /* down has an adapter: its input is needed again */
};
job_fn cr_job_down_dx;

/* Bytes of a worker's tiles, behind the scratch of the kernels. */
size_t cr_ffn_tiles_bytes(const struct cr_engine *e);

#endif
