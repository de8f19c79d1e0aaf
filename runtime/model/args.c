/* Arguments of the kernels, filled from the engine: what forward and backward have in common. */
#include <string.h>

#include "runtime/model/engine_internal.h"

const struct cr_lora *cr_engine_lora(const struct cr_engine *e, uint32_t member, uint32_t layer, enum cr_proj proj)
{
    if (e->options.lora == NULL) {
        return NULL;
    }
    size_t slots = (size_t)e->model->config.n_layers * CR_N_PROJ;
    const struct cr_lora *lora = &e->options.lora[member * slots + layer * CR_N_PROJ + (uint32_t)proj];
    return lora->rank > 0 ? lora : NULL;
}

static uint32_t largest_rank(const struct cr_engine *e, uint32_t layer, enum cr_proj proj)
{
    uint32_t rank = 0;
    for (uint32_t member = 0; member < e->n_members; member++) {
        const struct cr_lora *lora = cr_engine_lora(e, member, layer, proj);
        rank = lora != NULL && lora->rank > rank ? lora->rank : rank;
    }
    return rank;
}

size_t cr_engine_rank(const struct cr_engine *e, uint32_t layer, enum cr_proj proj)
{
    return e->ranks != NULL ? e->ranks[layer * CR_N_PROJ + (uint32_t)proj] : largest_rank(e, layer, proj);
}

void cr_engine_look_up_ranks(struct cr_engine *e)
{
    for (uint32_t i = 0; i < e->model->config.n_layers * CR_N_PROJ; i++) {
        e->ranks[i] = largest_rank(e, i / CR_N_PROJ, (enum cr_proj)(i % CR_N_PROJ));
    }
}

bool cr_engine_drops(const struct cr_engine *e, uint32_t member)
{
    return e->noise[member].dropout > 0;
}

size_t cr_engine_operand_bytes(const struct cr_engine *e, size_t features)
{
    return cr_tl16_bytes(e->xt, features);
}

struct cr_lowrank_args cr_engine_lowrank(const struct cr_engine *e, uint32_t member, uint32_t layer, enum cr_proj proj,
                                         const struct token_set *set)
{
    const struct cr_engine_noise *noise = &e->noise[member];
    const struct cr_lora *lora = cr_engine_lora(e, member, layer, proj);
    double keep = 65536.0 * (1.0 - noise->dropout);
    struct cr_lowrank_args args = {.rank = lora->rank,
                                   .u_stride = cr_engine_rank(e, layer, proj) * CR_LANES,
                                   .n_blocks = set->n_blocks,
                                   .scale = lora->scale};
    args.dropout = (struct cr_dropout){.keep16 = noise->dropout > 0 ? (uint32_t)(keep + 0.5) : 65536,
                                       .key = {(uint32_t)noise->seed, lora->tensor_id},
                                       .step = noise->step,
                                       .position = set->pos,
                                       .example = set->example};
    if (args.dropout.keep16 == 0) {
        args.dropout.keep16 = 1;
    }
    return args;
}

void cr_engine_terms(const struct cr_engine *e, uint32_t layer, enum cr_proj proj, bool backward, const float *u,
                     const struct token_set *set, struct cr_qgemm_args *args)
{
    struct cr_qgemm_member *terms = e->terms + (size_t)proj * e->max_blocks;
    size_t n = 0;
    for (size_t i = 0; i < set->n_parts; i++) {
        const struct token_part *part = &set->parts[i];
        const struct cr_lora *lora = cr_engine_lora(e, part->member, layer, proj);
        if (lora != NULL && !(backward && cr_engine_drops(e, part->member))) {
            struct cr_lora_member member = {*lora, part->begin, part->end};
            cr_lora_terms(&member, 1, backward, &terms[n++]);
        }
    }
    if (n == 0) {
        return;
    }
    args->u = u;
    args->u_stride = cr_engine_rank(e, layer, proj) * CR_LANES;
    if (set->n_parts == 1) { /* without a walk over members */
        args->p = terms->p;
        args->p_os = terms->p_os;
        args->p_rs = terms->p_rs;
        args->rank = terms->rank;
        return;
    }
    args->members = terms;
    args->n_members = n;
}

struct cr_qgemm_args cr_engine_gemm(const struct cr_engine *e, uint32_t layer, enum cr_proj proj, const void *x,
                                    const struct layer_state *state, const struct token_set *set)
{
    const struct cr_layer *weights = &e->model->layers[layer];
    struct cr_qgemm_args args = {.w = weights->proj[proj],
                                 .x = x,
                                 .x_stride = cr_engine_operand_bytes(e, weights->proj[proj].n_cols),
                                 .n_blocks = set->n_blocks,
                                 .bias = weights->bias[proj]};
    cr_engine_terms(e, layer, proj, false, state->lora_u[proj], set, &args);
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
    const struct cr_attention_prefix *shared = cr_lead_attention(e);
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
                                      .f32_scores = true,
                                      .prefix = shared != NULL ? shared : cr_prefix_attention(e)};
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
                                .table = e->rope_table + cr_prefix_offset(e) * config->n_rot,
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
