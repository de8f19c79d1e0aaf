/* attention, the definition: one query at a time over the keys of its sequence, f32 chains in key or feature order. */
#include "kernels/attention/attention_sum.h"

#include "credence/kernels/math.h"
#include "kernels/common/tiers.h"

#include <stdbool.h>

/* One head of one sequence. Its keys are the rows of its prefix, then its tokens. */
struct item {
    size_t first, len; /* tokens */
    size_t seg, head, kv_head;
    size_t n_rows; /* of the prefix */
};

static struct item item_at(const struct cr_attention_args *args, size_t index)
{
    size_t seg = index / args->n_heads, head = index % args->n_heads;
    struct item item = {.first = args->seg[seg],
                        .len = args->seg[seg + 1] - args->seg[seg],
                        .seg = seg,
                        .head = head,
                        .kv_head = head / (args->n_heads / args->n_kv)};
    if (args->prefix != NULL && args->prefix->of_seg[seg] != CR_ATTENTION_NO_PREFIX) {
        item.n_rows = args->prefix->n_rows;
    }
    return item;
}

/* Place of (head, feature 0, token) in a TL16 buffer; features follow at CR_LANES. */
static size_t at(const struct cr_attention_args *args, size_t stride, size_t head, size_t token)
{
    return token / CR_LANES * stride + head * args->head_dim * CR_LANES + token % CR_LANES;
}

static size_t lse_at(const struct cr_attention_args *args, size_t head, size_t token)
{
    return (token / CR_LANES * args->n_heads + head) * CR_LANES + token % CR_LANES;
}

/* Key or value j of the item. */
static const float *key_at(const struct cr_attention_args *args, const struct item *item, bool value, size_t j)
{
    if (j >= item->n_rows) {
        return (value ? args->v : args->k) + at(args, args->kv_stride, item->kv_head, item->first + j - item->n_rows);
    }
    const struct cr_attention_prefix *p = args->prefix;
    size_t block = args->n_kv * args->head_dim * CR_LANES;
    return (value ? p->v : p->k) + p->of_seg[item->seg] * p->stride + at(args, block, item->kv_head, j);
}

/* This head's gradient of row j of the prefix, pad rows included. */
static float *partial_at(const struct cr_attention_args *args, const struct item *item, bool value, size_t j)
{
    const struct cr_attention_prefix *p = args->prefix;
    size_t block = args->head_dim * CR_LANES, index = item->seg * args->n_heads + item->head;
    return (value ? p->dv_part : p->dk_part) + index * cr_tl16_blocks(p->n_rows) * block + at(args, block, 0, j);
}

/* Where this head's gradient of key or value j goes. */
static float *gradient_at(const struct cr_attention_args *args, const struct item *item, bool value, size_t j)
{
    if (j < item->n_rows) {
        return partial_at(args, item, value, j);
    }
    return (value ? args->dv : args->dk) + at(args, args->dkv_stride, item->head, item->first + j - item->n_rows);
}

static float dot(const float *a, const float *b, size_t head_dim)
{
    float sum = 0;
    for (size_t f = 0; f < head_dim; f++) {
        sum += a[f * CR_LANES] * b[f * CR_LANES];
    }
    return sum;
}

/* y += factor * x */
static void add(float *y, float factor, const float *x, size_t head_dim)
{
    for (size_t f = 0; f < head_dim; f++) {
        y[f * CR_LANES] += factor * x[f * CR_LANES];
    }
}

static void clear(float *y, size_t head_dim)
{
    for (size_t f = 0; f < head_dim; f++) {
        y[f * CR_LANES] = 0;
    }
}

static void forward_query(const struct cr_attention_args *args, const struct item *item, size_t query, float *p)
{
    size_t token = item->first + query;
    const float *q = args->q + at(args, args->q_stride, item->head, token);
    float *o = args->o + at(args, args->o_stride, item->head, token);
    size_t n = item->n_rows + query + 1;
    float max = 0;
    for (size_t j = 0; j < n; j++) {
        p[j] = args->scale * dot(key_at(args, item, false, j), q, args->head_dim);
        max = j == 0 || p[j] > max ? p[j] : max;
    }
    float sum = 0;
    for (size_t j = 0; j < n; j++) {
        p[j] = cr_expf(p[j] - max);
        sum += p[j];
    }
    clear(o, args->head_dim);
    for (size_t j = 0; j < n; j++) {
        add(o, p[j], key_at(args, item, true, j), args->head_dim);
    }
    for (size_t f = 0; f < args->head_dim; f++) {
        o[f * CR_LANES] /= sum;
    }
    args->lse[lse_at(args, item->head, token)] = max + (float)cr_ln((double)sum);
}

static void attention_fwd(const struct cr_attention_args *args, size_t begin, size_t end, void *scratch)
{
    for (size_t index = begin; index < end; index++) {
        struct item item = item_at(args, index);
        for (size_t query = 0; query < item.len; query++) {
            forward_query(args, &item, query, scratch);
        }
    }
}

static void backward_query(const struct cr_attention_args *args, const struct item *item, size_t query)
{
    size_t token = item->first + query;
    size_t dim = args->head_dim;
    const float *q = args->q + at(args, args->q_stride, item->head, token);
    const float *d_o = args->d_o + at(args, args->do_stride, item->head, token);
    float *dq = args->dq + at(args, args->q_stride, item->head, token);
    float delta = dot(d_o, args->o + at(args, args->o_stride, item->head, token), dim);
    float lse = args->lse[lse_at(args, item->head, token)];
    for (size_t j = 0; j < item->n_rows + query + 1; j++) {
        const float *k = key_at(args, item, false, j), *v = key_at(args, item, true, j);
        float p = cr_expf(args->scale * dot(k, q, dim) - lse);
        float ds = args->scale * p * (dot(v, d_o, dim) - delta);
        add(dq, ds, k, dim);
        add(gradient_at(args, item, false, j), ds, q, dim);
        add(gradient_at(args, item, true, j), p, d_o, dim);
    }
}

static void attention_bwd(const struct cr_attention_args *args, size_t begin, size_t end, void *scratch)
{
    (void)scratch;
    for (size_t index = begin; index < end; index++) {
        struct item item = item_at(args, index);
        for (size_t t = item.first; t < item.first + item.len; t++) {
            clear(args->dq + at(args, args->q_stride, item.head, t), args->head_dim);
        }
        /* the prefix's partial to the end of its last block */
        size_t padded = cr_tl16_blocks(item.n_rows) * CR_LANES;
        for (size_t j = 0; j < padded; j++) {
            clear(partial_at(args, &item, false, j), args->head_dim);
            clear(partial_at(args, &item, true, j), args->head_dim);
        }
        for (size_t j = item.n_rows; j < item.n_rows + item.len; j++) {
            clear(gradient_at(args, &item, false, j), args->head_dim);
            clear(gradient_at(args, &item, true, j), args->head_dim);
        }
        for (size_t query = 0; query < item.len; query++) {
            backward_query(args, &item, query);
        }
    }
}

static void fill(struct cr_attention_ops *ops)
{
    static const struct cr_attention_ops table = {attention_fwd, attention_bwd, attention_sum_kv,
                                                  attention_sum_prefix};
    *ops = table;
}

CR_TIER_VARIANT(attention, ref)
