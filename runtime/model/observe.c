/* Showing what the matrices of an adapter see: their inputs on the way forward, their gradients on the way back. */
#include "runtime/model/engine_internal.h"
#include "runtime/model/projection.h"

void cr_engine_observe(struct cr_engine *engine, cr_engine_view_fn *fn, void *ctx)
{
    engine->view = fn;
    engine->view_ctx = ctx;
}

static struct cr_engine_view view_of(const struct cr_engine *e, uint32_t layer, enum cr_proj proj,
                                     const struct token_set *set)
{
    return (struct cr_engine_view){.layer = layer,
                                   .proj = proj,
                                   .rank = (uint32_t)cr_engine_rank(e, layer, proj),
                                   .narrow_stride = cr_engine_rank(e, layer, proj) * CR_LANES,
                                   .n_blocks = set->n_blocks,
                                   .real = set == &e->rows ? e->row_of : set->example};
}

/* Layers that keep their state do so exactly once a pass: when they will not be run again. */
void cr_observe_inputs(struct cr_engine *e, uint32_t layer, const enum cr_proj *projs, size_t n_projs, const void *x,
                       size_t n_features, const struct layer_state *state, const struct token_set *set)
{
    struct cr_engine_view views[CR_N_PROJ];
    size_t n = 0;
    for (size_t i = 0; i < n_projs && e->view != NULL && e->keep; i++) {
        if (cr_engine_rank(e, layer, projs[i]) > 0) {
            struct cr_engine_view *view = &views[n++];
            *view = view_of(e, layer, projs[i], set);
            view->wide = x;
            view->type = e->xt;
            view->wide_stride = cr_engine_operand_bytes(e, n_features);
            view->n_wide = n_features;
            view->narrow = state->lora_u[projs[i]];
        }
    }
    if (n > 0) {
        e->view(e->view_ctx, views, n);
    }
}

void cr_observe_gradients(struct cr_engine *e, const struct grad_in *in, size_t n_in)
{
    struct cr_engine_view views[CR_N_PROJ];
    size_t n = 0;
    for (size_t i = 0; i < n_in && e->view != NULL; i++) {
        if (cr_engine_rank(e, in[i].layer, in[i].proj) > 0) {
            struct cr_engine_view *view = &views[n++];
            *view = view_of(e, in[i].layer, in[i].proj, in[i].set);
            view->gradient = true;
            view->wide = in[i].dy != NULL ? in[i].dy : in[i].dy_op;
            view->type = in[i].dy != NULL ? CR_X_F32 : e->xt;
            view->wide_stride = in[i].dy != NULL ? in[i].dy_stride * sizeof(float) : in[i].dy_op_stride;
            view->n_wide = e->model->layers[in[i].layer].proj[in[i].proj].n_rows;
            view->narrow = e->lora_v[in[i].proj];
        }
    }
    if (n > 0) {
        e->view(e->view_ctx, views, n);
    }
}
