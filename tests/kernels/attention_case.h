/* attention_case: shapes, packed random problems with or without prefixes, and the tables that run them. */
#ifndef CR_TESTS_ATTENTION_CASE_H
#define CR_TESTS_ATTENTION_CASE_H

#include <stdlib.h>

#include "credence/kernels/attention.h"
#include "tests/support/attention_model.h"
#include "tests/support/kernel_test.h"

#define END UINT32_MAX

struct shape {
    size_t n_heads, n_kv, head_dim;
    float scale, spread;       /* inputs are uniform in [-spread, spread] */
    const uint32_t *lengths;   /* ended by END */
    size_t n_rows, n_prefixes; /* sequence s sees prefix s mod (n_prefixes + 1), the last of which is none */
    bool f32_scores;
};

/* Odd starts for every length around a multiple of 16; pad tokens close the last block. */
static const uint32_t mixed[] = {3, 1, 2, 15, 16, 17, 48, 49, 130, END};
static const uint32_t whole[] = {32, 96, 16, END};
static const uint32_t ones[] = {1, 1, 1, END};
static const uint32_t empty[] = {5, 0, 11, 40, 0, 0, 8, END}; /* their prefix gets gradients of 0 */
static const uint32_t longer[] = {7, 211, 290, END}; /* several chunks of keys and of queries */

#define PLAIN(heads, kv, dim, factor, size, lens)                                                                      \
    {                                                                                                                  \
        .n_heads = heads, .n_kv = kv, .head_dim = dim, .scale = factor, .spread = size, .lengths = lens                \
    }
#define PREFIXED(heads, kv, dim, factor, lens, rows, prefixes)                                                         \
    {                                                                                                                  \
        .n_heads = heads, .n_kv = kv, .head_dim = dim, .scale = factor, .spread = 1, .lengths = lens, .n_rows = rows,  \
        .n_prefixes = prefixes                                                                                         \
    }

static const struct shape shapes[] = {
    PLAIN(1, 1, 8, 0.35355339f, 1, mixed),
    PLAIN(3, 1, 64, 0.125f, 1, mixed),
    PLAIN(3, 3, 24, 0.2041241f, 2, mixed),
    PLAIN(7, 1, 10, 0.31622777f, 1, mixed),
    PLAIN(4, 2, 80, 0.1118034f, 1, mixed),
    PLAIN(2, 1, 128, 0.08838835f, 1, whole),
    PLAIN(2, 2, 64, 1.5f, 1, mixed), /* one key takes nearly all */
    PLAIN(14, 2, 8, 0.35355339f, 1, ones),
    PLAIN(2, 1, 96, 0.10206207f, 1, mixed),
    PLAIN(2, 1, 64, 0.125f, 1, longer),
    PREFIXED(4, 2, 16, 0.25f, mixed, 5, 2),
    PREFIXED(2, 1, 64, 0.125f, mixed, 32, 1),
    PREFIXED(3, 1, 33, 0.1740777f, mixed, 70, 3),
    PREFIXED(2, 1, 8, 0.35355339f, ones, 130, 2),
    PREFIXED(2, 2, 48, 0.1443376f, whole, 1, 1),
    PREFIXED(2, 1, 16, 0.25f, empty, 20, 3),
};
enum { N_SHAPES = sizeof shapes / sizeof *shapes, MAX_SEG = 16, GAP = 16 };

/* Buffers with q, k and v side by side, as a projection leaves them. */
struct problem {
    struct shape shape;
    struct cr_attention_args args;
    uint32_t seg[MAX_SEG];
    size_t n_blocks, n_items, max_len, scratch_bytes;
    float *qkv, *o, *lse, *d_o, *dqkv, *dk, *dv; /* dqkv: dq, then sums of dk and dv */
    size_t qkv_floats, o_floats, lse_floats;
    struct cr_attention_prefix prefix;
    uint32_t of_seg[MAX_SEG];
    float *prefix_kv, *prefix_dkv, *prefix_part; /* k then v, each a half */
    size_t prefix_floats, part_floats;
    void *scratch;
};

/* Prefixes with random rows; the lanes past the last row stay NaN. */
static inline void make_prefix(struct problem *p, struct cr_rng *rng, enum cr_guard_side side)
{
    const struct shape *shape = &p->shape;
    size_t blocks = cr_tl16_blocks(shape->n_rows), width = shape->n_kv * shape->head_dim;
    size_t stride = blocks * width * CR_LANES + GAP, half = shape->n_prefixes * stride;
    size_t part = p->args.n_seg * shape->n_heads * blocks * shape->head_dim * CR_LANES;
    p->prefix_floats = 2 * half;
    p->part_floats = 2 * part;
    p->prefix_kv = cr_guard_alloc(p->prefix_floats * 4, 64, side);
    p->prefix_dkv = cr_guard_alloc(p->prefix_floats * 4, 64, side);
    p->prefix_part = cr_guard_alloc(p->part_floats * 4, 64, side);
    for (size_t i = 0; i < 2 * shape->n_prefixes * shape->n_rows * width; i++) {
        size_t row = i % shape->n_rows, f = i / shape->n_rows % width, at = i / shape->n_rows / width;
        float *place = p->prefix_kv + at * stride + (row / CR_LANES * width + f) * CR_LANES + row % CR_LANES;
        cr_fill_f32(rng, place, 1, -shape->spread, shape->spread);
    }
    for (size_t i = 0; i < p->prefix_floats; i++) {
        p->prefix_dkv[i] = (float)(i % 7) * 0.25f;
    }
    for (size_t seg = 0; seg < p->args.n_seg; seg++) {
        size_t prefix = seg % (shape->n_prefixes + 1);
        p->of_seg[seg] = prefix == shape->n_prefixes ? CR_ATTENTION_NO_PREFIX : (uint32_t)prefix;
    }
    p->prefix = (struct cr_attention_prefix){
        .k = p->prefix_kv,
        .v = p->prefix_kv + half,
        .dk = p->prefix_dkv,
        .dv = p->prefix_dkv + half,
        .stride = stride,
        .n_rows = shape->n_rows,
        .n_prefixes = shape->n_prefixes,
        .dk_part = p->prefix_part,
        .dv_part = p->prefix_part + part,
    };
}

static inline struct problem make(struct shape shape, uint64_t stream, enum cr_guard_side side)
{
    struct problem p = {.shape = shape};
    size_t n_seg = 0;
    for (; shape.lengths[n_seg] != END; n_seg++) {
        p.seg[n_seg + 1] = p.seg[n_seg] + shape.lengths[n_seg];
        p.max_len = shape.lengths[n_seg] > p.max_len ? shape.lengths[n_seg] : p.max_len;
    }
    p.n_blocks = cr_tl16_blocks(p.seg[n_seg]);
    if (p.seg[n_seg] % CR_LANES != 0) {
        p.seg[n_seg + 1] = (uint32_t)(p.n_blocks * CR_LANES);
        n_seg++;
        p.max_len = p.max_len < CR_LANES ? CR_LANES : p.max_len;
    }
    size_t head = shape.head_dim * CR_LANES;
    size_t q_stride = (shape.n_heads + 2 * shape.n_kv) * head + GAP, o_stride = shape.n_heads * head + GAP;
    p.n_items = n_seg * shape.n_heads;
    p.qkv_floats = p.n_blocks * q_stride;
    p.o_floats = p.n_blocks * o_stride;
    p.lse_floats = p.n_blocks * shape.n_heads * CR_LANES;
    p.scratch_bytes = cr_attention_scratch_bytes(p.max_len, shape.head_dim, shape.n_rows);
    p.qkv = cr_guard_alloc(p.qkv_floats * 4, 64, side);
    p.dqkv = cr_guard_alloc(p.qkv_floats * 4, 64, side);
    p.o = cr_guard_alloc(p.o_floats * 4, 64, side);
    p.d_o = cr_guard_alloc(p.o_floats * 4, 64, side);
    p.dk = cr_guard_alloc(p.o_floats * 4, 64, side);
    p.dv = cr_guard_alloc(p.o_floats * 4, 64, side);
    p.lse = cr_guard_alloc(p.lse_floats * 4, 64, side);
    p.scratch = cr_guard_alloc(p.scratch_bytes, 64, side);
    struct cr_rng rng = cr_rng_make(stream);
    cr_fill_f32(&rng, p.qkv, p.qkv_floats, -shape.spread, shape.spread);
    cr_fill_f32(&rng, p.d_o, p.o_floats, -1, 1);
    size_t k = shape.n_heads * head, v = k + shape.n_kv * head;
    p.args = (struct cr_attention_args){
        .q = p.qkv,
        .k = p.qkv + k,
        .v = p.qkv + v,
        .q_stride = q_stride,
        .kv_stride = q_stride,
        .o = p.o,
        .o_stride = o_stride,
        .lse = p.lse,
        .d_o = p.d_o,
        .dq = p.dqkv,
        .dk = p.dk,
        .dv = p.dv,
        .do_stride = o_stride,
        .dkv_stride = o_stride,
        .dk_sum = p.dqkv + k,
        .dv_sum = p.dqkv + v,
        .n_seg = n_seg,
        .n_heads = shape.n_heads,
        .n_kv = shape.n_kv,
        .head_dim = shape.head_dim,
        .scale = shape.scale,
        .f32_scores = shape.f32_scores,
    };
    if (shape.n_prefixes > 0) {
        make_prefix(&p, &rng, side);
    }
    return p;
}

static inline void *allocate(size_t n, size_t size)
{
    void *out = calloc(n > 0 ? n : 1, size);
    ck_assert(out != NULL);
    return out;
}

static inline void run(cr_attention_fn *fn, struct problem *p, size_t begin, size_t end)
{
    p->args.seg = p->seg;
    p->prefix.of_seg = p->of_seg;
    p->args.prefix = p->shape.n_prefixes > 0 ? &p->prefix : NULL;
    cr_poison(p->scratch, p->scratch_bytes);
    fn(&p->args, begin, end, p->scratch);
}

/* Beside the values of enum cr_tier: the source of the amx tier on a model of the tiles. */
enum { MODEL = 40, N_TABLES = CR_TEST_TIERS + 1 };

static inline size_t tables(unsigned out[N_TABLES])
{
    enum cr_tier tiers[CR_TEST_TIERS];
    size_t n = cr_test_tiers(tiers);
    bool runs = false;
    for (size_t i = 0; i < n; i++) {
        out[i] = tiers[i];
        runs = runs || tiers[i] == CR_TIER_AVX512_BF16;
    }
    if (runs) {
        out[n++] = MODEL;
    }
    return n;
}

/* Whether products may be of bf16; the amx tier has f32 ones where the compiler knows no tiles. */
static inline bool is_bf16(unsigned table)
{
    struct cr_attention_ops f32, ops;
    cr_attention_ops_init(&f32, CR_TIER_AVX512);
    cr_attention_ops_init(&ops, CR_TIER_AMX);
    return table == MODEL || table == CR_TIER_AVX512_BF16 || (table == CR_TIER_AMX && ops.fwd != f32.fwd);
}

static inline struct cr_attention_ops ops_of(unsigned table)
{
    struct cr_attention_ops ops;
    if (table == MODEL) {
        cr_attention_fill_model(&ops);
    } else {
        cr_attention_ops_init(&ops, (enum cr_tier)table);
    }
    return ops;
}

static inline size_t place(size_t stride, size_t dim, size_t head, size_t token, size_t f)
{
    return token / CR_LANES * stride + (head * dim + f) * CR_LANES + token % CR_LANES;
}

#endif
