/* engine: passes of packed token batches through a model with adapters, forward and backward.
 *
 * All memory is planned when the engine is made; a pass allocates nothing. Per-row results are the same bits for any
 * packing, thread count and backend; gradient sums for any thread count and backend.
 *
 * Several adapters, the members, may share the passes over the frozen weights: an ensemble, draws of a posterior,
 * tasks. A batch says which of its token blocks are whose (its parts). Row results, losses and gradients of a member
 * are the same bits as if its part were a batch by itself.
 *
 * Tokens that the examples of a part begin with may be computed once for all of them (n_lead of a batch): rows, losses
 * and gradients are those of whole examples but for rounding. No dropout, flipout or observer then.
 *
 * Every sequence may see a prefix of its own (prefix.h), whose gradients are added to those of the vertices in the
 * order of the sequences; the examples of a part that share tokens see the one of its first.
 */
#ifndef CR_MODEL_ENGINE_H
#define CR_MODEL_ENGINE_H

#include "credence/parallel.h"
#include "kernels/lowrank/lora.h"
#include "runtime/core/error.h"
#include "runtime/core/host.h"
#include "runtime/core/token_batch.h"
#include "runtime/model/model.h"
#include "runtime/model/prefix.h"

struct cr_engine;

/* Label rows of a member's own, [n_labels][n_embd]. */
struct cr_label_rows {
    const float *rows; /* NULL: the model's */
    float *grads;      /* added to; needed in training where there are rows */
};

struct cr_engine_options {
    const struct cr_model *model; /* borrowed while the engine lives */
    const struct cr_lora *lora;   /* [n_members][n_layers * CR_N_PROJ], NULL = base alone; borrowed; read by each pass:
                                   * ranks may shrink later; grads needed when `train` */
    uint32_t n_members;           /* 0 and 1: one adapter */
    const struct cr_parallel *parallel; /* borrowed */
    const struct cr_host *host;         /* asked between layers whether to stop; NULL = never; borrowed */
    enum cr_tier tier;
    size_t max_tokens;        /* capacity of a batch, multiple of 16 */
    size_t max_seq;           /* longest sequence */
    const int32_t *label_ids; /* classification: tokens of the labels; NULL = texts */
    uint32_t n_labels;
    const struct cr_label_rows *own_rows; /* [n_members], for n_labels or more; NULL: the model's; borrowed; read by
                                           * each pass; not with a prefix */
    const struct cr_prefix *prefix; /* that every sequence sees; NULL: none; borrowed; read by each pass; label rows of
                                     * its own for n_labels or more, or none */
    size_t max_lead;                /* largest n_lead of a batch */
    size_t max_prefixes;            /* sequences of a batch that see prefix or lead */
    bool train;
    bool flipout;   /* room for noise with signs (struct cr_lora) */
    bool recompute; /* keep only layer inputs and recompute each layer in the backward pass */
};

/* Bytes that cr_engine_create will allocate. */
size_t cr_engine_bytes(const struct cr_engine_options *options);

/* Returns owned. Errors: CR_E_MEMORY. */
cr_status cr_engine_create(const struct cr_engine_options *options, struct cr_engine **out, struct cr_error *err);
void cr_engine_destroy(struct cr_engine *engine);

struct cr_engine_noise {
    double dropout; /* 0 = off */
    uint64_t seed;
    uint32_t step; /* optimiser step: part of the mask's counter */
    bool flipout;  /* lora->noise acts, its signs keyed by seed and step; in an engine made for it, without dropout */
};

/* Forward and backward of one micro-batch: adds the gradient of sum_rows weight * nll to the lora's grad_a, grad_b and
 * the prefix's grads, and that sum to loss, both member by member. noise, loss: [n_members]. Classification batches use
 * the restricted softmax over the first row_choices labels. Errors of every pass: CR_E_USAGE for a batch that was not
 * planned for, CR_E_STOPPED when the host wants the work to end; gradients and loss are then of no use. */
cr_status cr_engine_train(struct cr_engine *engine, const struct cr_token_batch *batch,
                          const struct cr_engine_noise *noise, double *loss, struct cr_error *err);

/* Dropout of the forward-only passes that follow, [n_members]: off until set. */
void cr_engine_dropout(struct cr_engine *engine, const struct cr_engine_noise *noise);

/* Forward only. logits [n_rows][n_labels] of every loss row. */
cr_status cr_engine_label_logits(struct cr_engine *engine, const struct cr_token_batch *batch, float *logits,
                                 struct cr_error *err);

/* Forward only. nll [n_rows] of the target token of every loss row over the whole vocabulary. */
cr_status cr_engine_token_nll(struct cr_engine *engine, const struct cr_token_batch *batch, float *nll,
                              struct cr_error *err);

/* Forward only, with no prefix seen: the keys and values of the first n_rows tokens of the batch, which are of its
 * first sequence, become a vertex of options.prefix. The batch has one loss row or more, which do not matter. */
cr_status cr_engine_fill_prefix(struct cr_engine *engine, uint32_t vertex, const struct cr_token_batch *batch,
                                struct cr_error *err);

/* What the matrices of an adapted projection y = W x + B U, U = s A x, see in a training pass of one adapter, 16 tokens
 * a block as TL16: on the way forward x and U; on the way back dY and V = s B^T dY, the gradient at A x. */
struct cr_engine_view {
    uint32_t layer;
    enum cr_proj proj;
    bool gradient;
    const void *wide; /* x or dY: n_wide features of `type`, blocks wide_stride bytes apart */
    enum cr_xtype type;
    size_t wide_stride, n_wide;
    const float *narrow; /* U or V: rank features, blocks narrow_stride floats apart */
    size_t narrow_stride;
    uint32_t rank;
    size_t n_blocks;
    const uint32_t *real; /* [16 n_blocks] UINT32_MAX where a lane is a pad */
};

/* Called between phases for the projections that see the same tokens, once each and direction, layer by layer; may use
 * the engine's `parallel`. Only the loss rows of o and the feed-forward half of the last layer are seen. fn NULL: off.
 */
typedef void cr_engine_view_fn(void *ctx, const struct cr_engine_view *views, size_t n);
void cr_engine_observe(struct cr_engine *engine, cr_engine_view_fn *fn, void *ctx);

/* One operation, seconds of the clock; names static. For traces and --verbose time. fn NULL: off. */
struct cr_engine_span {
    const char *name;
    double start_s, seconds;
    int layer;
};
typedef void cr_engine_trace_fn(void *ctx, const struct cr_engine_span *span);
void cr_engine_trace(struct cr_engine *engine, cr_engine_trace_fn *fn, void *ctx);

#endif
