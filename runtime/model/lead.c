/* Shared tokens within a pass: each part begins with them, as a sequence of their own on blocks of its own; the other
 * sequences of the part see their keys and values in every layer as attention sees a prefix, and what they pass back is
 * added to the gradient that the shared tokens' own queries make.
 *
 * Where there is a learned prefix, too, the shared tokens see it, and the others see rows of both: the prefix, then the
 * shared tokens.
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

/* Rows of the learned prefix before the shared tokens. */
static size_t rows_before(const struct cr_engine *e)
{
    return e->options.prefix != NULL ? e->options.prefix->n_rows : 0;
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
    if (batch->n_lead > e->options.max_lead || batch->n_seg > cr_engine_max_seg(e) || e->prefix.filling) {
        return cr_fail(err, CR_E_USAGE, "engine: %zu shared tokens and %zu sequences, planned for %zu and %zu%s",
                       batch->n_lead, batch->n_seg, e->options.max_lead, cr_engine_max_seg(e),
                       e->prefix.filling ? ", not to make a vertex" : "");
    }
    a->n_rows = rows_before(e) + batch->n_lead;
    a->n_prefixes = e->all.n_parts;
    a->of_seg = e->lead.of_seg;
    a->stride = 2 * tensor(e);
    a->k = e->lead.kv;
    a->v = e->lead.kv + tensor(e);
    a->dk = e->lead.grads;
    a->dv = e->lead.grads != NULL ? e->lead.grads + tensor(e) : NULL;
    return set_sequences(e, err);
}

/* Where row `row` of something of kv features stands, blocks `stride` floats apart. */
static size_t row_at(size_t row, size_t stride)
{
    return row / CR_LANES * stride + row % CR_LANES;
}

void cr_lead_keep(struct cr_engine *e, const struct layer_state *state)
{
    const struct cr_attention_prefix *a = &e->lead.attention;
    size_t from_stride = (e->q + 2 * e->kv) * CR_LANES, lines = e->kv * CR_LANES, before = rows_before(e);
    for (size_t i = 0; i < a->n_prefixes; i++) {
        float *to = e->lead.kv + i * a->stride;
        const float *from = state->qkv + e->all.parts[i].begin * from_stride + e->q * CR_LANES;
        if (before > 0) { /* whose last block has room for the first of the shared tokens */
            const float *mixed = e->prefix.mixed + i * e->prefix.attention.stride;
            size_t n = cr_tl16_blocks(before) * lines;
            memcpy(to, mixed, n * sizeof *to);
            memcpy(to + tensor(e), mixed + n, n * sizeof *to);
        }
        for (size_t t = 0; t < e->batch->n_lead; t++) {
            float *k = to + row_at(before + t, lines);
            const float *own = from + row_at(t, from_stride);
            for (size_t j = 0; j < lines; j += CR_LANES) {
                k[j] = own[j];
                k[tensor(e) + j] = own[lines + j];
            }
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
    size_t to_stride = (e->q + 2 * e->kv) * CR_LANES, lines = e->kv * CR_LANES, before = rows_before(e);
    for (size_t i = 0; i < a->n_prefixes; i++) {
        for (size_t t = 0; t < e->batch->n_lead; t++) {
            size_t first = e->all.parts[i].begin, block = first + t / CR_LANES;
            if (block < begin || block >= end) {
                continue;
            }
            float *to = e->dqkv + first * to_stride + row_at(t, to_stride) + e->q * CR_LANES;
            const float *from = e->lead.grads + i * a->stride + row_at(before + t, lines);
            for (size_t j = 0; j < lines; j += CR_LANES) {
                to[j] += from[j];
                to[lines + j] += from[tensor(e) + j];
            }
        }
    }
}

void cr_lead_add_prefix(const struct cr_engine *e, size_t part, size_t begin, size_t end, float *dk, float *dv)
{
    const struct cr_attention_prefix *a = cr_lead_attention(e);
    size_t lines = e->kv * CR_LANES;
    for (size_t row = 0; a != NULL && row < rows_before(e); row++) {
        const float *from = a->dk + part * a->stride + row_at(row, lines);
        for (size_t j = begin * CR_LANES; j < end * CR_LANES; j += CR_LANES) {
            dk[row_at(row, lines) + j] += from[j];
            dv[row_at(row, lines) + j] += from[tensor(e) + j];
        }
    }
}
