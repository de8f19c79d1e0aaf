/* Shared tokens within a pass: each part begins with them, as a sequence of their own on blocks of its own; the other
 * sequences of the part see their keys and values in every layer as attention sees a prefix, and what they pass back is
 * added to the gradient that the shared tokens' own queries make.
 */
#include <string.h>

#include "runtime/model/engine_internal.h"

const struct cr_attention_prefix *cr_lead_attention(const struct cr_engine *e)
{
    return e->lead.attention.n_prefixes > 0 ? &e->lead.attention : NULL;
}

/* Floats of the keys of one part, or of the values. */
static size_t tensor(const struct cr_engine *e)
{
    return cr_tl16_blocks(e->lead.attention.n_rows) * e->kv * CR_LANES;
}

static cr_status set_sequences(struct cr_engine *e, struct cr_error *err)
{
    const struct cr_token_batch *batch = e->batch;
    size_t part = 0;
    for (size_t s = 0; s < batch->n_seg; s++) {
        size_t first = batch->seg[s];
        while (e->all.parts[part].end * CR_LANES <= first) {
            part++;
        }
        bool shared = first == e->all.parts[part].begin * CR_LANES, pads = batch->example[first] == UINT32_MAX;
        if (shared && batch->seg[s + 1] - first != batch->n_lead) {
            return cr_fail(err, CR_E_USAGE,
                           "engine: part %zu of the batch begins with a sequence of %zu tokens, not %zu", part,
                           batch->seg[s + 1] - first, batch->n_lead);
        }
        e->lead.of_seg[s] = shared || pads ? CR_ATTENTION_NO_PREFIX : (uint32_t)part;
    }
    return CR_OK;
}

cr_status cr_lead_set(struct cr_engine *e, struct cr_error *err)
{
    const struct cr_token_batch *batch = e->batch;
    struct cr_attention_prefix *a = &e->lead.attention;
    a->n_prefixes = 0;
    if (batch->n_lead == 0) {
        return CR_OK;
    }
    if (batch->n_lead > e->options.max_lead || batch->n_seg > cr_engine_max_seg(e) || e->options.prefix != NULL) {
        return cr_fail(err, CR_E_USAGE, "engine: %zu shared tokens and %zu sequences, planned for %zu and %zu%s",
                       batch->n_lead, batch->n_seg, e->options.max_lead, cr_engine_max_seg(e),
                       e->options.prefix != NULL ? ", without a prefix" : "");
    }
    a->n_rows = batch->n_lead;
    a->n_prefixes = e->all.n_parts;
    a->of_seg = e->lead.of_seg;
    a->stride = 2 * tensor(e);
    a->k = e->lead.kv;
    a->v = e->lead.kv + tensor(e);
    a->dk = e->lead.grads;
    a->dv = e->lead.grads != NULL ? e->lead.grads + tensor(e) : NULL;
    return set_sequences(e, err);
}

void cr_lead_keep(struct cr_engine *e, const struct layer_state *state)
{
    const struct cr_attention_prefix *a = &e->lead.attention;
    size_t from_stride = (e->q + 2 * e->kv) * CR_LANES, lines = e->kv * CR_LANES;
    for (size_t i = 0; i < a->n_prefixes; i++) {
        for (size_t b = 0; b < cr_tl16_blocks(a->n_rows); b++) {
            const float *from = state->qkv + (e->all.parts[i].begin + b) * from_stride + e->q * CR_LANES;
            float *to = e->lead.kv + i * a->stride + b * lines;
            memcpy(to, from, lines * sizeof *to);
            memcpy(to + tensor(e), from + lines, lines * sizeof *to);
        }
    }
}

/* Key-value heads [begin, end), counted through the parts. */
static void job_sum(struct cr_engine *e, const void *arg, size_t begin, size_t end, void *scratch)
{
    const struct cr_attention_args *args = arg;
    size_t head = args->head_dim * CR_LANES;
    for (size_t i = begin; i < end; i++) {
        float *grads = e->lead.grads + i / args->n_kv * e->lead.attention.stride + i % args->n_kv * head;
        for (size_t b = 0; b < cr_tl16_blocks(e->lead.attention.n_rows); b++) {
            memset(grads + b * e->kv * CR_LANES, 0, head * sizeof *grads);
            memset(grads + tensor(e) + b * e->kv * CR_LANES, 0, head * sizeof *grads);
        }
    }
    e->attention.sum_prefix(args, begin, end, scratch);
}

void cr_lead_sum(struct cr_engine *e, uint32_t layer, const struct cr_attention_args *attention)
{
    if (cr_lead_attention(e) != NULL) {
        cr_phase_add(e, job_sum, attention, e->lead.attention.n_prefixes * attention->n_kv, 1);
        cr_phase_run(e, "lead_bwd", (int)layer);
    }
}

void cr_lead_pass_back(struct cr_engine *e, size_t begin, size_t end)
{
    const struct cr_attention_prefix *a = &e->lead.attention;
    size_t to_stride = (e->q + 2 * e->kv) * CR_LANES, lines = e->kv * CR_LANES;
    for (size_t i = 0; i < a->n_prefixes; i++) {
        for (size_t b = 0; b < cr_tl16_blocks(a->n_rows); b++) {
            size_t block = e->all.parts[i].begin + b;
            if (block < begin || block >= end) {
                continue;
            }
            float *to = e->dqkv + block * to_stride + e->q * CR_LANES;
            const float *from = e->lead.grads + i * a->stride + b * lines;
            for (size_t j = 0; j < lines; j++) {
                to[j] += from[j]; /* lanes of other tokens: zero */
                to[lines + j] += from[tensor(e) + j];
            }
        }
    }
}
