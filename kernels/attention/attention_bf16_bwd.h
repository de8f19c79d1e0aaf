/* attention, private: the backward pass of the bf16 variant.
 *
 * Three blocks of keys are the lanes, against chunks of queries from the diagonal down (all queries, for the prefix):
 *   S[query][key] = Q K,  P = exp(scale S - lse),  dP[query][key] = dO V,  dS = P (dP - delta)     row by row
 *   dV += dO^T P,  dK += Q^T dS          lanes are keys, pairs are queries
 *   dQ[query][feature] += dS K           lanes are features, pairs are keys: dS is read by numbers, so it is never
 *                                        transposed; K is, once, and dQ, once, at the end
 * P and dS are rounded to bf16 for the products; dS is formed of the P before rounding.
 */
#ifndef CR_ATTENTION_BF16_BWD_H
#define CR_ATTENTION_BF16_BWD_H

#include <string.h>

#include "kernels/attention/attention_bf16_fwd.h"

/* Blocks of queries whose P and dS are held at one time. */
enum { QUERIES = CR_ATTENTION_QUERIES / CR_LANES, PAIR_LINES = PAIRS * CR_LANES };

struct backward {
    uint32_t *k, *q;   /* operands of the scores; k, v: the prefix's blocks, then the sequence's */
    uint32_t *v;       /* features */
    uint32_t *k_lanes; /* [padded / 16][blocks * 8 pairs of keys][16 features] */
    uint32_t *q_tokens;
    struct packed d_o;  /* features and tokens */
    float *lse, *delta; /* [n_blocks][16], lse times log2(e) */
    float *dq;          /* [n_blocks][padded / 16][16 queries][16 features] */
    float *dk, *dv;     /* [TILE_BLOCKS][padded][16] */
    float *p_tile;      /* [TILE_BLOCKS][TILE_ROWS][16] */
    uint32_t *p, *ds;   /* [TILE_BLOCKS][QUERIES * 8 pairs of queries][16 keys] */
    uint32_t *ds_rows;  /* [QUERIES][TILE_BLOCKS][16 queries][8 pairs of keys] */
    size_t dim, blocks; /* padded; of prefix and sequence */
    float scale;        /* scale log2(e) */
    bool f32;           /* scores in f32 */
};

/* Key blocks [key, key + n_keys) of prefix and sequence against query blocks [query, query + n_queries). */
struct pair {
    size_t key, n_keys, query, n_queries;
    uint32_t last_seen; /* lanes of the last key block that are keys */
    bool diagonal;      /* query block i sees key blocks up to i, and of that the lanes up to its own */
    bool first_keys;    /* dQ starts here */
    bool first_queries; /* dK and dV start here */
};

/* Lanes of the last key block that query `row` of a block sees. */
CR_INLINE __mmask16 lanes_seen(size_t row, bool diagonal, uint32_t last_seen)
{
    return (__mmask16)(diagonal ? (2u << row) - 1 : last_seen);
}

/* Rows r and r + 1 of a tile as pairs of queries, for block j of lanes. */
CR_INLINE void store_pairs(uint32_t *to, int r, int j, __m512i two)
{
    _mm512_store_si512(to + j * QUERIES * PAIR_LINES + r / 2 * CR_LANES, side_by_side(two));
}

/* P of eight queries: f32 to p_tile, rounded to `p`. The mask concerns the last block of lanes. */
CR_INLINE void p_tile(const struct backward *m, const struct product *x, enum order order, const float *lse,
                      uint32_t *p, const int n_blocks, size_t row, bool diagonal, uint32_t last_seen)
{
    tile_acc acc;
    tile_scores(acc, x, order, n_blocks);
    __m512 scale = _mm512_set1_ps(m->scale);
#pragma GCC unroll 4
    for (int r = 0; r < TILE_ROWS; r += 2) {
        __m512 lse0 = _mm512_set1_ps(lse[r]), lse1 = _mm512_set1_ps(lse[r + 1]);
#pragma GCC unroll 3
        for (int j = 0; j < n_blocks; j++) {
            __m512 p0 = exp2_of(_mm512_fmsub_ps(acc[r][j], scale, lse0));
            __m512 p1 = exp2_of(_mm512_fmsub_ps(acc[r + 1][j], scale, lse1));
            if (j == n_blocks - 1) {
                p0 = _mm512_maskz_mov_ps(lanes_seen(row + (size_t)r, diagonal, last_seen), p0);
                p1 = _mm512_maskz_mov_ps(lanes_seen(row + (size_t)r + 1, diagonal, last_seen), p1);
            }
            float *keep = m->p_tile + (j * TILE_ROWS + r) * CR_LANES;
            _mm512_store_ps(keep, p0);
            _mm512_store_ps(keep + CR_LANES, p1);
            store_pairs(p, r, j, two_lines(p0, p1));
        }
    }
}

/* dS of the same eight queries, as pairs of queries to `ds` and of keys to `rows`. */
CR_INLINE void ds_tile(const struct backward *m, const struct product *x, const float *delta, uint32_t *ds,
                       uint32_t *rows, const int n_blocks)
{
    tile_acc acc;
    tile_scores(acc, x, FEATURES, n_blocks);
#pragma GCC unroll 4
    for (int r = 0; r < TILE_ROWS; r += 2) {
        __m512 delta0 = _mm512_set1_ps(delta[r]), delta1 = _mm512_set1_ps(delta[r + 1]);
#pragma GCC unroll 3
        for (int j = 0; j < n_blocks; j++) {
            const float *keep = m->p_tile + (j * TILE_ROWS + r) * CR_LANES;
            __m512 d0 = _mm512_mul_ps(_mm512_load_ps(keep), _mm512_sub_ps(acc[r][j], delta0));
            __m512 d1 = _mm512_mul_ps(_mm512_load_ps(keep + CR_LANES), _mm512_sub_ps(acc[r + 1][j], delta1));
            __m512i two = two_lines(d0, d1);
            store_pairs(ds, r, j, two);
            _mm512_store_si512(rows + (j * CR_LANES + r) * PAIRS, two);
        }
    }
}

CR_INLINE void pair_tile(const struct backward *m, const struct pair *pair, enum order order, size_t i, size_t row,
                         const int n_blocks, bool diagonal, uint32_t last_seen)
{
    size_t size = score_block(m->dim, order == NUMBERS), block = pair->query + i;
    size_t at = (i * CR_LANES + row) / 2 * CR_LANES;
    struct product x = {.a = m->q + block * size + row,
                        .b = m->k + pair->key * size,
                        .b_stride = size,
                        .n_steps = order == NUMBERS ? m->dim : m->dim / 2};
    p_tile(m, &x, order, m->lse + block * CR_LANES + row, m->p + at, n_blocks, row, diagonal, last_seen);
    size = m->dim * PAIRS;
    x = (struct product){.a = m->d_o.features + block * size + row,
                         .b = m->v + pair->key * size,
                         .b_stride = size,
                         .n_steps = m->dim / 2};
    uint32_t *rows = m->ds_rows + (i * TILE_BLOCKS * CR_LANES + row) * PAIRS;
    ds_tile(m, &x, m->delta + block * CR_LANES + row, m->ds + at, rows, n_blocks);
}

/* P and dS of query block i of the pair. */
CR_INLINE void pair_rows(const struct backward *m, const struct pair *pair, enum order order, size_t i)
{
    size_t n_keys = pair->diagonal ? least(i + 1, pair->n_keys) : pair->n_keys;
    bool diagonal = pair->diagonal && i < pair->n_keys;
    uint32_t last_seen = n_keys == pair->n_keys ? pair->last_seen : 0xffff;
    for (size_t row = 0; row < CR_LANES; row += TILE_ROWS) {
        switch (n_keys) {
        case 1:
            pair_tile(m, pair, order, i, row, 1, diagonal, last_seen);
            break;
        case 2:
            pair_tile(m, pair, order, i, row, 2, diagonal, last_seen);
            break;
        default:
            pair_tile(m, pair, order, i, row, 3, diagonal, last_seen);
            break;
        }
    }
}

/* Eight rows of lines, in place or from zero. */
CR_INLINE void add_tile(const struct product *x, float *c, size_t c_stride, bool first, const int n_blocks,
                        enum shape shape)
{
    tile_acc acc;
    if (first) {
        tile_clear(acc, n_blocks);
    } else {
        tile_load(acc, c, c_stride, n_blocks);
    }
    tile_product(acc, x, TOKENS, n_blocks, shape);
    tile_store(acc, c, c_stride, n_blocks);
}

static void add_rows(const struct product *x, float *c, size_t c_stride, bool first, size_t n_blocks, bool diagonal)
{
    switch (n_blocks * 2 + diagonal) {
    case 2:
    case 3:
        add_tile(x, c, c_stride, first, 1, WHOLE);
        break;
    case 4:
        add_tile(x, c, c_stride, first, 2, WHOLE);
        break;
    case 5:
        add_tile(x, c, c_stride, first, 2, EARLIER);
        break;
    case 6:
        add_tile(x, c, c_stride, first, 3, WHOLE);
        break;
    default:
        add_tile(x, c, c_stride, first, 3, EARLIER);
        break;
    }
}

static void backward_pair(const struct backward *m, const struct pair *pair)
{
    size_t size = m->dim * PAIRS, n_vectors = m->dim / CR_LANES;
    for (size_t i = 0; i < pair->n_queries; i++) {
        if (m->f32) {
            pair_rows(m, pair, NUMBERS, i);
        } else {
            pair_rows(m, pair, FEATURES, i);
        }
    }
    for (size_t f = 0; f < m->dim; f += TILE_ROWS) {
        struct product x = {.a = m->d_o.tokens + pair->query * size + f * PAIRS,
                            .a_outer = size,
                            .b = m->p,
                            .b_stride = QUERIES * PAIR_LINES,
                            .n_outer = pair->n_queries};
        size_t stride = m->dim * CR_LANES;
        add_rows(&x, m->dv + f * CR_LANES, stride, pair->first_queries, pair->n_keys, pair->diagonal);
        x.a = m->q_tokens + pair->query * size + f * PAIRS;
        x.b = m->ds;
        add_rows(&x, m->dk + f * CR_LANES, stride, pair->first_queries, pair->n_keys, pair->diagonal);
    }
    for (size_t row = 0; row < pair->n_queries * CR_LANES; row += TILE_ROWS) {
        size_t i = row / CR_LANES, in_block = row % CR_LANES;
        for (size_t vector = 0; vector < n_vectors; vector += TILE_BLOCKS) {
            struct product x = {.a = m->ds_rows + (i * TILE_BLOCKS * CR_LANES + in_block) * PAIRS,
                                .a_outer = CR_LANES * PAIRS,
                                .b = m->k_lanes + (vector * m->blocks + pair->key) * PAIR_LINES,
                                .b_stride = m->blocks * PAIR_LINES,
                                .n_outer = pair->diagonal ? least(i + 1, pair->n_keys) : pair->n_keys};
            float *c = m->dq + ((pair->query + i) * n_vectors + vector) * LINES + in_block * CR_LANES;
            add_rows(&x, c, LINES, pair->first_keys, least(TILE_BLOCKS, n_vectors - vector), false);
        }
    }
}

/* dK and dV of key blocks [key, key + n) of the prefix or of the sequence. */
static void put_keys(const struct cr_attention_args *args, const struct item *item, const struct backward *m,
                     size_t key, size_t n)
{
    size_t head = item->head * item->block;
    __m512 scale = _mm512_set1_ps(args->scale), one = _mm512_set1_ps(1);
    for (size_t j = 0; j < n; j++) {
        const float *dk = m->dk + j * m->dim * CR_LANES, *dv = m->dv + j * m->dim * CR_LANES;
        if (key + j < item->prefix_blocks) {
            struct item rows = prefix_of(item);
            rows.len = item->prefix_blocks * CR_LANES; /* zeros in the lanes past the last row */
            put(&rows, key + j, dk, scale, item->prefix_dk, item->block);
            put(&rows, key + j, dv, one, item->prefix_dv, item->block);
        } else {
            put(item, key + j - item->prefix_blocks, dk, scale, args->dk + head, args->dkv_stride);
            put(item, key + j - item->prefix_blocks, dv, one, args->dv + head, args->dkv_stride);
        }
    }
}

/* The query side of an item, block by block: operands, lse times log2(e), and delta[t] = <dO_t, O_t> feature by
 * feature. */
static void pack_queries(const struct cr_attention_args *args, const struct item *item, const struct backward *m)
{
    size_t head = item->head * item->block, lse_stride = args->n_heads * CR_LANES;
    size_t size = m->dim * PAIRS, score_size = score_block(m->dim, m->f32);
    for (size_t block = 0; block < item->n_blocks; block++) {
        struct packed q = score_operand(m->q + block * score_size, m->f32);
        q.tokens = m->q_tokens + block * size;
        struct packed d_o = {.features = m->d_o.features + block * size, .tokens = m->d_o.tokens + block * size};
        pack(item, block, 1, args->q + head, args->q_stride, q);
        pack(item, block, 1, args->d_o + head, args->do_stride, d_o);
        if (!m->f32) {
            tile_operand(m->q + block * score_size, m->dim / 2);
        }
        tile_operand(d_o.features, m->dim / 2);
        struct window w = item_window(item, block);
        size_t at = item->first / CR_LANES + block;
        const float *o = args->o + at * args->o_stride + head, *g = args->d_o + at * args->do_stride + head;
        const float *lse = args->lse + at * lse_stride + item->head * CR_LANES;
        __m512 sum[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
        for (size_t f = 0; f < item->dim; f++, o += CR_LANES, g += CR_LANES) {
            __m512 line = window_line(&w, g, g + args->do_stride);
            sum[f % 2] = _mm512_fmadd_ps(line, window_line(&w, o, o + args->o_stride), sum[f % 2]);
        }
        _mm512_store_ps(m->delta + block * CR_LANES, _mm512_add_ps(sum[0], sum[1]));
        __m512 log_sum = window_line(&w, lse, lse + lse_stride);
        _mm512_store_ps(m->lse + block * CR_LANES, _mm512_mul_ps(log_sum, _mm512_set1_ps(LOG2E)));
    }
}

static void put_queries(const struct cr_attention_args *args, const struct item *item, const struct backward *m)
{
    float lines[LINES] __attribute__((aligned(64)));
    __m512 scale = _mm512_set1_ps(args->scale);
    struct item part = *item;
    for (size_t block = 0; block < item->n_blocks; block++) {
        for (size_t f = 0; f < item->dim; f += CR_LANES) {
            transpose_tile(m->dq + (block * m->dim + f) * CR_LANES, lines);
            part.dim = least(CR_LANES, item->dim - f);
            put(&part, block, lines, scale, args->dq + item->head * item->block + f * CR_LANES, args->q_stride);
        }
    }
}

static void backward_item(const struct cr_attention_args *args, const struct item *item, const struct backward *m)
{
    pack_queries(args, item, m);
    struct pair pair = {.first_keys = true};
    if (item->n_blocks == 0) { /* only a prefix: no query adds to what its keys get */
        memset(m->dk, 0, TILE_BLOCKS * m->dim * CR_LANES * sizeof *m->dk);
        memset(m->dv, 0, TILE_BLOCKS * m->dim * CR_LANES * sizeof *m->dv);
    }
    for (size_t key = 0; key < m->blocks; key += pair.n_keys) {
        bool prefix = key < item->prefix_blocks;
        size_t end = prefix ? item->prefix_blocks : m->blocks, from = prefix ? 0 : key - item->prefix_blocks;
        pair.key = key;
        pair.n_keys = least(TILE_BLOCKS, end - key);
        size_t n_last = prefix && key + pair.n_keys == end ? item->prefix_rows - (end - 1) * CR_LANES : CR_LANES;
        pair.last_seen = (1u << n_last) - 1;
        for (pair.query = from; pair.query < item->n_blocks; pair.query += QUERIES) {
            pair.n_queries = least(QUERIES, item->n_blocks - pair.query);
            pair.first_queries = pair.query == from;
            pair.diagonal = !prefix && pair.first_queries;
            backward_pair(m, &pair);
        }
        put_keys(args, item, m, key, pair.n_keys);
        pair.first_keys = false;
    }
    put_queries(args, item, m);
}

static struct backward backward_scratch(const struct cr_attention_args *args, const struct item *item, void *scratch)
{
    size_t dim = padded(item->dim), blocks = item->prefix_blocks + item->n_blocks;
    size_t keys = blocks * dim * PAIRS, queries = item->n_blocks * dim * PAIRS;
    struct backward m = {.dim = dim, .blocks = blocks, .scale = args->scale * LOG2E, .f32 = args->f32_scores};
    size_t size = score_block(dim, m.f32);
    m.k = scratch;
    m.q = m.k + blocks * size;
    m.v = m.q + item->n_blocks * size;
    m.k_lanes = m.v + keys;
    m.q_tokens = m.k_lanes + keys;
    m.d_o.features = m.q_tokens + queries;
    m.d_o.tokens = m.d_o.features + queries;
    m.p = m.d_o.tokens + queries;
    m.ds = m.p + TILE_BLOCKS * QUERIES * PAIR_LINES;
    m.ds_rows = m.ds + TILE_BLOCKS * QUERIES * PAIR_LINES;
    m.lse = (float *)(void *)(m.ds_rows + TILE_BLOCKS * QUERIES * PAIR_LINES);
    m.delta = m.lse + item->n_blocks * CR_LANES;
    m.dq = m.delta + item->n_blocks * CR_LANES;
    m.dk = m.dq + 2 * queries;
    m.dv = m.dk + TILE_BLOCKS * dim * CR_LANES;
    m.p_tile = m.dv + TILE_BLOCKS * dim * CR_LANES;
    return m;
}

/* K for the scores and with its features as lanes, V as features. */
static void pack_backward_keys(const struct cr_attention_args *args, const struct item *item, const struct backward *m)
{
    size_t size = score_block(m->dim, m->f32);
    uint32_t *tokens = (uint32_t *)(void *)m->dk; /* free until the first pair */
    for (size_t block = 0; block < m->blocks; block++) {
        struct packed k = score_operand(m->k + block * size, m->f32);
        struct packed v = {.features = m->v + block * m->dim * PAIRS};
        k.tokens = tokens;
        pack_key(args, item, false, block, k);
        pack_key(args, item, true, block, v);
        for (size_t vector = 0; vector < m->dim / CR_LANES; vector++) {
            transpose_pairs(tokens + vector * PAIR_LINES, m->k_lanes + (vector * m->blocks + block) * PAIR_LINES);
        }
    }
}

static void attention_bwd(const struct cr_attention_args *args, size_t begin, size_t end, void *scratch)
{
    size_t packed_for = SIZE_MAX;
    for (size_t index = begin; index < end; index++) {
        struct item item = item_at(args, index);
        struct backward m = backward_scratch(args, &item, scratch);
        if (packed_for != item.seg * args->n_kv + item.kv_head) {
            packed_for = item.seg * args->n_kv + item.kv_head;
            pack_backward_keys(args, &item, &m);
        }
        backward_item(args, &item, &m);
    }
}

#endif
