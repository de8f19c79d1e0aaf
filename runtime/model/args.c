/* Arguments of the kernels, filled from the engine: what forward and backward have in common. */
#include <string.h>

#include "runtime/model/engine_internal.h"

const struct cr_lora *cr_engine_lora(const struct cr_engine *e, uint32_t layer, enum cr_proj proj)
{
    if (e->options.lora == NULL) {
        return NULL;
    }
    const struct cr_lora *lora = &e->options.lora[layer * CR_N_PROJ + (uint32_t)proj];
    return lora->rank > 0 ? lora : NULL;
}

size_t cr_engine_operand_bytes(const struct cr_engine *e, size_t features)
{
    return cr_tl16_bytes(e->xt, features);
}

struct cr_lowrank_args cr_engine_lowrank(const struct cr_engine *e, const struct cr_lora *lora,
                                         const struct token_set *set)
{
    double keep = 65536.0 * (1.0 - e->noise.dropout);
    struct cr_lowrank_args args = {
        .rank = lora->rank, .u_stride = (size_t)lora->rank * CR_LANES, .n_blocks = set->n_blocks, .scale = lora->scale};
    args.dropout = (struct cr_dropout){.keep16 = e->noise.dropout > 0 ? (uint32_t)(keep + 0.5) : 65536,
                                       .key = {(uint32_t)e->noise.seed, lora->tensor_id},
                                       .step = e->noise.step,
                                       .position = set->pos,
                                       .example = set->example};
    if (args.dropout.keep16 == 0) {
        args.dropout.keep16 = 1;
    }
    return args;
}

struct cr_qgemm_args cr_engine_gemm(const struct cr_engine *e, uint32_t layer, enum cr_proj proj, const void *x,
                                    const struct layer_state *state, const struct token_set *set)
{
    const struct cr_layer *weights = &e->model->layers[layer];
    const struct cr_lora *lora = cr_engine_lora(e, layer, proj);
    struct cr_qgemm_args args = {.w = weights->proj[proj],
                                 .x = x,
                                 .x_stride = cr_engine_operand_bytes(e, weights->proj[proj].n_cols),
                                 .n_blocks = set->n_blocks,
                                 .bias = weights->bias[proj]};
    if (lora != NULL) {
        args.p = lora->b;
        args.p_os = lora->rank;
        args.p_rs = 1;
        args.u = state->lora_u[proj];
        args.u_stride = (size_t)lora->rank * CR_LANES;
        args.rank = lora->rank;
    }
    return args;
}

struct cr_norm_args cr_engine_norm(const struct cr_engine *e, const void *x, enum cr_xtype x_type, const float *w,
                                   float *rstd)
{
    return (struct cr_norm_args){.x = x,
                                 .x_stride = cr_tl16_bytes(x_type, e->embd),
                                 .x_type = x_type,
                                 .w = w,
                                 .eps = e->model->config.norm_eps,
                                 .n_features = e->embd,
                                 .y = e->xn,
                                 .y_stride = cr_engine_operand_bytes(e, e->embd),
                                 .y_type = e->xt,
                                 .rstd = rstd};
}

struct cr_attention_args cr_engine_attention(const struct cr_engine *e, const struct layer_state *state)
{
    const struct cr_model_config *config = &e->model->config;
    size_t stride = (e->q + 2 * e->kv) * CR_LANES;
    return (struct cr_attention_args){.q = state->qkv,
                                      .k = state->qkv + e->q * CR_LANES,
                                      .v = state->qkv + (e->q + e->kv) * CR_LANES,
                                      .q_stride = stride,
                                      .kv_stride = stride,
                                      .o = e->o32,
                                      .o_stride = e->q * CR_LANES,
                                      .lse = state->lse,
                                      .seg = e->batch->seg,
                                      .n_seg = e->batch->n_seg,
                                      .n_heads = config->n_heads,
                                      .n_kv = config->n_kv,
                                      .head_dim = config->head_dim,
                                      .scale = 1.0f / __builtin_sqrtf((float)config->head_dim),
                                      .f32_scores = true};
}

void cr_engine_rotate(struct cr_engine *e, float *qkv, bool inverse, size_t begin, size_t end)
{
    const struct cr_model_config *config = &e->model->config;
    struct cr_rope_args args = {.x = qkv,
                                .x_stride = (e->q + 2 * e->kv) * CR_LANES,
                                .n_heads = config->n_heads,
                                .head_dim = config->head_dim,
                                .n_rot = config->n_rot,
                                .style = config->rope_style,
                                .pos = e->batch->pos,
                                .table = e->rope_table,
                                .inverse = inverse};
    e->rope.apply(&args, begin, end);
    args.x = qkv + e->q * CR_LANES;
    args.n_heads = config->n_kv;
    e->rope.apply(&args, begin, end);
}

void cr_engine_to_operand(struct cr_engine *e, float *x, void *op, size_t features, size_t begin, size_t end)
{
    struct cr_cast_args cast = {x, features * CR_LANES, op, cr_engine_operand_bytes(e, features), features};
    if (e->xt == CR_X_BF16) {
        e->cast.to_bf16(&cast, begin, end);
    } else if (op != NULL) {
        memcpy((float *)op + begin * cast.f32_stride, x + begin * cast.f32_stride,
               (end - begin) * cast.f32_stride * sizeof(float));
    }
}

void cr_engine_from_operand(struct cr_engine *e, void *op, float *x, size_t features, size_t begin, size_t end)
{
    struct cr_cast_args cast = {x, features * CR_LANES, op, cr_engine_operand_bytes(e, features), features};
    if (e->xt == CR_X_BF16) {
        e->cast.from_bf16(&cast, begin, end);
    } else {
        memcpy(x + begin * cast.f32_stride, (const float *)op + begin * cast.f32_stride,
               (end - begin) * cast.f32_stride * sizeof(float));
    }
}
