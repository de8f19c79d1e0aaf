/* engine_internal: the memory plan of an engine and the list of jobs that a phase runs. Private to runtime/model.
 *
 * Letters: E width of the residual stream, Q = n_heads * head_dim, KV = n_kv * head_dim, F feed-forward width.
 * "Operand" means TL16 of qgemm's x_type (bf16 on bf16 tiers, else f32).
 */
#ifndef CR_MODEL_ENGINE_INTERNAL_H
#define CR_MODEL_ENGINE_INTERNAL_H

#include "credence/kernels/act.h"
#include "credence/kernels/attention.h"
#include "credence/kernels/cast.h"
#include "credence/kernels/embed.h"
#include "credence/kernels/lowrank.h"
#include "credence/kernels/norm.h"
#include "credence/kernels/xent.h"
#include "runtime/model/engine.h"

/* Vocabulary rows of one step of the walk, and rows of one job among them. */
enum { CR_HEAD_CHUNK = 2048, CR_HEAD_ROWS = 128, CR_BLOCK_STEP = 2 };

/* What the backward pass of one layer needs. One set a layer, or one for all when layers are recomputed. */
struct layer_state {
    void *x1, *x2;            /* operands [E], residual stream before attention and before the feed-forward */
    float *rstd1, *rstd2;     /* [16] a block, of the stream before it was rounded */
    float *qkv;               /* [Q + 2 KV], after rope. f32: rounding it to bf16 costs gradients 5 % (see tests) */
    void *o;                  /* operand [Q], attention output */
    float *lse;               /* [n_heads] a token */
    void *g, *u;              /* operands [F] */
    float *lora_u[CR_N_PROJ]; /* [rank] s A drop(x); rank the largest of the members */
};

struct job;
typedef void job_fn(struct cr_engine *engine, const void *args, size_t begin, size_t end, void *scratch);

struct job {
    job_fn *fn;
    const void *args;
    size_t begin, end;
};

/* Token blocks [begin, end) of one member. */
struct token_part {
    uint32_t member;
    size_t begin, end;
};

/* Which tokens a projection sees: all of the batch, or (last layer after attention) the loss rows only. The rows of
 * each part begin on a block of their own, too. */
struct token_set {
    size_t n_blocks;
    const uint32_t *pos, *example;
    const struct token_part *parts; /* [n_parts] ascending, without gaps */
    size_t n_parts;
};

/* The prefixes of a pass: with options.prefix only. */
struct prefix_pass {
    struct cr_attention_prefix attention; /* over the mixtures of the layer under way; n_prefixes 0: none is seen */
    float *mixed;                         /* [max_prefixes] keys, values */
    uint32_t *of_seg;                     /* [cr_engine_max_seg]; with shared tokens only theirs see one, a part each */
    double *weights;                      /* [max_prefixes][n_layers + 1][n_vertices] */
    uint32_t *of_row;                     /* [16] a block of rows, with label rows of its own, as is the next */
    float *logits;                        /* [n_vertices * n_labels] of a row by every vertex, then their gradients */
    bool filling;                         /* the pass shows none: it makes a vertex */
    uint32_t vertex;
};

/* The shared tokens of a pass as attention sees them: one prefix a part, keys and values of the layer under way, those
 * of the learned prefix before them. */
struct lead_pass {
    struct cr_attention_prefix attention; /* n_prefixes 0: nothing is shared */
    float *kv, *grads;                    /* [n_members] keys, values */
    uint32_t *of_seg;                     /* [cr_engine_max_seg] */
};

/* Arguments of a layer's prefix jobs; attention is needed for gradients only. */
struct prefix_layer {
    uint32_t layer;
    const struct cr_attention_args *attention;
};

/* Slot of a row set that holds no row. */
#define CR_NO_ROW UINT32_MAX

struct cr_engine {
    struct cr_engine_options options;
    const struct cr_model *model;
    size_t embd, q, kv, ff; /* E, Q, KV, F */
    size_t max_blocks;
    uint32_t n_members;
    uint32_t first_layer; /* lowest adapted layer of any member: nothing below it needs a gradient */

    struct cr_qgemm_ops qgemm;
    struct cr_lowrank_ops lowrank;
    struct cr_attention_ops attention;
    struct cr_norm_ops norm;
    struct cr_rope_ops rope;
    struct cr_act_ops act;
    struct cr_cast_ops cast;
    struct cr_embed_ops embed;
    struct cr_xent_ops xent;
    enum cr_xtype xt;

    void *arena;
    float *x;                   /* [E] residual stream: each half of a layer adds to it */
    float **x_in;               /* [n_layers] its value before each layer; NULL where no layer is recomputed */
    struct layer_state *states; /* [n_layers] (all alike when only one set exists) */
    float *rope_table;
    float *label_rows; /* [n_labels][E] dequantised rows of the head */

    /* work buffers, all max_blocks long */
    void *xn;      /* operand [E] */
    float *o32;    /* [Q] */
    void *h;       /* operand [F] */
    float *x_rows; /* [E] residual stream of the last layer after attention, loss rows only */
    float *o_rows; /* [Q] */
    void *head_x;  /* final norm of the rows: operand [E] for texts, f32 [E] for labels */
    float *rstd_out;
    uint32_t *row_pos, *row_example;
    uint32_t *row_of;    /* [16] a block: row of the batch, or CR_NO_ROW in pad lanes */
    int32_t *row_target; /* [16] a block, -1 in pad lanes */
    float *row_weight, *row_m, *row_s, *row_label, *row_lse;
    float *head_z;                       /* [CR_HEAD_CHUNK] logits, or [n_labels] */
    void *head_dz;                       /* operand [CR_HEAD_CHUNK] or f32 [n_labels] */
    float *head_m, *head_s, *head_label; /* [CR_HEAD_CHUNK / CR_HEAD_ROWS] partials a token */
    float *head_mass;                    /* the same, training on texts only, as are the next two */
    double *row_sum, *row_mass;          /* [16] a block: sums of exp(z - row_m) but for the label, and as rounded */
    float *row_scale;

    /* backward only */
    float *dx;                /* [E] gradient of the residual stream */
    float *dx_rows;           /* [E] */
    float *dn;                /* [E] gradient of a normalised input */
    void *dop;                /* operand [max(E, Q + 2 KV)] */
    float *d_o, *d_o_rows;    /* [Q] */
    float *dqkv;              /* [Q + 2 KV] */
    float *dk, *dv;           /* [Q] partials a head */
    float *dh;                /* [F], with dropout only: else it lives in tiles */
    void *dg_op, *du_op;      /* operands [F] */
    float *lora_v[CR_N_PROJ]; /* [rank] s B^T dY */

    uint32_t *ranks; /* [n_layers * CR_N_PROJ] largest rank of the members, of the pass under way */
    struct token_part *all_parts, *row_parts; /* [max_blocks] */
    struct cr_qgemm_member *terms;            /* [CR_N_PROJ][max_blocks]: of the products of a phase */
    struct cr_engine_noise *forward_noise;    /* [n_members] of forward-only passes */

    struct prefix_pass prefix;
    struct lead_pass lead;

    /* the pass under way */
    const struct cr_token_batch *batch;
    const struct cr_engine_noise *noise; /* [n_members] */
    struct token_set all, rows;
    bool train;
    bool keep; /* the layer under way saves what its backward pass needs */

    struct job *jobs;
    size_t n_jobs, max_jobs;
    char *scratch; /* one stretch of scratch_bytes a worker: kernels, the tiles of ffn.c, room of flipout.c */
    size_t scratch_bytes, tiles_at, flipout_at;
    cr_engine_trace_fn *trace;
    void *trace_ctx;
    cr_engine_view_fn *view;
    void *view_ctx;
};

/* Adds jobs that cover [0, n) in stretches of `step`. args must live until the phase has run. */
void cr_phase_add(struct cr_engine *e, job_fn *fn, const void *args, size_t n, size_t step);

/* Runs all jobs added since the last run, in any order, on all workers. They must not depend on each other. */
void cr_phase_run(struct cr_engine *e, const char *name, int layer);

/* Jobs for kernels: args is the kernel's own struct. Attention takes one item at a time. */
job_fn cr_job_gemm_fwd, cr_job_attention_fwd, cr_job_attention_bwd;

/* Adapter of a member's projection, NULL when it has none. */
const struct cr_lora *cr_engine_lora(const struct cr_engine *e, uint32_t member, uint32_t layer, enum cr_proj proj);

/* Largest rank of a projection among the members; 0 when none adapts it. Looked up once a pass. */
size_t cr_engine_rank(const struct cr_engine *e, uint32_t layer, enum cr_proj proj);
void cr_engine_look_up_ranks(struct cr_engine *e);

/* Whether a mask stands before the adapters of this member in this pass. */
bool cr_engine_drops(const struct cr_engine *e, uint32_t member);

/* lowrank arguments of an adapter with everything filled that does not depend on the operation. */
struct cr_lowrank_args cr_engine_lowrank(const struct cr_engine *e, uint32_t member, uint32_t layer, enum cr_proj proj,
                                         const struct token_set *set);

/* Gives a product the low-rank terms of the members: B with U = u, or (backward) A^T with V = u of those members that
 * have no mask. They hold until the next call for this projection. */
void cr_engine_terms(const struct cr_engine *e, uint32_t layer, enum cr_proj proj, bool backward, const float *u,
                     const struct token_set *set, struct cr_qgemm_args *args);

/* prefix.c: the sequences of the batch and their weights, after cr_parts_set; nothing without a prefix. Errors:
 * CR_E_USAGE. */
cr_status cr_prefix_set(struct cr_engine *e, struct cr_error *err);
size_t cr_prefix_offset(const struct cr_engine *e); /* position of a sequence's first token */
const struct cr_attention_prefix *cr_prefix_attention(const struct cr_engine *e); /* NULL: none */
bool cr_prefix_own_head(const struct cr_engine *e);                               /* label rows are vertices, too */

/* Sequences of a batch: those that see a prefix or lead, and lead and pads of each part. */
static inline size_t cr_engine_max_seg(const struct cr_engine *e)
{
    return e->options.max_prefixes + 2 * e->n_members;
}

/* Jobs of the phase before attention, forward and backward; and of any phase after it, backward. */
void cr_prefix_add_mix(struct cr_engine *e, const struct prefix_layer *layer);
void cr_prefix_add_grads(struct cr_engine *e, const struct prefix_layer *layer);

/* lead.c: the parts of the batch, after cr_parts_set; nothing without shared tokens. Errors: CR_E_USAGE. */
cr_status cr_lead_set(struct cr_engine *e, struct cr_error *err);
/* What attention sees of them; NULL: nothing. */
const struct cr_attention_prefix *cr_lead_attention(const struct cr_engine *e);
/* Makes a layer's keys and values, after rotation, what attention sees. */
void cr_lead_keep(struct cr_engine *e, const struct layer_state *state);
/* Sums the gradients of the shared keys and values; then they are added to dqkv, before rotation back. */
void cr_lead_sum(struct cr_engine *e, uint32_t layer, const struct cr_attention_args *attention);
void cr_lead_pass_back(struct cr_engine *e, size_t begin, size_t end);
/* Adds what the sequences of a part passed back to the learned prefix, features [begin, end), to its gradient: dk, dv
 * TL16 of its rows. Nothing without shared tokens. */
void cr_lead_add_prefix(const struct cr_engine *e, size_t part, size_t begin, size_t end, float *dk, float *dv);

/* prefix.logits -> head_z, and head_dz -> prefix.logits. */
void cr_prefix_mix_logits(struct cr_engine *e);
void cr_prefix_spread_logits(struct cr_engine *e);

/* Keys and values of the first tokens become the vertex that is filled. */
void cr_prefix_keep(struct cr_engine *e, uint32_t layer, const struct layer_state *state);

/* parts.c: checks the parts of a batch and sets e->batch, e->all, e->rows up. Errors: CR_E_USAGE. */
cr_status cr_parts_set(struct cr_engine *e, const struct cr_token_batch *batch, struct cr_error *err);

/* Product of projection `proj` (with its adapter terms, input already reduced in state->lora_u). */
struct cr_qgemm_args cr_engine_gemm(const struct cr_engine *e, uint32_t layer, enum cr_proj proj, const void *x,
                                    const struct layer_state *state, const struct token_set *set);

/* Bytes of one token block of an operand. */
size_t cr_engine_operand_bytes(const struct cr_engine *e, size_t features);

/* norm arguments for the residual stream x or what was kept of it, with xn as output. */
struct cr_norm_args cr_engine_norm(const struct cr_engine *e, const void *x, enum cr_xtype x_type, const float *w,
                                   float *rstd);

/* attention arguments of the forward pass, on state->qkv and o32. */
struct cr_attention_args cr_engine_attention(const struct cr_engine *e, const struct layer_state *state);

/* Rotates the q and k parts of a [Q + 2 KV] buffer. */
void cr_engine_rotate(struct cr_engine *e, float *qkv, bool inverse, size_t begin, size_t end);

/* Between f32 activations and operand memory, token blocks [begin, end). On f32 tiers a copy; op NULL: none is kept. */
void cr_engine_to_operand(struct cr_engine *e, float *x, void *op, size_t features, size_t begin, size_t end);
void cr_engine_from_operand(struct cr_engine *e, void *op, float *x, size_t features, size_t begin, size_t end);

/* Positions of the rope table. */
static inline size_t cr_engine_positions(const struct cr_engine *e)
{
    return e->options.max_seq + (e->options.prefix != NULL ? e->options.prefix->n_rows : 0);
}

/* plan.c: places everything in the arena at `base` and returns its size; with base NULL it only counts. */
size_t cr_engine_plan(struct cr_engine *e, void *base);

/* A pass (cr_forward, cr_backward) is false when the host stopped it between two layers. */

/* observe.c: nothing without an observer. */
struct grad_in;
void cr_observe_inputs(struct cr_engine *e, uint32_t layer, const enum cr_proj *projs, size_t n_projs, const void *x,
                       size_t n_features, const struct layer_state *state, const struct token_set *set);
void cr_observe_gradients(struct cr_engine *e, const struct grad_in *in, size_t n_in);

/* forward.c: embedding to the last layer's loss rows (e->x_rows); and one layer again from x_in[layer]. */
bool cr_forward(struct cr_engine *e);
void cr_forward_again(struct cr_engine *e, uint32_t layer);

/* backward.c: from e->dx_rows (gradient of x_rows) down to the first adapted layer. */
bool cr_backward(struct cr_engine *e);

/* head.c */
size_t cr_head_stride_bytes(const struct cr_engine *e);     /* of head_x */
void cr_head_norm_bwd(struct cr_engine *e);                 /* gradient of the final norm: dn -> dx_rows */
void cr_head_norm(struct cr_engine *e);                     /* x_rows -> head_x */
void cr_head_label_logits(struct cr_engine *e);             /* head_x -> head_z [n_labels] */
void cr_head_label_loss(struct cr_engine *e, double *loss); /* logits and dx_rows; adds to loss [n_members] */

/* head_text.c */
void cr_head_token_stats(struct cr_engine *e);              /* head_x -> row_lse, row_label */
void cr_head_token_loss(struct cr_engine *e, double *loss); /* head_x -> dx_rows; adds to loss [n_members] */
size_t cr_head_scratch_bytes(const struct cr_engine *e, size_t gemm_bytes); /* of a worker in cr_head_token_loss */

#endif
