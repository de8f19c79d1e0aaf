/* Prefixes within a pass: the mixtures of a layer, their gradients, and the label rows of a row's own.
 *
 * Mixtures of one layer exist at a time: they are made when its attention needs them, forward, again, and backward.
 */
#include <string.h>

#include "runtime/model/engine_internal.h"
#include "runtime/model/simplex.h"

static const struct cr_prefix *of(const struct cr_engine *e)
{
    return e->options.prefix;
}

/* Weights of a sequence's mixture in a layer. */
static double *weights_at(const struct cr_engine *e, size_t prefix, uint32_t layer)
{
    return e->prefix.weights + (prefix * (of(e)->n_layers + 1) + layer) * of(e)->n_vertices;
}

bool cr_prefix_own_head(const struct cr_engine *e)
{
    return of(e) != NULL && of(e)->n_labels > 0 && e->options.label_ids != NULL;
}

size_t cr_prefix_offset(const struct cr_engine *e)
{
    return e->prefix.attention.n_prefixes > 0 ? of(e)->n_rows : 0;
}

const struct cr_attention_prefix *cr_prefix_attention(const struct cr_engine *e)
{
    return e->prefix.attention.n_prefixes > 0 ? &e->prefix.attention : NULL;
}

/* Which row sees the label rows of which sequence. Behind shared tokens: of its part's. */
static void set_rows(struct cr_engine *e)
{
    const uint32_t *of_seg = e->batch->n_lead > 0 ? e->lead.of_seg : e->prefix.of_seg;
    size_t seg = 0;
    for (size_t slot = 0; slot < e->rows.n_blocks * CR_LANES; slot++) {
        uint32_t row = e->row_of[slot];
        e->prefix.of_row[slot] = CR_ATTENTION_NO_PREFIX;
        if (row != CR_NO_ROW) {
            while (e->batch->seg[seg + 1] <= e->batch->row_token[row]) {
                seg++;
            }
            e->prefix.of_row[slot] = of_seg[seg];
        }
    }
}

/* Whether the sequence that begins at `first` sees a mixture of its own: not the pads, and not what follows shared
 * tokens, which lead.c shows theirs. */
static bool sees_one(const struct cr_engine *e, size_t part, size_t first)
{
    bool follows = e->batch->n_lead > 0 && first != e->all.parts[part].begin * CR_LANES;
    return !e->prefix.filling && !follows && e->batch->example[first] != UINT32_MAX;
}

cr_status cr_prefix_set(struct cr_engine *e, struct cr_error *err)
{
    const struct cr_token_batch *batch = e->batch;
    size_t n = 0, part = 0;
    if (of(e) == NULL) {
        return CR_OK;
    }
    for (size_t s = 0; s < batch->n_seg; s++) {
        uint32_t first = batch->seg[s];
        while (first < batch->seg[s + 1] && e->all.parts[part].end * CR_LANES <= first) {
            part++;
        }
        bool sees = first < batch->seg[s + 1] && sees_one(e, part, first);
        if (s >= cr_engine_max_seg(e) || (sees && n >= e->options.max_prefixes)) {
            return cr_fail(err, CR_E_USAGE, "engine: batch of %zu sequences, planned for %zu", batch->n_seg,
                           e->options.max_prefixes);
        }
        e->prefix.of_seg[s] = sees ? (uint32_t)n : CR_ATTENTION_NO_PREFIX;
        if (!sees) {
            continue;
        }
        for (uint32_t layer = 0; layer <= of(e)->n_layers; layer++) {
            of(e)->weights(of(e)->ctx, e->all.parts[part].member, batch->example[first], layer,
                           weights_at(e, n, layer));
        }
        n++;
    }
    e->prefix.attention.n_prefixes = n;
    if (cr_prefix_own_head(e)) {
        set_rows(e);
    }
    return CR_OK;
}

/* Keys and values of the sequences [begin, end). */
static void job_mix(struct cr_engine *e, const void *arg, size_t begin, size_t end, void *scratch)
{
    (void)scratch;
    uint32_t layer = ((const struct prefix_layer *)arg)->layer;
    const float *vertices[CR_PREFIX_VERTICES_MAX];
    for (uint32_t j = 0; j < of(e)->n_vertices; j++) {
        vertices[j] = of(e)->params + cr_prefix_at(of(e), layer, j);
    }
    for (size_t i = begin; i < end; i++) {
        cr_simplex_mix_f32(weights_at(e, i, layer), vertices, of(e)->n_vertices, 2 * cr_prefix_tensor(of(e)),
                           e->prefix.mixed + i * e->prefix.attention.stride);
    }
}

void cr_prefix_add_mix(struct cr_engine *e, const struct prefix_layer *layer)
{
    cr_phase_add(e, job_mix, layer, e->prefix.attention.n_prefixes, 1);
}

/* Gradients of kv heads [begin, end): each sequence's sum over its query heads goes to the vertices, in the order of
 * the sequences. One set of sums serves all sequences: stride 0. */
static void job_grad(struct cr_engine *e, const void *arg, size_t begin, size_t end, void *scratch)
{
    const struct prefix_layer *layer = arg;
    const struct cr_prefix *prefix = of(e);
    struct cr_attention_prefix one = e->prefix.attention;
    struct cr_attention_args args = *layer->attention;
    size_t tensor = cr_prefix_tensor(prefix), n_kv = args.n_kv, lines = args.head_dim * CR_LANES;
    one.stride = 0;
    args.prefix = &one;
    for (size_t i = 0; i < one.n_prefixes; i++) {
        for (size_t at = begin * lines; at < tensor; at += n_kv * lines) {
            memset(one.dk + at, 0, (end - begin) * lines * sizeof(float));
            memset(one.dv + at, 0, (end - begin) * lines * sizeof(float));
        }
        e->attention.sum_prefix(&args, i * n_kv + begin, i * n_kv + end, scratch);
        cr_lead_add_prefix(e, i, begin * args.head_dim, end * args.head_dim, one.dk, one.dv);
        for (size_t at = begin * lines; at < tensor; at += n_kv * lines) {
            float *dk[CR_PREFIX_VERTICES_MAX], *dv[CR_PREFIX_VERTICES_MAX];
            for (uint32_t j = 0; j < prefix->n_vertices; j++) {
                dk[j] = prefix->grads + cr_prefix_at(prefix, layer->layer, j) + at;
                dv[j] = dk[j] + tensor;
            }
            const double *lambda = weights_at(e, i, layer->layer);
            cr_simplex_scatter_f32(lambda, one.dk + at, prefix->n_vertices, (end - begin) * lines, dk);
            cr_simplex_scatter_f32(lambda, one.dv + at, prefix->n_vertices, (end - begin) * lines, dv);
        }
    }
}

void cr_prefix_add_grads(struct cr_engine *e, const struct prefix_layer *layer)
{
    if (cr_prefix_attention(e) != NULL) {
        cr_phase_add(e, job_grad, layer, e->model->config.n_kv, 1);
    }
}

void cr_prefix_mix_logits(struct cr_engine *e)
{
    size_t n = e->options.n_labels, wide = of(e)->n_labels;
    for (size_t t = 0; t < e->rows.n_blocks * CR_LANES; t++) {
        const float *own = e->prefix.logits + (t / CR_LANES * wide * of(e)->n_vertices) * CR_LANES + t % CR_LANES;
        float *z = e->head_z + t / CR_LANES * n * CR_LANES + t % CR_LANES;
        uint32_t prefix = e->prefix.of_row[t];
        for (size_t c = 0; c < n; c++) {
            double sum = 0;
            for (uint32_t j = 0; j < of(e)->n_vertices && prefix != CR_ATTENTION_NO_PREFIX; j++) {
                sum += weights_at(e, prefix, of(e)->n_layers)[j] * (double)own[(j * wide + c) * CR_LANES];
            }
            z[c * CR_LANES] = (float)sum;
        }
    }
}

void cr_prefix_spread_logits(struct cr_engine *e)
{
    size_t n = e->options.n_labels, wide = of(e)->n_labels;
    const float *dz = e->head_dz;
    memset(e->prefix.logits, 0, e->rows.n_blocks * wide * of(e)->n_vertices * CR_LANES * sizeof(float));
    for (size_t t = 0; t < e->rows.n_blocks * CR_LANES; t++) {
        float *own = e->prefix.logits + (t / CR_LANES * wide * of(e)->n_vertices) * CR_LANES + t % CR_LANES;
        const float *from = dz + t / CR_LANES * n * CR_LANES + t % CR_LANES;
        uint32_t prefix = e->prefix.of_row[t];
        for (uint32_t j = 0; j < of(e)->n_vertices && prefix != CR_ATTENTION_NO_PREFIX; j++) {
            double lambda = weights_at(e, prefix, of(e)->n_layers)[j];
            for (size_t c = 0; c < n; c++) {
                own[(j * wide + c) * CR_LANES] = (float)(lambda * (double)from[c * CR_LANES]);
            }
        }
    }
}

void cr_prefix_keep(struct cr_engine *e, uint32_t layer, const struct layer_state *state)
{
    const struct cr_prefix *prefix = of(e);
    size_t tensor = cr_prefix_tensor(prefix), block = (e->q + 2 * e->kv) * CR_LANES;
    float *k = prefix->params + cr_prefix_at(prefix, layer, e->prefix.vertex);
    for (size_t row = 0; row < prefix->n_rows; row++) {
        const float *from = state->qkv + row / CR_LANES * block + e->q * CR_LANES + row % CR_LANES;
        for (size_t i = 0; i < e->kv; i++) {
            k[cr_prefix_row_at(prefix, row, i)] = from[i * CR_LANES];
            k[tensor + cr_prefix_row_at(prefix, row, i)] = from[(e->kv + i) * CR_LANES];
        }
    }
}
