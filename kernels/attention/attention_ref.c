/* attention, the definition: one query at a time over the keys of its sequence, f32 chains in key or feature order. */
#include "credence/kernels/attention.h"

#include "credence/kernels/math.h"
#include "kernels/common/tiers.h"

#include <string.h>

/* One head of one sequence. */
struct item {
    size_t first, len; /* tokens */
    size_t head, kv_head;
};

static struct item item_at(const struct cr_attention_args *args, size_t index)
{
    size_t seg = index / args->n_heads;
    size_t head = index % args->n_heads;
    struct item item = {args->seg[seg], args->seg[seg + 1] - args->seg[seg], head, head / (args->n_heads / args->n_kv)};
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
    float max = 0;
    for (size_t j = 0; j <= query; j++) {
        const float *k = args->k + at(args, args->kv_stride, item->kv_head, item->first + j);
        p[j] = args->scale * dot(k, q, args->head_dim);
        max = j == 0 || p[j] > max ? p[j] : max;
    }
    float sum = 0;
    for (size_t j = 0; j <= query; j++) {
        p[j] = cr_expf(p[j] - max);
        sum += p[j];
    }
    clear(o, args->head_dim);
    for (size_t j = 0; j <= query; j++) {
        add(o, p[j], args->v + at(args, args->kv_stride, item->kv_head, item->first + j), args->head_dim);
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
    for (size_t j = 0; j <= query; j++) {
        size_t in = at(args, args->kv_stride, item->kv_head, item->first + j);
        size_t out = at(args, args->dkv_stride, item->head, item->first + j);
        float p = cr_expf(args->scale * dot(args->k + in, q, dim) - lse);
        float ds = args->scale * p * (dot(args->v + in, d_o, dim) - delta);
        add(dq, ds, args->k + in, dim);
        add(args->dk + out, ds, q, dim);
        add(args->dv + out, p, d_o, dim);
    }
}

static void attention_bwd(const struct cr_attention_args *args, size_t begin, size_t end, void *scratch)
{
    (void)scratch;
    for (size_t index = begin; index < end; index++) {
        struct item item = item_at(args, index);
        for (size_t t = item.first; t < item.first + item.len; t++) {
            clear(args->dq + at(args, args->q_stride, item.head, t), args->head_dim);
            clear(args->dk + at(args, args->dkv_stride, item.head, t), args->head_dim);
            clear(args->dv + at(args, args->dkv_stride, item.head, t), args->head_dim);
        }
        for (size_t query = 0; query < item.len; query++) {
            backward_query(args, &item, query);
        }
    }
}

/* out = sum of the group's partials in head order, n lines a head. */
static void sum_group(float *out, const float *partial, size_t group, size_t n)
{
    memcpy(out, partial, n * sizeof(float));
    for (size_t g = 1; g < group; g++) {
        for (size_t i = 0; i < n; i++) {
            out[i] += partial[g * n + i];
        }
    }
}

static void attention_sum_kv(const struct cr_attention_args *args, size_t begin, size_t end, void *scratch)
{
    (void)scratch;
    size_t group = args->n_heads / args->n_kv;
    size_t n = args->head_dim * CR_LANES;
    for (size_t block = begin; block < end; block++) {
        for (size_t kv_head = 0; kv_head < args->n_kv; kv_head++) {
            size_t out = block * args->kv_stride + kv_head * n;
            size_t in = block * args->dkv_stride + kv_head * group * n;
            sum_group(args->dk_sum + out, args->dk + in, group, n);
            sum_group(args->dv_sum + out, args->dv + in, group, n);
        }
    }
}

static void fill(struct cr_attention_ops *ops)
{
    *ops = (struct cr_attention_ops){attention_fwd, attention_bwd, attention_sum_kv};
}

CR_TIER_VARIANT(attention, ref)
