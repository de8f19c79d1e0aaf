/* attention over lines of tokens; included once by each tier.
 *
 * Every product is one of lanes_tile.h: a TL16 buffer is the operand read by numbers and the operand read by lines.
 *
 *   forward, GROUP blocks of queries as lanes:   S[key][query] = scale K Q,  softmax down the lanes,  O = V^T P
 *   backward, GROUP blocks of keys as lanes, against each group of queries from the diagonal down:
 *       S[query][key] = scale Q K,  P = exp(S - lse),  dP[query][key] = dO V,  dS = P (dP - delta)
 *       dV += dO^T P,  dK += scale Q^T dS,  dQ += scale K^T dS^T (the one transpose, 16 x 16 tiles)
 *
 * Lines of tokens past the end of a sequence are zero in scratch, so they add nothing: a key past the end lies after
 * every query, and a query past the end has dO = 0.
 */
#ifndef CR_ATTENTION_LANES_H
#define CR_ATTENTION_LANES_H

#include "kernels/attention/attention_lines.h"
#include "kernels/attention/attention_scratch.h"
#include "kernels/attention/attention_sum.h"
#include "kernels/common/lanes_math.h"
#include "kernels/common/lanes_tile.h"
#include "credence/kernels/math.h"
#include "kernels/common/tiers.h"

#include <string.h>

enum { GROUP = CR_ATTENTION_GROUP, ROWS = GROUP * CR_LANES, TILE = CR_LANES * CR_LANES };

/* Lanes from `col` on that are at or after `row`: the keys a query sees, or the queries that see a key. */
CR_INLINE lanes_i lanes_from(size_t row, size_t col)
{
    return lanes_greater_i((lanes_i)lanes_iota() + (int32_t)col, lanes_splat_i((int32_t)row - 1));
}

/* ---- forward ---- */

struct forward {
    float *q, *k, *v; /* aligned [n_blocks][dim][16]; q becomes o; k, v: the prefix's blocks come first */
    float *s;         /* [GROUP][blocks of k * 16][16] */
    float *lse;       /* [n_blocks][16] */
    size_t s_stride;
};

/* S of key blocks [key, key_end) and n query blocks from `query`; s is the first query block's. */
static void scores(const struct item *item, const struct forward *m, float scale, size_t key, size_t key_end,
                   size_t query, size_t n, float *s)
{
    for (; key < key_end; key++) {
        struct tile_product t = {
            .a = m->k + key * item->block, .a_rs = 1, .a_ks = CR_LANES, .n_inner = item->dim, .n_outer = 1,
            .b = m->q + query * item->block, .b_stride = item->block,
            .c = s + key * TILE, .c_stride = m->s_stride,
            .n_rows = CR_LANES, .n_blocks = n, .alpha = scale,
        };
        tile_product(&t);
    }
}

/* O of n query blocks from `query`, plus the part of key blocks [key, key_end). */
static void values(const struct item *item, const struct forward *m, size_t key, size_t key_end, size_t query, size_t n,
                   const float *p)
{
    struct tile_product t = {
        .a = m->v + key * item->block, .a_rs = CR_LANES, .a_ks = 1, .a_os = item->block,
        .n_inner = CR_LANES, .n_outer = key_end - key,
        .b = p + key * TILE, .b_stride = m->s_stride,
        .c = m->q + query * item->block, .c_stride = item->block,
        .n_rows = item->dim, .n_blocks = n, .alpha = 1, .add = key > 0,
    };
    tile_product(&t);
}

/* Columns of one query block: s becomes exp(s - max) for keys not after the query, else 0. `diagonal` is the row of the
 * block's first token. Gives the sums. */
static void softmax(float *s, size_t diagonal, float sum_out[CR_LANES], float *lse)
{
    for (size_t col = 0; col < CR_LANES; col += LANES_N) {
        lanes max = lanes_load(s + col); /* key 0 is before every query */
        for (size_t j = 1; j < diagonal; j++) {
            max = lanes_max(lanes_load(s + j * CR_LANES + col), max);
        }
        for (size_t j = diagonal; j < diagonal + CR_LANES; j++) {
            lanes x = lanes_load(s + j * CR_LANES + col);
            max = lanes_select(lanes_from(j - diagonal, col), lanes_max(x, max), max);
        }
        lanes sum = lanes_zero();
        for (size_t j = 0; j < diagonal; j++) {
            lanes p = lanes_exp(lanes_load(s + j * CR_LANES + col) - max);
            lanes_store(s + j * CR_LANES + col, p);
            sum += p;
        }
        for (size_t j = diagonal; j < diagonal + CR_LANES; j++) {
            lanes p = lanes_exp(lanes_load(s + j * CR_LANES + col) - max);
            p = lanes_select(lanes_from(j - diagonal, col), p, lanes_zero());
            lanes_store(s + j * CR_LANES + col, p);
            sum += p;
        }
        lanes_storeu(sum_out + col, sum);
        lanes_store(lse + col, max);
    }
    for (size_t lane = 0; lane < CR_LANES; lane++) {
        lse[lane] += (float)cr_ln((double)sum_out[lane]);
    }
}

static void divide(float *o, size_t n_lines, const float sum[CR_LANES])
{
    for (size_t col = 0; col < CR_LANES; col += LANES_N) {
        lanes factor = 1.0f / lanes_loadu(sum + col);
        for (size_t f = 0; f < n_lines; f++) {
            lanes_store(o + f * CR_LANES + col, lanes_load(o + f * CR_LANES + col) * factor);
        }
    }
}

/* Rows of the prefix's last block that are no keys: exp of them is 0. */
static void hide_rows(const struct item *item, const struct forward *m, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float *s = m->s + i * m->s_stride;
        for (size_t at = item->prefix_rows * CR_LANES; at < item->prefix_blocks * TILE; at++) {
            s[at] = -__builtin_inff();
        }
    }
}

/* Up to GROUP query blocks from `query`; the diagonal key blocks meet only the queries at or after them. */
static void forward_group(const struct item *item, const struct forward *m, float scale, size_t query)
{
    size_t n = least(GROUP, item->n_blocks - query), key = item->prefix_blocks + query;
    float sum[GROUP][CR_LANES];
    scores(item, m, scale, 0, key + 1, query, n, m->s);
    for (size_t i = 1; i < n; i++) {
        scores(item, m, scale, key + i, key + i + 1, query + i, n - i, m->s + i * m->s_stride);
    }
    hide_rows(item, m, n);
    for (size_t i = 0; i < n; i++) {
        softmax(m->s + i * m->s_stride, (key + i) * CR_LANES, sum[i], m->lse + (query + i) * CR_LANES);
    }
    values(item, m, 0, key + 1, query, n, m->s);
    for (size_t i = 1; i < n; i++) {
        values(item, m, key + i, key + i + 1, query + i, n - i, m->s + i * m->s_stride);
    }
    for (size_t i = 0; i < n; i++) {
        divide(m->q + (query + i) * item->block, item->dim, sum[i]);
    }
}

/* Keys and values of an item: the prefix's blocks, then the sequence's. */
static void gather_keys(const struct cr_attention_args *args, const struct item *item, float *k, float *v)
{
    struct item rows = prefix_of(item);
    size_t prefix = item->prefix_blocks * item->block, kv_head = item->kv_head * item->block;
    gather(&rows, item->prefix_k, item->prefix_stride, item->dim, k);
    gather(&rows, item->prefix_v, item->prefix_stride, item->dim, v);
    gather(item, args->k + kv_head, args->kv_stride, item->dim, k + prefix);
    gather(item, args->v + kv_head, args->kv_stride, item->dim, v + prefix);
}

static void attention_fwd(const struct cr_attention_args *args, size_t begin, size_t end, void *scratch)
{
    for (size_t index = begin; index < end; index++) {
        struct item item = item_at(args, index);
        size_t blocks = item.prefix_blocks + item.n_blocks;
        struct forward m = {.q = scratch, .s_stride = blocks * TILE};
        m.k = m.q + item.n_blocks * item.block;
        m.v = m.k + blocks * item.block;
        m.lse = m.v + blocks * item.block;
        m.s = m.lse + item.n_blocks * CR_LANES;
        gather(&item, args->q + item.head * item.block, args->q_stride, item.dim, m.q);
        gather_keys(args, &item, m.k, m.v);
        for (size_t query = 0; query < item.n_blocks; query += GROUP) {
            forward_group(&item, &m, args->scale, query);
        }
        scatter(&item, 0, item.n_blocks, m.q, item.dim, args->o + item.head * item.block, args->o_stride);
        scatter(&item, 0, item.n_blocks, m.lse, 1, args->lse + item.head * CR_LANES, args->n_heads * CR_LANES);
    }
}

/* ---- backward ---- */

struct backward {
    float *q, *k, *v, *d_o, *dq; /* aligned [n_blocks][dim][16] */
    float *lse, *delta;          /* [n_blocks][16] */
    float *p, *ds;               /* [key block GROUP][query ROWS][16 keys] */
    float *ds_t;                 /* [query block GROUP][key ROWS][16 queries] */
    float *dk, *dv;              /* [GROUP][dim][16] */
};

/* GROUP query blocks against GROUP key blocks of prefix and sequence; on the diagonal query block i meets key blocks
 * [0, i]. n_last lanes of the last key block are keys. */
struct pair {
    size_t query, n_queries, key, n_keys, n_last;
    int diagonal;
};

/* delta[t] = <dO_t, O_t>, feature by feature. */
static void deltas(const struct item *item, const float *o, size_t stride, const float *d_o, float *delta)
{
    for (size_t block = 0; block < item->n_blocks; block++, delta += CR_LANES) {
        struct window w = item_window(item, block);
        const float *in = o + (item->first / CR_LANES + block) * stride;
        memset(delta, 0, CR_LANES * sizeof(float));
        for (size_t f = 0; f < item->dim; f++, d_o += CR_LANES) {
            float line[CR_LANES] __attribute__((aligned(64)));
            window_load(&w, in + f * CR_LANES, in + stride + f * CR_LANES, line);
            for (size_t col = 0; col < CR_LANES; col += LANES_N) {
                lanes sum = lanes_fma(lanes_load(d_o + col), lanes_load(line + col), lanes_load(delta + col));
                lanes_store(delta + col, sum);
            }
        }
    }
}

enum edge { INSIDE, DIAGONAL, LAST };

/* p = exp(p - lse), ds = p (ds - delta) on one 16 x 16 tile; on the diagonal keys after the query become 0, in the last
 * tile those from n_last on. */
CR_INLINE void probabilities(float *p, float *ds, const float *lse, const float *delta, enum edge edge, size_t n_last)
{
    for (size_t row = 0; row < CR_LANES; row++) {
        for (size_t col = 0; col < CR_LANES; col += LANES_N) {
            size_t at = row * CR_LANES + col;
            lanes prob = lanes_exp(lanes_load(p + at) - lse[row]);
            if (edge != INSIDE) {
                prob = lanes_select(lanes_from(edge == DIAGONAL ? row + 1 : n_last, col), lanes_zero(), prob);
            }
            lanes_store(p + at, prob);
            lanes_store(ds + at, prob * (lanes_load(ds + at) - delta[row]));
        }
    }
}

/* P, dS and dS^T of query block i of the pair. */
static void pair_row(const struct item *item, const struct backward *m, const struct pair *pair, size_t i, float scale)
{
    size_t block = pair->query + i, n_keys = pair->diagonal ? i + 1 : pair->n_keys;
    struct tile_product t = {
        .a = m->q + block * item->block, .a_rs = 1, .a_ks = CR_LANES, .n_inner = item->dim, .n_outer = 1,
        .b = m->k + pair->key * item->block, .b_stride = item->block,
        .c = m->p + i * TILE, .c_stride = GROUP * TILE,
        .n_rows = CR_LANES, .n_blocks = n_keys, .alpha = scale,
    };
    tile_product(&t);
    t.a = m->d_o + block * item->block;
    t.b = m->v + pair->key * item->block;
    t.c = m->ds + i * TILE;
    t.alpha = 1;
    tile_product(&t);
    for (size_t j = 0; j < n_keys; j++) {
        float *p = m->p + (j * GROUP + i) * TILE, *ds = m->ds + (j * GROUP + i) * TILE;
        const float *lse = m->lse + block * CR_LANES, *delta = m->delta + block * CR_LANES;
        if (pair->diagonal && j == i) {
            probabilities(p, ds, lse, delta, DIAGONAL, 0);
        } else if (j + 1 == pair->n_keys && pair->n_last < CR_LANES) {
            probabilities(p, ds, lse, delta, LAST, pair->n_last);
        } else {
            probabilities(p, ds, lse, delta, INSIDE, 0);
        }
        transpose_tile(ds, m->ds_t + (i * GROUP + j) * TILE);
    }
}

/* dK, dV from query blocks [i, i + n_queries) and dQ of those, over n_keys key blocks. */
static void pair_products(const struct item *item, const struct backward *m, const struct pair *pair, size_t i,
                          size_t n_queries, size_t n_keys, float scale)
{
    size_t query = (pair->query + i) * item->block;
    struct tile_product t = {
        .a = m->d_o + query, .a_rs = CR_LANES, .a_ks = 1, .a_os = item->block,
        .n_inner = CR_LANES, .n_outer = n_queries,
        .b = m->p + i * TILE, .b_stride = GROUP * TILE,
        .c = m->dv, .c_stride = item->block,
        .n_rows = item->dim, .n_blocks = n_keys, .alpha = 1, .add = 1,
    };
    tile_product(&t);
    t.a = m->q + query;
    t.b = m->ds + i * TILE;
    t.c = m->dk;
    t.alpha = scale;
    tile_product(&t);
    t.a = m->k + pair->key * item->block;
    t.n_outer = n_keys;
    t.b = m->ds_t + i * GROUP * TILE;
    t.c = m->dq + query;
    t.n_blocks = n_queries;
    tile_product(&t);
}

static void backward_pair(const struct item *item, const struct backward *m, const struct pair *pair, float scale)
{
    for (size_t i = 0; i < pair->n_queries; i++) {
        pair_row(item, m, pair, i, scale);
    }
    if (!pair->diagonal) {
        pair_products(item, m, pair, 0, pair->n_queries, pair->n_keys, scale);
        return;
    }
    for (size_t i = 0; i < pair->n_queries; i++) {
        pair_products(item, m, pair, i, 1, i + 1, scale);
    }
}

static struct backward backward_scratch(const struct item *item, float *scratch)
{
    size_t size = item->n_blocks * item->block, keys = size + item->prefix_blocks * item->block;
    struct backward m = {.q = scratch};
    m.k = m.q + size;
    m.v = m.k + keys;
    m.d_o = m.v + keys;
    m.dq = m.d_o + size;
    m.lse = m.dq + size;
    m.delta = m.lse + item->n_blocks * CR_LANES;
    m.p = m.delta + item->n_blocks * CR_LANES;
    m.ds = m.p + ROWS * ROWS;
    m.ds_t = m.ds + ROWS * ROWS;
    m.dk = m.ds_t + ROWS * ROWS;
    m.dv = m.dk + GROUP * item->block;
    return m;
}

/* The keys of a pair against every query that sees them. */
static void backward_keys(const struct item *item, const struct backward *m, struct pair *pair, size_t first_query,
                          int own, float scale)
{
    memset(m->dk, 0, 2 * GROUP * item->block * sizeof(float)); /* dk and dv */
    for (pair->query = first_query; pair->query < item->n_blocks; pair->query += GROUP) {
        pair->n_queries = least(GROUP, item->n_blocks - pair->query);
        pair->diagonal = own && pair->query == first_query;
        backward_pair(item, m, pair, scale);
    }
}

static void backward_item(const struct cr_attention_args *args, const struct item *item, const struct backward *m)
{
    size_t head = item->head * item->block, n_prefix = item->prefix_blocks;
    gather(item, args->q + head, args->q_stride, item->dim, m->q);
    gather_keys(args, item, m->k, m->v);
    gather(item, args->d_o + head, args->do_stride, item->dim, m->d_o);
    gather(item, args->lse + item->head * CR_LANES, args->n_heads * CR_LANES, 1, m->lse);
    deltas(item, args->o + head, args->o_stride, m->d_o, m->delta);
    memset(m->dq, 0, item->n_blocks * item->block * sizeof(float));
    for (size_t key = 0; key < n_prefix; key += GROUP) {
        struct pair pair = {.key = key, .n_keys = least(GROUP, n_prefix - key), .n_last = CR_LANES};
        if (key + pair.n_keys == n_prefix) {
            pair.n_last = item->prefix_rows - (n_prefix - 1) * CR_LANES;
        }
        backward_keys(item, m, &pair, 0, 0, args->scale);
        memcpy(item->prefix_dk + key * item->block, m->dk, pair.n_keys * item->block * sizeof(float));
        memcpy(item->prefix_dv + key * item->block, m->dv, pair.n_keys * item->block * sizeof(float));
    }
    for (size_t key = 0; key < item->n_blocks; key += GROUP) {
        struct pair pair = {.key = n_prefix + key, .n_keys = least(GROUP, item->n_blocks - key), .n_last = CR_LANES};
        backward_keys(item, m, &pair, key, 1, args->scale);
        scatter(item, key, pair.n_keys, m->dk, item->dim, args->dk + head, args->dkv_stride);
        scatter(item, key, pair.n_keys, m->dv, item->dim, args->dv + head, args->dkv_stride);
    }
    scatter(item, 0, item->n_blocks, m->dq, item->dim, args->dq + head, args->q_stride);
}

static void attention_bwd(const struct cr_attention_args *args, size_t begin, size_t end, void *scratch)
{
    for (size_t index = begin; index < end; index++) {
        struct item item = item_at(args, index);
        struct backward m = backward_scratch(&item, scratch);
        backward_item(args, &item, &m);
    }
}

static void fill(struct cr_attention_ops *ops)
{
    static const struct cr_attention_ops table = {attention_fwd, attention_bwd, attention_sum_kv,
                                                  attention_sum_prefix};
    *ops = table;
}

#endif
