/* amx: the model of the tile instructions against hand-made cases, an independent product and the processor. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/common/amx_tile.h"
#include "tests/support/amx_run.h"
#include "tests/support/amx_trap.h"
#include "tests/support/kernel_test.h"

static struct amx_model model;

static uint16_t half(float value) /* exactly representable */
{
    ck_assert(cr_bf16_to_f32(cr_f32_to_bf16(value)) == value);
    return cr_f32_to_bf16(value);
}

/* c += a[0] b[0] + ... for one row and one column of n_pairs pairs; tiles 0, 1, 2. */
static float dot(float c, const float *a, const float *b, size_t n_pairs)
{
    struct amx_config config = {.palette = 1};
    config.rows[0] = config.rows[1] = 1;
    config.rows[2] = (uint8_t)n_pairs;
    config.row_bytes[0] = config.row_bytes[2] = 4;
    config.row_bytes[1] = (uint16_t)(4 * n_pairs);
    uint16_t row[32], columns[16][2];
    for (size_t i = 0; i < 2 * n_pairs; i++) {
        row[i] = half(a[i]);
        columns[i / 2][i % 2] = half(b[i]);
    }
    amx_model_config(&model, &config);
    amx_model_load(&model, 0, &c, 4);
    amx_model_load(&model, 1, row, 64);
    amx_model_load(&model, 2, columns, 4);
    amx_model_dp(&model, 0, 1, 2);
    amx_model_store(&model, 0, &c, 4);
    amx_model_release(&model);
    return c;
}

#define DOT(c, n_pairs, ...) dot(c, (const float[]){__VA_ARGS__}, ones, n_pairs)
static const float ones[32] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
                               1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};

static void expect(float got, float want)
{
    ck_assert_msg(cr_f32_bits(got) == cr_f32_bits(want), "%a (%08x), expected %a", (double)got, cr_f32_bits(got),
                  (double)want);
}

START_TEST(order)
{
    expect(DOT(5, 2, 1, 2, 3, 4), 15);
    /* the dot product is finished before it meets c: 2^24 + 1 + 1 one by one would stay at 2^24 */
    expect(DOT(0x1p24f, 1, 1, 1), 0x1p24f + 2);
    /* even and odd products are two chains: 2^24 + 1 is lost, and so is the 1 of the other chain when they meet */
    expect(DOT(0, 2, 0x1p24f, 0, 1, 1), 0x1p24f);
    expect(DOT(0, 2, 1, 0x1p24f, 1, 0), 0x1p24f + 2);
    /* inside a chain the order is that of the pairs */
    expect(DOT(0, 3, 0x1p24f, 0, 1, 0, 1, 0), 0x1p24f);
    expect(DOT(0, 3, 1, 0, 1, 0, 0x1p24f, 0), 0x1p24f + 2);
    /* a chain starts from zero, not from c */
    expect(DOT(-0x1p24f, 2, 0x1p24f, 0, 1, 0), 0);
}
END_TEST

START_TEST(rounding)
{
    /* ties go to the even neighbour, in a chain, between the chains, at c */
    expect(DOT(0, 2, 0x1p24f, 0, 3, 0), 0x1p24f + 4);
    expect(DOT(0, 1, 0x1p24f, 3), 0x1p24f + 4);
    expect(DOT(0x1p24f, 1, 3, 0), 0x1p24f + 4);
    expect(DOT(0x1p24f, 1, 1, 0), 0x1p24f);
    expect(DOT(-0x1p24f, 1, -3, 0), -0x1p24f - 4);
    /* half a unit plus very little goes up, wherever the little comes in before the rounding */
    expect(DOT(1, 1, 0x1p-24f, 0), 1);
    expect(DOT(1, 1, 0x1.02p-24f, 0), 1 + 0x1p-23f);
    expect(DOT(1, 1, 0x1p-24f, 0x1p-40f), 1 + 0x1p-23f);
    expect(DOT(0, 3, 1, 0, 0x1p-24f, 0, 0x1p-40f, 0), 1);
    /* fused: a product below the range of f32 counts, where the sum is inside */
    float p[4] = {0x1.8p-63f, 0, 0x1p-70f, 0}, q[4] = {0x1p-63f, 0, -0x1p-70f, 0};
    expect(dot(0, p, q, 2), 0x1.8p-126f - 0x1p-140f);
    expect(DOT(0, 1, 0x1p127f, 0x1p127f), INFINITY);
    expect(DOT(-INFINITY, 1, 1, 1), -INFINITY);
    ck_assert(isnan(DOT(-INFINITY, 1, 0x1p127f, 0x1p127f)));
}
END_TEST

START_TEST(subnormals)
{
    float least = 0x1p-126f, below = 0x1.fcp-127f;
    float tiny[2] = {below, 0}, huge[2] = {0x1p120f, 0};
    expect(dot(0, tiny, huge, 1), 0); /* inputs are zero */
    expect(dot(0, huge, tiny, 1), 0);
    expect(dot(1, tiny, ones, 1), 1);
    expect(dot(0, (const float[]){least, 0}, huge, 1), 0x1p-6f);
    expect(DOT(below, 1, 0, 0), 0); /* so is c */
    expect(DOT(below, 1, least, 0), least);
    /* results are flushed, the sign stays */
    float a[4] = {0x1.8p-63f, 0, -0x1p-63f, 0}, b[4] = {0x1p-63f, 0, 0x1p-63f, 0};
    expect(dot(0, a, b, 2), 0); /* 2^-127 */
    expect(DOT(-least, 1, 0x1.8p-126f, 0), 0);
    expect(dot(-0.0f, (const float[]){-0x1p-64f, -0x1p-64f}, (const float[]){0x1p-64f, 0x1p-64f}, 1), -0.0f);
    expect(DOT(least, 1, -least, 0), 0);
    /* what rounds to 2^-126 at full precision is not tiny: half a unit below stays, one unit below does not */
    float from[4] = {least, 0, -0x1p-75f, 0}, half_unit[4] = {1, 0, 0x1p-76f, 0}, unit[4] = {1, 0, 0x1p-75f, 0};
    expect(dot(0, from, half_unit, 2), least);
    expect(dot(0, from, unit, 2), 0);
}
END_TEST

/* Loads take what the configuration says and zero the rest; stores write no more. */
START_TEST(shapes)
{
    struct amx_config config = {.palette = 1, .row_bytes = {8, 64}, .rows = {3, 16}};
    unsigned char memory[16 * 64], out[16 * 64];
    for (size_t i = 0; i < sizeof memory; i++) {
        memory[i] = (unsigned char)(i * 7 + i / 64 + 1);
    }
    amx_model_config(&model, &config);
    for (size_t stride = 8; stride <= 40; stride += 16) {
        memset(model.data, 0xee, sizeof model.data);
        amx_model_load(&model, 0, memory, stride);
        cr_poison(out, sizeof out);
        amx_model_store(&model, 0, out, 64);
        for (size_t i = 0; i < sizeof out; i++) {
            size_t row = i / 64, at = i % 64;
            ck_assert_uint_eq(out[i], row < 3 && at < 8 ? memory[row * stride + at] : 0xff);
            ck_assert_uint_eq(model.data[0][row][at], row < 3 && at < 8 ? memory[row * stride + at] : 0);
        }
    }
    amx_model_zero(&model, 0);
    amx_model_store(&model, 0, out, 64);
    ck_assert_uint_eq(out[0] | out[7] | out[64] | out[128 + 7], 0);
    amx_model_load(&model, 1, memory, 64);
    amx_model_store(&model, 1, out, 64);
    cr_expect_bytes("whole tile", out, memory, sizeof out);
    amx_model_config(&model, &config); /* clears */
    amx_model_store(&model, 1, out, 64);
    ck_assert_uint_eq(out[100], 0);
}
END_TEST

/* Misuse traps: SIGILL on x86, SIGTRAP elsewhere. */
#if defined(__x86_64__)
enum { TRAP = 4 };
#else
enum { TRAP = 5 };
#endif

START_TEST(misuse)
{
    struct amx_config config = AMX_CONFIG_FULL, bad = config;
    float memory[256] = {0};
    bad.rows[2] = 8;
    switch (_i) {
    case 0: /* never configured */
        amx_model_load(&model, 0, memory, 64);
        break;
    case 1: /* released */
        amx_model_config(&model, &config);
        amx_model_release(&model);
        amx_model_zero(&model, 0);
        break;
    case 2: /* a tile twice */
        amx_model_config(&model, &config);
        amx_model_dp(&model, 0, 1, 1);
        break;
    case 3: /* shapes that do not fit */
        amx_model_config(&model, &bad);
        amx_model_dp(&model, 0, 1, 2);
        break;
    case 4: /* rows without bytes */
        bad.row_bytes[2] = 0;
        amx_model_config(&model, &bad);
        break;
    default: /* too wide */
        bad.row_bytes[2] = 68;
        amx_model_config(&model, &bad);
        break;
    }
}
END_TEST

/* An independent product: fmaf, and a second look at four more bits of range where the result is tiny. */
static float fused(float x, float a, float b)
{
    if (fabsf(x) < 0x1p-60f && fabsf(a) < 0x1p30f && fabsf(b) < 0x1p30f && fabsf(a * b) < 0x1p-60f) {
        float scaled = fmaf(a * 0x1p40f, b * 0x1p40f, x * 0x1p80f);
        return fabsf(scaled) < 0x1p-46f ? copysignf(0, scaled) : scaled * 0x1p-80f;
    }
    return fmaf(a, b, x);
}

static float nothing_small(float x)
{
    return fabsf(x) < 0x1p-126f ? copysignf(0, x) : x;
}

static float plain_dot(float c, const uint16_t *a, const uint16_t *b, size_t n_pairs)
{
    float chain[2] = {0, 0};
    for (size_t i = 0; i < 2 * n_pairs; i++) {
        float x = nothing_small(cr_bf16_to_f32(a[i])), y = nothing_small(cr_bf16_to_f32(b[i / 2 * 32 + i % 2]));
        chain[i % 2] = fused(chain[i % 2], x, y);
    }
    return nothing_small(nothing_small(c) + nothing_small(chain[0] + chain[1]));
}

/* bf16 of many sizes, near the limits too: the exponent uniform in [low, high]. */
static uint16_t any_half(struct cr_rng *rng, int low, int high)
{
    uint32_t exponent = (uint32_t)(low + (int)cr_rng_below(rng, (uint32_t)(high - low + 1)));
    return (uint16_t)(cr_rng_below(rng, 2) << 15 | exponent << 7 | cr_rng_below(rng, 128));
}

static void fill(struct cr_rng *rng, uint16_t a[16][32], uint16_t b[16][32], float c[16][16], int kind)
{
    static const int range[][4] = {{120, 134, 120, 134}, {60, 70, 60, 68}, {0, 130, 100, 128}, {90, 160, 90, 160}};
    for (size_t i = 0; i < 512; i++) {
        a[i / 32][i % 32] = any_half(rng, range[kind][0], range[kind][1]);
        b[i / 32][i % 32] = any_half(rng, range[kind][2], range[kind][3]);
    }
    for (size_t i = 0; i < 256; i++) { /* of the size of the products, or just any */
        uint32_t top = any_half(rng, kind == 1 ? 0 : 110, kind == 1 ? 12 : 140);
        c[i / 16][i % 16] = cr_f32_from_bits(top << 16 | cr_rng_below(rng, 65536));
    }
}

START_TEST(random_tiles)
{
    static const struct amx_config full = AMX_CONFIG_FULL;
    struct amx_config narrow = {.palette = 1, .row_bytes = {24, 12, 24}, .rows = {5, 5, 3}};
    struct cr_rng rng = cr_rng_make(10 + (uint64_t)_i);
    uint16_t a[16][32], b[16][32];
    float c[16][16], before[16][16], hardware[16][16];
    for (int round = 0; round < 40; round++) {
        const struct amx_config *config = round % 4 == 3 ? &narrow : &full;
        size_t n_rows = config->rows[0], n_columns = config->row_bytes[0] / 4u, n_pairs = config->rows[2];
        fill(&rng, a, b, c, _i);
        memcpy(before, c, sizeof c);
        memcpy(hardware, c, sizeof c);
        amx_model_config(&model, config);
        amx_model_load(&model, 0, c, 64);
        amx_model_load(&model, 1, a, 64);
        amx_model_load(&model, 2, b, 64);
        amx_model_dp(&model, 0, 1, 2);
        amx_model_store(&model, 0, c, 64);
        for (size_t i = 0; i < n_rows; i++) {
            for (size_t n = 0; n < n_columns; n++) {
                float want = plain_dot(before[i][n], a[i], &b[0][2 * n], n_pairs);
                cr_expect_same("product", &c[i][n], &want, 1);
            }
        }
        struct cr_cpu cpu;
        cr_cpu_detect(&cpu);
        bool tiles = cpu.features >> CR_TIER_AMX & 1u, vectors = cpu.features >> CR_TIER_AVX512_BF16 & 1u;
        if (tiles || (vectors && cr_amx_trap_install())) { /* else the operands of our assembly only */
            if (cr_amx_run(config, a, b, hardware, 64)) {
                cr_expect_bytes("processor", hardware, c, sizeof c);
            }
        }
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("amx");
    TCase *tc = tcase_create("amx");
    tcase_add_test(tc, order);
    tcase_add_test(tc, rounding);
    tcase_add_test(tc, subnormals);
    tcase_add_test(tc, shapes);
    tcase_add_loop_test_raise_signal(tc, misuse, TRAP, 0, 6);
    tcase_add_loop_test(tc, random_tiles, 0, 4);
    suite_add_tcase(suite, tc);
    return cr_run_suite(suite);
}
