/* attention, private: the forward pass of the bf16 variant.
 *
 * Three blocks of queries are the lanes. Keys come in chunks of at most CHUNK blocks, the prefix in chunks of its own,
 * then the sequence from its first token: S = K Q; running maximum and sum a lane (Milakov and Gimelshein 2018); P
 * rounded to bf16 over the memory of S, its sum taken of the rounded values; O = alpha O + V^T P. The chunks are
 * multiples of three blocks, so the diagonal lies in the last one, and their borders depend on positions alone.
 *
 * Exponents are in base 2: scale * log2(e) is multiplied into S within the subtraction of the maximum.
 */
#ifndef CR_ATTENTION_BF16_FWD_H
#define CR_ATTENTION_BF16_FWD_H

#include "kernels/attention/attention_bf16_lines.h"
#include "kernels/attention/attention_bf16_tile.h"
#include "kernels/attention/attention_scratch.h"

enum { CHUNK = CR_ATTENTION_KEYS / CR_LANES, LINES = CR_LANES * CR_LANES };

struct forward {
    uint32_t *k;              /* operand of the scores: the prefix's blocks, then the sequence's */
    uint32_t *v;              /* tokens, the same blocks */
    uint32_t *q;              /* operand of the scores, [TILE_BLOCKS] */
    float *s;                 /* [TILE_BLOCKS][CHUNK * 16][16]; P over it: pairs of keys */
    float *o;                 /* [TILE_BLOCKS][padded][16] */
    float *max, *sum, *alpha; /* [TILE_BLOCKS][16]: of S so far, times scale log2(e) */
    size_t dim;               /* padded */
    float scale;              /* scale log2(e) */
    bool f32;                 /* scores in f32 */
};

/* A chunk of key blocks against n query blocks from block `query` of the sequence. */
struct chunk {
    size_t block;    /* in k and v */
    size_t n;        /* key blocks */
    size_t n_rows;   /* keys among them that exist */
    size_t diagonal; /* first key block that some query does not see; n when there is none */
};

/* Eight rows of S for query blocks from `low` on, and their part of the maximum. In block `low` of a diagonal tile key
 * `first` + r is seen from its own lane on; rows from n_rows on are no keys. */
CR_INLINE void score_tile(const struct product *p, enum order order, float *s, float *max, const int n_blocks,
                          const bool edge, size_t first, size_t n_rows, bool diagonal)
{
    tile_acc acc;
    tile_scores(acc, p, order, n_blocks);
    if (edge) {
        __m512 never = _mm512_set1_ps(-__builtin_inff());
#pragma GCC unroll 8
        for (int r = 0; r < TILE_ROWS; r++) {
            uint32_t seen = first + (size_t)r < n_rows ? 0xffffu : 0;
            uint32_t later = diagonal ? seen << ((first + (size_t)r) % CR_LANES) : seen;
#pragma GCC unroll 3
            for (int j = 0; j < n_blocks; j++) {
                acc[r][j] = _mm512_mask_mov_ps(never, (__mmask16)(j == 0 ? later : seen), acc[r][j]);
            }
        }
    }
#pragma GCC unroll 3
    for (int j = 0; j < n_blocks; j++) {
        __m512 top = _mm512_load_ps(max + j * CR_LANES);
#pragma GCC unroll 8
        for (int r = 0; r < TILE_ROWS; r++) {
            top = _mm512_max_ps(acc[r][j], top);
        }
        _mm512_store_ps(max + j * CR_LANES, top);
    }
    tile_store(acc, s, CHUNK * LINES, n_blocks);
}

CR_INLINE void score_rows(const struct forward *m, const struct chunk *c, size_t key, size_t low, size_t n, float *max,
                          enum order order)
{
    size_t size = score_block(m->dim, order == NUMBERS);
    bool diagonal = key >= c->diagonal, edge = diagonal || (key + 1) * CR_LANES > c->n_rows;
    for (size_t row = 0; row < CR_LANES; row += TILE_ROWS) {
        struct product p = {.a = m->k + (c->block + key) * size + row,
                            .b = m->q + low * size,
                            .b_stride = size,
                            .n_steps = order == NUMBERS ? m->dim : m->dim / 2};
        size_t first = key * CR_LANES + row;
        float *s = m->s + low * CHUNK * LINES + first * CR_LANES, *top = max + low * CR_LANES;
        switch ((n - low) * 2 + edge) {
        case 2:
            score_tile(&p, order, s, top, 1, false, first, c->n_rows, diagonal);
            break;
        case 3:
            score_tile(&p, order, s, top, 1, true, first, c->n_rows, diagonal);
            break;
        case 4:
            score_tile(&p, order, s, top, 2, false, first, c->n_rows, diagonal);
            break;
        case 5:
            score_tile(&p, order, s, top, 2, true, first, c->n_rows, diagonal);
            break;
        case 6:
            score_tile(&p, order, s, top, 3, false, first, c->n_rows, diagonal);
            break;
        default:
            score_tile(&p, order, s, top, 3, true, first, c->n_rows, diagonal);
            break;
        }
    }
}

/* P of query block i over `n_blocks` key blocks, in place; moves max and sum on. */
static void probabilities_of(const struct forward *m, size_t i, size_t n_blocks, const float *chunk_max, bool first)
{
    float *s = m->s + i * CHUNK * LINES;
    uint32_t *p = (uint32_t *)(void *)s;
    __m512 scale = _mm512_set1_ps(m->scale);
    __m512 before = _mm512_load_ps(m->max + i * CR_LANES);
    __m512 max = _mm512_mul_ps(_mm512_load_ps(chunk_max + i * CR_LANES), scale);
    __m512 sum = _mm512_setzero_ps();
    if (!first) {
        max = _mm512_max_ps(max, before);
        __m512 alpha = exp2_of(_mm512_sub_ps(before, max));
        _mm512_store_ps(m->alpha + i * CR_LANES, alpha);
        sum = _mm512_mul_ps(_mm512_load_ps(m->sum + i * CR_LANES), alpha);
    }
    _mm512_store_ps(m->max + i * CR_LANES, max);
    __m512bh ones = (__m512bh)_mm512_set1_epi32(0x3f803f80);
#pragma GCC unroll 4
    for (size_t row = 0; row < n_blocks * CR_LANES; row += 2) {
        __m512 even = exp2_of(_mm512_fmsub_ps(_mm512_load_ps(s + row * CR_LANES), scale, max));
        __m512 odd = exp2_of(_mm512_fmsub_ps(_mm512_load_ps(s + (row + 1) * CR_LANES), scale, max));
        __m512i pairs = side_by_side(two_lines(even, odd));
        _mm512_store_si512(p + row / 2 * CR_LANES, pairs);
        sum = _mm512_dpbf16_ps(sum, (__m512bh)pairs, ones);
    }
    _mm512_store_ps(m->sum + i * CR_LANES, sum);
}

/* Eight features of O. */
CR_INLINE void value_tile(const struct forward *m, const struct product *p, float *o, bool first, const int n_blocks,
                          enum shape shape)
{
    size_t stride = m->dim * CR_LANES;
    tile_acc acc;
    if (first) {
        tile_clear(acc, n_blocks);
    } else {
        tile_load(acc, o, stride, n_blocks);
#pragma GCC unroll 3
        for (int j = 0; j < n_blocks; j++) {
            __m512 alpha = _mm512_load_ps(m->alpha + j * CR_LANES);
#pragma GCC unroll 8
            for (int r = 0; r < TILE_ROWS; r++) {
                acc[r][j] = _mm512_mul_ps(acc[r][j], alpha);
            }
        }
    }
    tile_product(acc, p, TOKENS, n_blocks, shape);
    tile_store(acc, o, stride, n_blocks);
}

static void value_rows(const struct forward *m, const struct chunk *c, size_t n, bool first)
{
    bool diagonal = c->diagonal < c->n;
    for (size_t f = 0; f < m->dim; f += TILE_ROWS) {
        struct product p = {.a = m->v + c->block * m->dim * PAIRS + f * PAIRS,
                            .a_outer = m->dim * PAIRS,
                            .b = (const uint32_t *)(const void *)m->s,
                            .b_stride = CHUNK * LINES,
                            .n_outer = c->n};
        float *o = m->o + f * CR_LANES;
        switch (n * 2 + diagonal) {
        case 2:
        case 3:
            value_tile(m, &p, o, first, 1, WHOLE);
            break;
        case 4:
            value_tile(m, &p, o, first, 2, WHOLE);
            break;
        case 5:
            value_tile(m, &p, o, first, 2, LATER);
            break;
        case 6:
            value_tile(m, &p, o, first, 3, WHOLE);
            break;
        default:
            value_tile(m, &p, o, first, 3, LATER);
            break;
        }
    }
}

static void forward_chunk(const struct forward *m, const struct chunk *c, size_t n, bool first)
{
    float max[TILE_BLOCKS * CR_LANES] __attribute__((aligned(64)));
    for (size_t t = 0; t < TILE_BLOCKS * CR_LANES; t++) {
        max[t] = -__builtin_inff();
    }
    for (size_t key = 0; key < c->n; key++) {
        size_t low = key > c->diagonal ? key - c->diagonal : 0;
        if (m->f32) {
            score_rows(m, c, key, low, n, max, NUMBERS);
        } else {
            score_rows(m, c, key, low, n, max, FEATURES);
        }
    }
    for (size_t i = 0; i < n; i++) {
        probabilities_of(m, i, least(c->n, c->diagonal + i + 1), max, first);
    }
    value_rows(m, c, n, first);
}

/* Query blocks [query, query + n), n at most TILE_BLOCKS. */
static void forward_group(const struct cr_attention_args *args, const struct item *item, const struct forward *m,
                          size_t query, size_t n)
{
    size_t head = item->head * item->block;
    pack(item, query, n, args->q + head, args->q_stride, score_operand(m->q, m->f32));
    bool first = true;
    for (size_t block = 0; block < item->prefix_blocks; block += CHUNK) {
        struct chunk c = {.block = block, .n = least(CHUNK, item->prefix_blocks - block)};
        c.n_rows = least(item->prefix_rows - block * CR_LANES, c.n * CR_LANES);
        c.diagonal = c.n;
        forward_chunk(m, &c, n, first);
        first = false;
    }
    for (size_t block = 0; block < query + n; block += CHUNK) {
        struct chunk c = {.block = item->prefix_blocks + block, .n = least(CHUNK, query + n - block)};
        c.n_rows = c.n * CR_LANES;
        c.diagonal = query - block < c.n ? query - block : c.n;
        forward_chunk(m, &c, n, first);
        first = false;
    }
    for (size_t i = 0; i < n; i++) {
        __m512 sum = _mm512_load_ps(m->sum + i * CR_LANES), max = _mm512_load_ps(m->max + i * CR_LANES);
        put(item, query + i, m->o + i * m->dim * CR_LANES, _mm512_div_ps(_mm512_set1_ps(1), sum), args->o + head,
            args->o_stride);
        struct window w = item_window(item, query + i);
        size_t stride = args->n_heads * CR_LANES;
        float *out = args->lse + (item->first / CR_LANES + query + i) * stride + item->head * CR_LANES;
        window_store_line(&w, out, out + stride, ln_of(sum, max));
    }
}

/* One block of keys or values: the prefix's blocks come first, then the sequence's. */
static void pack_key(const struct cr_attention_args *args, const struct item *item, bool values, size_t block,
                     struct packed to)
{
    if (block < item->prefix_blocks) {
        struct item rows = prefix_of(item);
        pack(&rows, block, 1, values ? item->prefix_v : item->prefix_k, item->prefix_stride, to);
    } else {
        const float *from = (values ? args->v : args->k) + item->kv_head * item->block;
        pack(item, block - item->prefix_blocks, 1, from, args->kv_stride, to);
    }
}

static void pack_forward_keys(const struct cr_attention_args *args, const struct item *item, const struct forward *m)
{
    size_t size = score_block(m->dim, m->f32);
    for (size_t block = 0; block < item->prefix_blocks + item->n_blocks; block++) {
        struct packed v = {.tokens = m->v + block * m->dim * PAIRS};
        pack_key(args, item, false, block, score_operand(m->k + block * size, m->f32));
        if (!m->f32) {
            tile_operand(m->k + block * size, m->dim / 2);
        }
        pack_key(args, item, true, block, v);
    }
}

static void attention_fwd(const struct cr_attention_args *args, size_t begin, size_t end, void *scratch)
{
    size_t packed_for = SIZE_MAX;
    for (size_t index = begin; index < end; index++) {
        struct item item = item_at(args, index);
        size_t dim = padded(item.dim), blocks = item.prefix_blocks + item.n_blocks;
        struct forward m = {.k = scratch, .dim = dim, .scale = args->scale * LOG2E, .f32 = args->f32_scores};
        m.v = m.k + blocks * score_block(dim, m.f32);
        m.q = m.v + blocks * dim * PAIRS;
        m.s = (float *)(void *)(m.q + TILE_BLOCKS * score_block(dim, m.f32));
        m.o = m.s + TILE_BLOCKS * CHUNK * LINES;
        m.max = m.o + TILE_BLOCKS * dim * CR_LANES;
        m.sum = m.max + TILE_BLOCKS * CR_LANES;
        m.alpha = m.sum + TILE_BLOCKS * CR_LANES;
        if (packed_for != item.seg * args->n_kv + item.kv_head) {
            packed_for = item.seg * args->n_kv + item.kv_head;
            pack_forward_keys(args, &item, &m);
        }
        for (size_t query = 0; query < item.n_blocks; query += TILE_BLOCKS) {
            forward_group(args, &item, &m, query, least(TILE_BLOCKS, item.n_blocks - query));
        }
    }
}

#endif
