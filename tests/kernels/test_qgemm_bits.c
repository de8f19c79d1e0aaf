/* qgemm, bits: the chain of operations of each tier, redone one number at a time. The f32 tiers with FMA agree on every
 * architecture because each gives the bits of the same chain of fmaf; neon_bf16 those of BFDOT, which rounds to odd. */
#include <math.h>
#include <string.h>

#include "credence/kernels/dequant.h"
#include "credence/kernels/qgemm.h"
#include "kernels/common/half.h"
#include "tests/support/kernel_test.h"

enum { N = 40, K = 416, BLOCKS = 5, RANK = 3 }; /* K: several slabs of 128 steps, also as pairs */

/* Sum in double rounded to odd, by way of its exact error (Knuth's two-sum), then cut to f32 rounded to odd: a last bit
 * that stands for everything lost survives the second cut. Normal numbers only. */
static float add_odd(float a, float b)
{
    double x = (double)a, y = (double)b, sum = x + y, part = sum - x;
    double error = (x - (sum - part)) + (y - part);
    uint64_t bits;
    memcpy(&bits, &sum, 8);
    if (error != 0 && (bits & 1) == 0) {
        bits += (error > 0) == (sum > 0) ? 1 : (uint64_t)-1;
    }
    uint64_t lost = bits & 0x1fffffffu;
    bits = (bits - lost) | (lost != 0 ? 0x20000000u : 0);
    memcpy(&sum, &bits, 8);
    return (float)sum; /* exact */
}

typedef float step_fn(float acc, const float *w, const float *x);

static float step_plain(float acc, const float *w, const float *x)
{
    return acc + w[0] * x[0];
}

static float step_fused(float acc, const float *w, const float *x)
{
    return fmaf(w[0], x[0], acc);
}

static float step_bfdot(float acc, const float *w, const float *x)
{
    return add_odd(acc, add_odd(w[0] * x[0], w[1] * x[1]));
}

struct operands {
    float *w;           /* [N][K] */
    float *x;           /* [BLOCKS][features][16] values of the operand */
    float p[RANK * K], *u;
    size_t n_out, n_reduce;
    bool dx;
};

static float want(const struct operands *d, enum cr_xtype type, step_fn *step, bool fused, size_t o, size_t block,
                  size_t lane)
{
    float acc = 0;
    size_t per_step = type == CR_X_BF16 ? 2 : 1;
    for (size_t k = 0; k < d->n_reduce; k += per_step) {
        float w[2], x[2];
        for (size_t i = 0; i < per_step; i++) {
            float weight = d->dx ? d->w[(k + i) * K + o] : d->w[o * K + k + i];
            w[i] = type == CR_X_BF16 ? cr_bf16_to_f32(cr_f32_to_bf16(weight)) : weight;
            x[i] = d->x[(block * d->n_reduce + k + i) * CR_LANES + lane];
        }
        acc = step(acc, w, x);
    }
    for (size_t i = 0; i < RANK; i++) {
        float p = d->p[o * RANK + i], u = d->u[(block * RANK + i) * CR_LANES + lane];
        acc = fused ? fmaf(p, u, acc) : acc + p * u;
    }
    return acc;
}

static void compare(const struct operands *d, enum cr_tier tier)
{
    struct cr_qgemm_ops ops;
    ck_assert_int_eq(cr_qgemm_ops_init(&ops, tier), CR_OK);
    step_fn *step = ops.tier == CR_TIER_SCALAR ? step_plain : ops.tier == CR_TIER_NEON_BF16 ? step_bfdot : step_fused;
    if (ops.x_type == CR_X_BF16 && ops.tier != CR_TIER_NEON_BF16) {
        return; /* VDPBF16PS: judged by its bound in test_qgemm */
    }
    size_t block_bytes = cr_tl16_bytes(ops.x_type, d->n_reduce);
    char *x = cr_guard_alloc(BLOCKS * block_bytes, 64, CR_AT_END);
    for (size_t b = 0; b < BLOCKS; b++) {
        for (size_t i = 0; i < d->n_reduce * CR_LANES; i++) {
            char *base = x + b * block_bytes;
            float value = d->x[b * d->n_reduce * CR_LANES + i];
            if (ops.x_type == CR_X_BF16) {
                ((uint16_t *)(void *)base)[cr_tl16_bf16(i / CR_LANES, i % CR_LANES)] = cr_f32_to_bf16(value);
            } else {
                ((float *)(void *)base)[i] = value;
            }
        }
    }
    float *y = cr_guard_alloc(BLOCKS * d->n_out * 64, 64, CR_AT_END);
    void *scratch = cr_guard_alloc(cr_qgemm_scratch_bytes(&ops, d->n_reduce, RANK), 64, CR_AT_END);
    struct cr_qgemm_args args = {.w = {d->w, K * sizeof(float), N, K, CR_Q_F32},
                                 .x = x,
                                 .x_stride = block_bytes,
                                 .y = y,
                                 .y_stride = d->n_out * CR_LANES,
                                 .n_blocks = BLOCKS,
                                 .p = d->p,
                                 .p_os = RANK,
                                 .p_rs = 1,
                                 .u = d->u,
                                 .u_stride = RANK * CR_LANES,
                                 .rank = RANK};
    (d->dx ? ops.dx : ops.fwd)(&args, 0, d->n_out, scratch);
    for (size_t i = 0; i < BLOCKS * d->n_out * CR_LANES; i += 3) { /* 3 and 16 are coprime: every lane */
        size_t block = i / (d->n_out * CR_LANES), o = i / CR_LANES % d->n_out;
        float expected = want(d, ops.x_type, step, ops.tier != CR_TIER_SCALAR, o, block, i % CR_LANES);
        ck_assert_msg(cr_f32_bits(y[i]) == cr_f32_bits(expected), "%s %s feature %zu block %zu lane %zu: %a, expected %a",
                      cr_tier_name(ops.tier), d->dx ? "dx" : "fwd", o, block, i % CR_LANES, (double)y[i],
                      (double)expected);
    }
    cr_guard_free(x);
    cr_guard_free(y);
    cr_guard_free(scratch);
}

/* _i: 0 forward, 1 dX */
START_TEST(chains)
{
    enum cr_tier tiers[CR_TEST_TIERS];
    size_t n_tiers = cr_test_tiers(tiers);
    struct cr_rng rng = cr_rng_make(900);
    struct operands d = {.dx = _i == 1, .n_out = _i ? K : N, .n_reduce = _i ? N : K};
    d.w = cr_guard_alloc(N * K * 4, 64, CR_AT_END);
    d.x = cr_guard_alloc(BLOCKS * d.n_reduce * 64, 64, CR_AT_END);
    d.u = cr_guard_alloc(BLOCKS * RANK * 64, 64, CR_AT_END);
    cr_fill_f32(&rng, d.w, N * K, -1, 1);
    cr_fill_f32(&rng, d.u, BLOCKS * RANK * CR_LANES, -1, 1);
    cr_fill_f32(&rng, d.p, RANK * K, -1, 1);
    for (size_t i = 0; i < BLOCKS * d.n_reduce * CR_LANES; i++) { /* representable in both operand types */
        d.x[i] = cr_bf16_to_f32(cr_f32_to_bf16(cr_rng_uniform(&rng, -1, 1)));
    }
    for (size_t t = 0; t < n_tiers; t++) {
        compare(&d, tiers[t]);
    }
    cr_guard_free_all();
}
END_TEST

/* The model of BFDOT's additions: exact sums stay, others end in an odd last place on the side of the truth. */
START_TEST(odd)
{
    ck_assert(add_odd(1, 2) == 3);
    ck_assert(add_odd(1, 0x1p-23f) == 1 + 0x1p-23f);
    ck_assert(add_odd(1, 0x1p-30f) == 1 + 0x1p-23f);
    ck_assert(add_odd(1, 0x1p-100f) == 1 + 0x1p-23f);
    ck_assert(add_odd(1, -0x1p-100f) == 1 - 0x1p-24f);
    ck_assert(add_odd(-1, 0x1p-100f) == -1 + 0x1p-24f);
    ck_assert(add_odd(1 + 0x1p-23f, 0x1p-100f) == 1 + 0x1p-23f);
    ck_assert(add_odd(1 + 0x1p-22f, -0x1p-60f) == 1 + 0x1p-23f);
    ck_assert(add_odd(1, -1) == 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("qgemm_bits");
    TCase *tc = tcase_create("qgemm_bits");
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, odd);
    tcase_add_loop_test(tc, chains, 0, 2);
    suite_add_tcase(suite, tc);
    return cr_run_suite(suite);
}
