/* qgemm: all tiers and types against a double product, adjointness, and bitwise invariance of splits and positions. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/common/half.h"
#include "credence/kernels/dequant.h"
#include "credence/kernels/qgemm.h"
#include "tests/support/kernel_test.h"

static const int served[] = {CR_Q_F32,  CR_Q_F16,  CR_Q_BF16, CR_Q_Q4_0, CR_Q_Q4_1, CR_Q_Q5_0,   CR_Q_Q5_1,  CR_Q_Q8_0,
                             CR_Q_Q2_K, CR_Q_Q3_K, CR_Q_Q4_K, CR_Q_Q5_K, CR_Q_Q6_K, CR_Q_IQ4_NL, CR_Q_IQ4_XS};
enum { N_SERVED = sizeof served / sizeof served[0] };

/* ---- one product with everything it needs ---- */

struct problem {
    struct cr_qgemm_ops ops;
    struct cr_qgemm_args args;
    bool dx;
    size_t n_out, n_reduce;
    float *x32, *w32; /* operands as the tier sees them: [blocks][reduce][16], [N][K] */
    void *weights, *scratch;
};

enum { BIAS = 1, LOWRANK = 2, ACCUMULATE = 4, P_TRANSPOSED = 8 };

static float as_operand(const struct problem *p, float value)
{
    return p->ops.x_type == CR_X_BF16 ? cr_bf16_to_f32(cr_f32_to_bf16(value)) : value;
}

/* Bytes that make finite, moderate weights: random codes, halves in +-2^-6. */
static void fill_weights(struct cr_rng *rng, int type, unsigned char *data, size_t n_values)
{
    const struct cr_qtype_info *info = cr_qtype_info(type);
    size_t n_blocks = n_values / info->block_values;
    cr_fill_bytes(rng, data, n_blocks * info->block_bytes);
    for (size_t b = 0; b < n_blocks; b++) {
        unsigned char *block = data + b * info->block_bytes;
        float value = cr_rng_uniform(rng, -1, 1);
        uint16_t halves[2] = {cr_f32_to_f16(cr_rng_uniform(rng, -0x1p-6f, 0x1p-6f)),
                              cr_f32_to_f16(cr_rng_uniform(rng, -0x1p-6f, 0x1p-6f))};
        uint16_t half = type == CR_Q_F16 ? cr_f32_to_f16(value) : cr_f32_to_bf16(value);
        switch (type) {
        case CR_Q_F32:
            memcpy(block, &value, 4);
            break;
        case CR_Q_F16:
        case CR_Q_BF16:
            memcpy(block, &half, 2);
            break;
        case CR_Q_Q2_K:
            memcpy(block + 80, halves, 4);
            break;
        case CR_Q_Q3_K:
        case CR_Q_Q6_K:
            memcpy(block + info->block_bytes - 2, halves, 2);
            break;
        case CR_Q_Q4_1:
        case CR_Q_Q5_1:
        case CR_Q_Q4_K:
        case CR_Q_Q5_K:
            memcpy(block, halves, 4);
            break;
        default:
            memcpy(block, halves, 2);
            break;
        }
    }
}

static void make_operand(struct problem *p, struct cr_rng *rng, enum cr_guard_side side)
{
    size_t lines = p->ops.x_type == CR_X_BF16 ? (p->n_reduce + 1) / 2 : p->n_reduce;
    size_t n_blocks = p->args.n_blocks;
    p->args.x_stride = lines * 64 + 64; /* a gap that is never read: it keeps its NaN */
    void *x = cr_guard_alloc(p->args.x_stride * n_blocks - 64, 64, side);
    p->x32 = malloc(n_blocks * p->n_reduce * 64);
    for (size_t b = 0; b < n_blocks; b++) {
        char *base = (char *)x + b * p->args.x_stride;
        memset(base, 0, lines * 64);
        for (size_t k = 0; k < p->n_reduce; k++) {
            for (size_t t = 0; t < 16; t++) {
                float value = as_operand(p, cr_rng_uniform(rng, -1, 1));
                p->x32[(b * p->n_reduce + k) * 16 + t] = value;
                if (p->ops.x_type == CR_X_BF16) {
                    ((uint16_t *)(void *)base)[cr_tl16_bf16(k, t)] = cr_f32_to_bf16(value);
                } else {
                    ((float *)(void *)base)[cr_tl16_f32(k, t)] = value;
                }
            }
        }
    }
    cr_guard_protect(x, true);
    p->args.x = x;
}

static struct problem make(enum cr_tier tier, int type, bool dx, size_t n, size_t k, size_t n_blocks, size_t rank,
                           unsigned flags, struct cr_rng *rng)
{
    struct problem p = {.dx = dx};
    enum cr_guard_side side = cr_rng_below(rng, 2) ? CR_AT_END : CR_AT_START;
    cr_qgemm_ops_init(&p.ops, tier);
    const struct cr_qtype_info *info = cr_qtype_info(type);
    p.n_out = dx ? k : n;
    p.n_reduce = dx ? n : k;
    size_t row_bytes = k / info->block_values * info->block_bytes;
    p.weights = cr_guard_alloc(row_bytes * n, 2, side);
    fill_weights(rng, type, p.weights, n * k);
    cr_guard_protect(p.weights, true);
    p.args = (struct cr_qgemm_args){.w = {p.weights, row_bytes, n, k, type}, .n_blocks = n_blocks};
    p.w32 = malloc(n * k * 4);
    for (size_t row = 0; row < n; row++) {
        cr_dequant_fn_for(type, CR_TIER_SCALAR)((char *)p.weights + row * row_bytes, 0, k, p.w32 + row * k);
    }
    for (size_t i = 0; i < n * k; i++) {
        p.w32[i] = as_operand(&p, p.w32[i]);
    }
    make_operand(&p, rng, side);
    p.args.y_stride = p.n_out * 16 + 16;
    p.args.y = cr_guard_alloc((p.args.y_stride * n_blocks - 16) * 4, 64, side);
    if (flags & BIAS) {
        float *bias = cr_guard_alloc(n * 4, 4, side);
        cr_fill_f32(rng, bias, n, -1, 1);
        cr_guard_protect(bias, true);
        p.args.bias = bias;
    }
    if (flags & LOWRANK) {
        float *lowrank = cr_guard_alloc(p.n_out * rank * 4, 4, side);
        cr_fill_f32(rng, lowrank, p.n_out * rank, -1, 1);
        cr_guard_protect(lowrank, true);
        p.args.p = lowrank;
        p.args.p_os = flags & P_TRANSPOSED ? 1 : rank;
        p.args.p_rs = flags & P_TRANSPOSED ? p.n_out : 1;
        p.args.u_stride = rank * 16;
        float *u = cr_guard_alloc(rank * 64 * n_blocks, 64, side);
        cr_fill_f32(rng, u, rank * 16 * n_blocks, -1, 1);
        cr_guard_protect(u, true);
        p.args.u = u;
        p.args.rank = rank;
    }
    p.args.accumulate = (flags & ACCUMULATE) != 0;
    p.scratch = cr_guard_alloc(cr_qgemm_scratch_bytes(&p.ops, p.n_reduce, rank), 64, side);
    return p;
}

static void run_range(const struct problem *p, const struct cr_qgemm_args *args, size_t begin, size_t end)
{
    (p->dx ? p->ops.dx : p->ops.fwd)(args, begin, end, p->scratch);
}

static void drop(struct problem *p)
{
    free(p->x32);
    free(p->w32);
    cr_guard_free_all();
}

static float weight(const struct problem *p, size_t o, size_t k)
{
    return p->dx ? p->w32[k * p->args.w.n_cols + o] : p->w32[o * p->args.w.n_cols + k];
}

/* Double product of output feature o and token block b, with the bound of qgemm.h. */
static void want_line(const struct problem *p, size_t o, size_t b, const float *y_before, double want[16],
                      double bound[16])
{
    const struct cr_qgemm_args *a = &p->args;
    double sum[16] = {0}, total[16] = {0};
    for (size_t k = 0; k < p->n_reduce; k++) {
        double w = weight(p, o, k);
        for (size_t t = 0; t < 16; t++) {
            double term = w * p->x32[(b * p->n_reduce + k) * 16 + t];
            sum[t] += term;
            total[t] += fabs(term);
        }
    }
    for (size_t i = 0; i < a->rank; i++) {
        for (size_t t = 0; t < 16; t++) {
            double term = (double)a->p[o * a->p_os + i * a->p_rs] * a->u[b * a->u_stride + i * 16 + t];
            sum[t] += term;
            total[t] += fabs(term);
        }
    }
    for (size_t t = 0; t < 16; t++) {
        double bias = a->bias != NULL ? a->bias[o] : 0, before = a->accumulate ? y_before[t] : 0;
        want[t] = sum[t] + bias + before;
        bound[t] = (double)(p->n_reduce + a->rank + 2) * 0x1p-24 * (total[t] + fabs(bias) + fabs(before));
    }
}

static void check(struct problem *p, struct cr_rng *rng)
{
    const struct cr_qgemm_args *a = &p->args;
    size_t n_y = a->y_stride * a->n_blocks - 16;
    float *before = malloc(n_y * 4);
    if (a->accumulate) {
        cr_fill_f32(rng, a->y, n_y, -1, 1);
    }
    memcpy(before, a->y, n_y * 4);
    run_range(p, a, 0, p->n_out);
    char what[160];
    for (size_t b = 0; b < a->n_blocks; b++) {
        for (size_t o = 0; o < p->n_out; o++) {
            size_t at = b * a->y_stride + o * 16;
            double want[16], bound[16];
            want_line(p, o, b, before + at, want, bound);
            snprintf(what, sizeof what, "%s %s %s N=%zu K=%zu r=%zu blocks=%zu feature %zu block %zu",
                     cr_tier_name(p->ops.tier), p->dx ? "dx" : "fwd", cr_qtype_info(a->w.type)->name, a->w.n_rows,
                     a->w.n_cols, a->rank, a->n_blocks, o, b);
            cr_expect_within(what, a->y + at, want, bound, 16);
        }
        if (b + 1 < a->n_blocks) { /* the gap between blocks is untouched */
            size_t gap = b * a->y_stride + p->n_out * 16;
            cr_expect_bytes("gap", a->y + gap, before + gap, 64);
        }
    }
    free(before);
}

/* ---- tests ---- */

/* Every tier and type, both directions, with tails in N and in the token blocks. _i = type index. */
START_TEST(all_types)
{
    int type = served[_i];
    enum cr_tier tiers[CR_TEST_TIERS];
    size_t n_tiers = cr_test_tiers(tiers);
    size_t k = cr_qtype_info(type)->block_values == 256 ? 512 : 96;
    for (size_t t = 0; t < n_tiers; t++) {
        struct cr_rng rng = cr_rng_make(200 + (uint64_t)_i);
        for (int dx = 0; dx < 2; dx++) {
            struct problem p = make(tiers[t], type, dx, 72, k, 4, 5, LOWRANK | (dx ? 0 : BIAS), &rng);
            check(&p, &rng);
            drop(&p);
            p = make(tiers[t], type, dx, 40, k, 1, 0, 0, &rng);
            check(&p, &rng);
            drop(&p);
        }
    }
}
END_TEST

/* Shapes: one output, edges of strips, blocks and slabs; token blocks 1 to 8; every flag. */
START_TEST(tails)
{
    static const struct {
        size_t n, k, n_blocks, rank;
    } shapes[] = {
        {1, 32, 1, 0},    {7, 32, 2, 1},    {8, 64, 3, 2},    {9, 64, 4, 8},    {31, 96, 5, 16},  {32, 32, 6, 3},
        {33, 576, 7, 16}, {40, 160, 8, 64}, {192, 576, 2, 8}, {65, 1536, 1, 4}, {577, 64, 2, 16}, {33, 4864, 2, 8},
        {2, 2080, 3, 4},  {4099, 32, 1, 2}, {32, 32, 0, 0},   {9, 8192, 2, 1},
    };
    enum cr_tier tiers[CR_TEST_TIERS];
    size_t n_tiers = cr_test_tiers(tiers);
    for (size_t t = 0; t < n_tiers; t++) {
        struct cr_rng rng = cr_rng_make(300 + (uint64_t)_i);
        for (int dx = 0; dx < 2; dx++) {
            for (unsigned flags = 0; flags < 16; flags++) {
                size_t rank = flags & LOWRANK ? shapes[_i].rank : 0;
                bool large = shapes[_i].n * shapes[_i].k > 10000 && flags != 6 && flags != 15;
                if ((dx && (flags & BIAS)) || ((flags & LOWRANK) && rank == 0) || large || shapes[_i].n_blocks == 0) {
                    continue;
                }
                int type = flags & 1 ? CR_Q_Q8_0 : flags & 2 ? CR_Q_Q4_1 : CR_Q_Q4_0;
                struct problem p =
                    make(tiers[t], type, dx, shapes[_i].n, shapes[_i].k, shapes[_i].n_blocks, rank, flags, &rng);
                check(&p, &rng);
                drop(&p);
            }
        }
    }
}
END_TEST

/* A whole run against the same range in pieces, the same tokens in other blocks and other lanes, fewer blocks. */
START_TEST(invariance)
{
    static const int types[] = {CR_Q_Q4_0, CR_Q_Q4_1, CR_Q_Q8_0, CR_Q_Q5_1, CR_Q_F32};
    enum cr_tier tiers[CR_TEST_TIERS];
    size_t n_tiers = cr_test_tiers(tiers);
    for (size_t t = 0; t < n_tiers; t++) {
        struct cr_rng rng = cr_rng_make(400 + (uint64_t)_i);
        for (int dx = 0; dx < 2; dx++) {
            size_t long_reduce = _i % 2 ? 2336 : 320;
            struct problem p = make(tiers[t], types[_i], dx, dx ? long_reduce : 136, dx ? 160 : long_reduce, 8, 4,
                                    LOWRANK | (dx ? 0 : BIAS), &rng);
            struct cr_qgemm_args *a = &p.args;
            size_t n_y = a->y_stride * a->n_blocks - 16;
            run_range(&p, a, 0, p.n_out);
            float *whole = malloc(n_y * 4);
            memcpy(whole, a->y, n_y * 4);
            cr_poison(a->y, n_y * 4);
            for (size_t begin = 0; begin < p.n_out;) {
                size_t end = begin + p.ops.step * (1 + cr_rng_below(&rng, 3));
                end = end > p.n_out ? p.n_out : end;
                run_range(&p, a, begin, end);
                begin = end;
            }
            cr_expect_bytes("split of the range", a->y, whole, n_y * 4);
            float *y = cr_guard_alloc(8 * p.n_out * 64, 64, CR_AT_END);
            static const size_t parts[][2] = {{0, 1}, {0, 2}, {0, 3}, {0, 4}, {1, 5},
                                              {1, 6}, {1, 7}, {4, 1}, {5, 2}, {7, 1}};
            for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
                size_t first = parts[i][0], n = parts[i][1];
                struct cr_qgemm_args part = *a;
                part.x = (const char *)a->x + first * a->x_stride;
                part.u = a->u + first * a->u_stride;
                part.n_blocks = n;
                part.y_stride = p.n_out * 16;
                part.y = y + (8 - n) * p.n_out * 16;
                cr_poison(y, 8 * p.n_out * 64);
                run_range(&p, &part, 0, p.n_out);
                for (size_t b = 0; b < n; b++) {
                    cr_expect_bytes("part of the tokens", part.y + b * part.y_stride, whole + (first + b) * a->y_stride,
                                    p.n_out * 64);
                }
            }
            free(whole);
            drop(&p);
        }
    }
}
END_TEST

/* A token gives the same bits in every lane and block. */
START_TEST(position)
{
    enum cr_tier tiers[CR_TEST_TIERS];
    size_t n_tiers = cr_test_tiers(tiers);
    for (size_t t = 0; t < n_tiers; t++) {
        struct cr_rng rng = cr_rng_make(500);
        struct problem p = make(tiers[t], CR_Q_Q4_1, false, 40, 640, 7, 0, 0, &rng);
        bool bf16 = p.ops.x_type == CR_X_BF16;
        char *x = (char *)(uintptr_t)p.args.x;
        cr_guard_protect(x, false);
        size_t lines = bf16 ? 320 : 640;
        for (size_t b = 0; b < 7; b++) { /* token 0 of block 0 everywhere */
            for (size_t line = 0; line < lines; line++) {
                for (size_t lane = 0; lane < 16; lane++) {
                    memcpy(x + b * p.args.x_stride + line * 64 + lane * 4, x + line * 64, 4);
                }
            }
        }
        run_range(&p, &p.args, 0, 40);
        for (size_t b = 0; b < 7; b++) {
            for (size_t o = 0; o < 40; o++) {
                for (size_t lane = 0; lane < 16; lane++) {
                    cr_expect_bytes("lane", p.args.y + b * p.args.y_stride + o * 16 + lane, p.args.y + o * 16, 4);
                }
            }
        }
        drop(&p);
    }
}
END_TEST

/* <Z, W X> = <W^T Z, X> with the same blocks: forward and dX use one and the same weight. */
START_TEST(adjoint)
{
    int type = served[_i];
    enum cr_tier tiers[CR_TEST_TIERS];
    size_t n_tiers = cr_test_tiers(tiers);
    for (size_t t = 0; t < n_tiers; t++) {
        struct cr_rng rng = cr_rng_make(600 + (uint64_t)_i);
        enum { N = 96, K = 256 };
        struct problem f = make(tiers[t], type, false, N, K, 3, 0, 0, &rng);
        struct problem d = make(tiers[t], type, true, N, K, 3, 0, 0, &rng);
        d.args.w = f.args.w;
        run_range(&f, &f.args, 0, N);
        run_range(&d, &d.args, 0, K);
        for (size_t b = 0; b < 3; b++) {
            for (size_t lane = 0; lane < 16; lane++) {
                double left = 0, right = 0, total = 0;
                for (size_t n = 0; n < N; n++) {
                    left += (double)d.x32[(b * N + n) * 16 + lane] * f.args.y[b * f.args.y_stride + n * 16 + lane];
                }
                for (size_t k = 0; k < K; k++) {
                    right += (double)f.x32[(b * K + k) * 16 + lane] * d.args.y[b * d.args.y_stride + k * 16 + lane];
                    for (size_t n = 0; n < N; n++) {
                        total += fabs((double)f.w32[n * K + k] * f.x32[(b * K + k) * 16 + lane] *
                                      d.x32[(b * N + n) * 16 + lane]);
                    }
                }
                /* each product is within (K + 2) or (N + 2) roundings of its terms */
                double bound = (K + N + 4) * 0x1p-24 * total;
                ck_assert_msg(fabs(left - right) <= bound, "%s %s: %.12g and %.12g differ by more than %.3g",
                              cr_tier_name(tiers[t]), cr_qtype_info(type)->name, left, right, bound);
            }
        }
        free(d.x32);
        free(d.w32);
        drop(&f);
    }
}
END_TEST

/* Unit tokens read single weights: the value of a weight is the documented one, bit for bit, both directions. */
START_TEST(weights_exact)
{
    int type = served[_i];
    enum cr_tier tiers[CR_TEST_TIERS];
    size_t n_tiers = cr_test_tiers(tiers);
    for (size_t t = 0; t < n_tiers; t++) {
        enum { N = 48, K = 256 };
        for (int dx = 0; dx < 2; dx++) {
            struct cr_rng rng = cr_rng_make(700 + (uint64_t)_i);
            size_t n_reduce = dx ? N : K;
            struct problem p = make(tiers[t], type, dx, N, K, n_reduce / 16, 0, 0, &rng);
            char *x = (char *)(uintptr_t)p.args.x;
            cr_guard_protect(x, false);
            for (size_t b = 0; b < n_reduce / 16; b++) {
                char *base = x + b * p.args.x_stride;
                memset(base, 0, cr_tl16_bytes(p.ops.x_type, n_reduce));
                for (size_t lane = 0; lane < 16; lane++) {
                    if (p.ops.x_type == CR_X_BF16) {
                        ((uint16_t *)(void *)base)[cr_tl16_bf16(b * 16 + lane, lane)] = 0x3f80;
                    } else {
                        ((float *)(void *)base)[cr_tl16_f32(b * 16 + lane, lane)] = 1;
                    }
                }
            }
            run_range(&p, &p.args, 0, p.n_out);
            for (size_t o = 0; o < p.n_out; o++) {
                for (size_t k = 0; k < n_reduce; k++) {
                    float got = p.args.y[k / 16 * p.args.y_stride + o * 16 + k % 16];
                    ck_assert_msg(got == weight(&p, o, k), "%s %s %s: weight (%zu,%zu) is %.9g, expected %.9g",
                                  cr_tier_name(tiers[t]), dx ? "dx" : "fwd", cr_qtype_info(type)->name, o, k,
                                  (double)got, (double)weight(&p, o, k));
                }
            }
            drop(&p);
        }
    }
}
END_TEST

/* The f32 tiers with FMA run the same chains: their results are the same bits. */
START_TEST(f32_tiers_agree)
{
    struct cr_cpu cpu;
    cr_cpu_detect(&cpu);
    if (!(cpu.features >> CR_TIER_AVX512 & 1u)) {
        return;
    }
    for (int dx = 0; dx < 2; dx++) {
        struct cr_rng rng = cr_rng_make(800);
        struct problem p = make(CR_TIER_AVX2, CR_Q_Q4_1, dx, 104, 1056, 7, 5, LOWRANK, &rng);
        size_t n_y = p.args.y_stride * 7 - 16;
        float *first = malloc(n_y * 4);
        run_range(&p, &p.args, 0, p.n_out);
        memcpy(first, p.args.y, n_y * 4);
        cr_qgemm_ops_init(&p.ops, CR_TIER_AVX512);
        cr_poison(p.args.y, n_y * 4);
        run_range(&p, &p.args, 0, p.n_out);
        cr_expect_bytes("avx512 against avx2", p.args.y, first, n_y * 4);
        free(first);
        drop(&p);
    }
}
END_TEST

START_TEST(tables)
{
    struct cr_qgemm_ops ops;
    cr_qgemm_ops_init(&ops, CR_TIER_SCALAR);
    ck_assert_int_eq(ops.x_type, CR_X_F32);
    ck_assert_int_eq(ops.tier, CR_TIER_SCALAR);
    cr_qgemm_ops_init(&ops, CR_TIER_AMX); /* implies avx512, not avx512_bf16 */
    ck_assert_int_eq(ops.x_type, CR_X_F32);
    cr_qgemm_ops_init(&ops, CR_TIER_NEON);
    ck_assert_int_eq(ops.tier, CR_TIER_SCALAR);
    ck_assert_uint_eq(ops.step, 32);
    ck_assert_uint_ge(cr_qgemm_scratch_bytes(&ops, 49152, 256), (size_t)49152 * 32 * 4);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("qgemm");
    TCase *tc = tcase_create("qgemm");
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, tables);
    tcase_add_loop_test(tc, all_types, 0, N_SERVED);
    tcase_add_loop_test(tc, weights_exact, 0, N_SERVED);
    tcase_add_loop_test(tc, adjoint, 0, N_SERVED);
    tcase_add_loop_test(tc, tails, 0, 16);
    tcase_add_loop_test(tc, invariance, 0, 5);
    tcase_add_test(tc, position);
    tcase_add_test(tc, f32_tiers_agree);
    suite_add_tcase(suite, tc);
    return cr_run_suite(suite);
}
