/* lowrank_case: random problems of a shape, single numbers of them, and the tables that run them. */
#ifndef CR_TESTS_LOWRANK_CASE_H
#define CR_TESTS_LOWRANK_CASE_H

#include "credence/kernels/lowrank.h"
#include "credence/kernels/rng.h"
#include "kernels/common/half.h"
#include "tests/support/amx_trap.h"
#include "tests/support/kernel_test.h"
#include "tests/support/lowrank_model.h"

struct shape {
    size_t rank, n_features, n_blocks;
    enum cr_xtype x_type;
    uint32_t keep16;
    bool by_feature; /* P and G as (K x r) row-major, like B; else (r x K), like A */
};

/* One problem with its inputs in guarded memory; gaps between token blocks are part of the buffers. */
struct problem {
    struct shape shape;
    struct cr_lowrank_args args;
    float *p, *g, *y, *u_in, *u_out;
    void *x, *scratch;
    uint32_t *position, *example;
    size_t x_bytes, g_floats, y_floats, u_floats, scratch_bytes;
};

enum { GAP = 32 }; /* floats */

static inline float *guarded_fill(struct cr_rng *rng, size_t n, enum cr_guard_side side)
{
    float *out = cr_guard_alloc(n * sizeof(float), 64, side);
    cr_fill_f32(rng, out, n, -1, 1);
    return out;
}

static inline struct problem make(struct shape shape, uint64_t stream, enum cr_guard_side side)
{
    struct problem p = {.shape = shape};
    struct cr_rng rng = cr_rng_make(stream);
    size_t rank = shape.rank, n_features = shape.n_features, n_blocks = shape.n_blocks;
    /* Blocks of whole 32 KiB stand without a gap: their lines meet in the same sets of a cache, and are copied. */
    size_t x_block = cr_tl16_bytes(shape.x_type, n_features), x_gap = x_block % 32768 == 0 ? 0 : GAP * 4;
    size_t x_stride = x_block + x_gap;
    size_t y_stride = n_features * CR_LANES + GAP, u_stride = rank * CR_LANES + GAP;
    p.x_bytes = n_blocks * x_stride - x_gap;
    p.y_floats = n_blocks * y_stride - GAP;
    p.u_floats = n_blocks * u_stride - GAP;
    p.g_floats = rank * n_features;
    p.x = cr_guard_alloc(p.x_bytes, 64, side);
    if (shape.x_type == CR_X_F32) {
        cr_fill_f32(&rng, p.x, p.x_bytes / 4, -1, 1);
    } else {
        cr_fill_bf16(&rng, p.x, p.x_bytes / 2, -1, 1);
        /* Beside an odd last feature stands nothing that may be used. */
        for (size_t t = 0; n_features % 2 != 0 && t < n_blocks * CR_LANES; t++) {
            uint16_t *block = (uint16_t *)(void *)((char *)p.x + t / CR_LANES * x_stride);
            block[cr_tl16_bf16(n_features, t % CR_LANES)] = 0xffff;
        }
    }
    p.p = cr_guard_alloc(p.g_floats * 4, 4, side);
    p.g = cr_guard_alloc(p.g_floats * 4, 4, side);
    cr_fill_f32(&rng, p.p, p.g_floats, -1, 1);
    cr_fill_f32(&rng, p.g, p.g_floats, -1, 1);
    p.y = guarded_fill(&rng, p.y_floats, side);
    p.u_in = guarded_fill(&rng, p.u_floats, side);
    p.u_out = cr_guard_alloc(p.u_floats * 4, 64, side);
    p.position = cr_guard_alloc(n_blocks * 64, 4, side);
    p.example = cr_guard_alloc(n_blocks * 64, 4, side);
    for (size_t t = 0; t < n_blocks * CR_LANES; t++) {
        p.position[t] = cr_rng_below(&rng, 4096);
        p.example[t] = cr_rng_below(&rng, 100000);
    }
    p.scratch_bytes = cr_lowrank_scratch_bytes(n_features, rank);
    p.scratch = cr_guard_alloc(p.scratch_bytes, 64, side);
    void *inputs[] = {p.x, p.p, p.u_in, p.position, p.example};
    for (size_t i = 0; i < sizeof inputs / sizeof *inputs; i++) {
        cr_guard_protect(inputs[i], true);
    }
    size_t rs = shape.by_feature ? 1 : n_features, ks = shape.by_feature ? rank : 1;
    p.args = (struct cr_lowrank_args){
        .p = p.p,
        .p_rs = rs,
        .p_ks = ks,
        .g = p.g,
        .g_rs = rs,
        .g_ks = ks,
        .x = p.x,
        .x_type = shape.x_type,
        .x_stride = x_stride,
        .y = p.y,
        .y_stride = y_stride,
        .u = p.u_out,
        .u_stride = u_stride,
        .rank = rank,
        .n_features = n_features,
        .n_blocks = n_blocks,
        .scale = 0.75f,
        .dropout = {shape.keep16, {12345, 77}, 9, p.position, p.example},
    };
    return p;
}

static inline double x_value(const struct problem *p, size_t token, size_t k)
{
    const char *block = (const char *)p->x + token / CR_LANES * p->args.x_stride;
    if (p->shape.x_type == CR_X_F32) {
        return ((const float *)(const void *)block)[cr_tl16_f32(k, token % CR_LANES)];
    }
    return cr_bf16_to_f32(((const uint16_t *)(const void *)block)[cr_tl16_bf16(k, token % CR_LANES)]);
}

static inline double p_value(const struct problem *p, size_t i, size_t k)
{
    return p->args.p[i * p->args.p_rs + k * p->args.p_ks];
}

/* The mask as the contract words it. */
static inline double mask_value(const struct cr_dropout *d, size_t token, size_t k)
{
    if (d->keep16 == 65536) {
        return 1;
    }
    uint32_t counter[4] = {(uint32_t)(k / 8), d->position[token], d->example[token], d->step};
    uint32_t word[4];
    cr_philox4x32(counter, d->key, word);
    uint32_t w = word[k % 8 / 2];
    uint32_t draw = k % 2 == 0 ? w & 0xffff : w >> 16;
    return draw < d->keep16 ? 65536.0f / (float)d->keep16 : 0;
}

/* [0, n) in one call, or in uneven pieces of multiples of `step`, last piece first. */
static inline void run(cr_lowrank_fn *fn, struct problem *p, size_t n, size_t step, bool pieces)
{
    size_t end = n;
    for (size_t count = 1; pieces && end > step; count = count % 3 + 1) {
        size_t begin = (end - 1) / step * step;
        begin -= begin >= count * step ? (count - 1) * step : 0;
        cr_poison(p->scratch, p->scratch_bytes);
        fn(&p->args, begin, end, p->scratch);
        end = begin;
    }
    cr_poison(p->scratch, p->scratch_bytes);
    fn(&p->args, 0, end, p->scratch);
}

/* Beside the values of enum cr_tier: the source of the amx tier on the model of the tiles, and its object in the
 * library with the tile instructions emulated. */
enum { MODEL = 40, TRAPPED, N_TABLES = CR_TEST_TIERS + 2 };

static inline struct cr_lowrank_ops ops_of(unsigned table)
{
    struct cr_lowrank_ops ops;
    if (table == MODEL) {
        cr_lowrank_fill_model(&ops);
    } else {
        cr_lowrank_ops_init(&ops, table == TRAPPED ? CR_TIER_AMX : (enum cr_tier)table);
    }
    return ops;
}

/* Whether down and grad of X in bf16 are products of tiles; amx has vectors where the compiler knows no tiles. */
static inline bool on_tiles(unsigned table)
{
    struct cr_lowrank_ops f32 = ops_of(CR_TIER_AVX512), ops = ops_of(CR_TIER_AMX);
    return table == MODEL || table == TRAPPED || (table == CR_TIER_AMX && ops.down != f32.down);
}

static const double UNIT = 0x1p-24;

/* Roundings that a term of a sum of n meets. Vectors: it is rounded at most twice (mask, product) and passes through at
 * most as many additions as the sum has terms; the scale, or the addition to what was there, rounds once more. Tiles:
 * products of parts are exact; one passes through 15 additions in its half of a step, 1 of the halves, 15 of the steps
 * of a run, 1 of the parts, and 1 a run of 512; the factor of scale and mask is rounded once, and the additions of the
 * middle and low parts, 2^-8 of the whole, weigh less than 1 together. A sum of few terms has fewer. */
static inline double roundings(bool tiles, double n)
{
    return tiles ? fmin(n + 3, n / 512 + 35) : n + 2;
}

static inline size_t tables(unsigned out[N_TABLES])
{
    enum cr_tier tiers[CR_TEST_TIERS];
    size_t n = cr_test_tiers(tiers);
    bool model = false, trap = false, hardware = false;
    for (size_t i = 0; i < n; i++) {
        out[i] = tiers[i];
        model = model || tiers[i] == CR_TIER_AVX512;
        trap = trap || tiers[i] == CR_TIER_AVX512_BF16; /* every flag of the tier but the tiles */
        hardware = hardware || tiers[i] == CR_TIER_AMX;
    }
    if (model) {
        out[n++] = MODEL;
    }
    if (trap && !hardware && on_tiles(CR_TIER_AMX) && cr_amx_trap_install()) {
        out[n++] = TRAPPED;
    }
    return n;
}

#endif
