/* cast: every bf16 value there and back, random f32 bits against the scalar rounding, every tier and split. */
#include <math.h>
#include <string.h>

#include "credence/kernels/cast.h"
#include "tests/support/tl16_test.h"

/* What bits of a bf16 magnitude stand for, infinity being the next power of two. */
static double magnitude(unsigned bits)
{
    return bits == 0x7f80 ? 0x1p128 : (double)cr_f32_from_bits((uint32_t)bits << 16);
}

/* cr_f32_to_bf16, which judges the tiers below, by the definition in double: no neighbour is nearer, and of two equally
 * near ones the even is taken. All upper halves, with the lower halves around ties and at both ends. */
START_TEST(rounding)
{
    static const uint32_t low[] = {0, 1, 0x7fff, 0x8000, 0x8001, 0xffff};
    for (uint32_t i = 0; i < 65536 * 6; i++) {
        uint32_t bits = i / 6 << 16 | low[i % 6];
        unsigned got = cr_f32_to_bf16(cr_f32_from_bits(bits)), at = got & 0x7fff;
        if ((bits & 0x7fffffff) > 0x7f800000) {
            if (at <= 0x7f80 || (at & 0x40) == 0) {
                ck_abort_msg("%08x, a NaN, becomes %04x", bits, got);
            }
            continue;
        }
        bool infinite = (bits & 0x7fffffff) == 0x7f800000;
        double x = infinite ? 0x1p128 : fabs((double)cr_f32_from_bits(bits)), error = fabs(magnitude(at) - x);
        double below = at > 0 ? fabs(magnitude(at - 1) - x) : INFINITY;
        double above = at < 0x7f80 ? fabs(magnitude(at + 1) - x) : INFINITY;
        bool even = at % 2 == 0;
        if (got >> 15 != bits >> 31 || at > 0x7f80 || error > below || error > above ||
            ((error == below || error == above) && !even)) {
            ck_abort_msg("%08x becomes %04x", bits, got);
        }
    }
}
END_TEST

/* Runs `call` on the whole range or in two parts. */
static void run(cr_cast_fn *call, const struct cr_cast_args *args, size_t n_blocks, bool split)
{
    size_t cut = split ? n_blocks / 2 : 0;
    call(args, 0, cut);
    call(args, cut, n_blocks);
}

static const size_t features[] = {0, 2, 6, 576, 1536};

START_TEST(to_bf16)
{
    enum cr_tier tiers[CR_TEST_TIERS];
    size_t n_tiers = cr_test_tiers(tiers), n = features[_i], n_blocks = 3;
    struct cr_rng rng = cr_rng_make(10 + (uint64_t)_i);
    size_t stride = n * CR_LANES + CR_LANES, bytes = n * 32 + 64; /* one line between blocks */
    float *x = cr_guard_alloc(n_blocks * stride * sizeof *x, 64, CR_AT_END);
    cr_fill_bytes(&rng, x, n_blocks * stride * sizeof *x); /* any bits: NaN, infinities, denormals */
    for (size_t i = 0; i < n_blocks * stride; i += 5) {    /* ties and their neighbours; NaN by the low bits alone */
        uint32_t low = 0x7fffu + (uint32_t)(i % 3), bits = cr_f32_bits(x[i]) & 0xffff0000u;
        x[i] = cr_f32_from_bits((i % 20 == 0 ? 0x7f800000u : bits) | low);
    }
    cr_guard_protect(x, true);
    for (size_t t = 0; t < n_tiers; t++) {
        for (int split = 0; split < 2; split++) {
            struct cr_cast_ops ops;
            cr_cast_ops_init(&ops, tiers[t]);
            uint16_t *out = cr_guard_alloc(n_blocks * bytes, 64, t % 2 ? CR_AT_START : CR_AT_END);
            struct cr_cast_args args = {x, stride, out, bytes, n};
            run(ops.to_bf16, &args, n_blocks, split);
            for (size_t b = 0; b < n_blocks; b++) {
                for (size_t i = 0; i < n * CR_LANES; i++) {
                    size_t at = b * (bytes / 2) + cr_tl16_bf16(i / CR_LANES, i % CR_LANES);
                    ck_assert_uint_eq(out[at], cr_f32_to_bf16(x[b * stride + i]));
                }
                for (size_t i = 0; i < 32; i++) { /* the line between is untouched */
                    ck_assert_uint_eq(out[b * (bytes / 2) + n * CR_LANES + i], 0xffff);
                }
            }
            cr_guard_free(out);
        }
    }
    cr_guard_free_all();
}
END_TEST

START_TEST(from_bf16)
{
    enum cr_tier tiers[CR_TEST_TIERS];
    size_t n_tiers = cr_test_tiers(tiers), n_blocks = 4, n = 65536 / CR_LANES / n_blocks;
    uint16_t *x = cr_guard_alloc(n_blocks * n * 32, 64, CR_AT_END);
    for (size_t i = 0; i < 65536; i++) {
        x[i] = (uint16_t)i;
    }
    cr_guard_protect(x, true);
    for (size_t t = 0; t < n_tiers; t++) {
        struct cr_cast_ops ops;
        cr_cast_ops_init(&ops, tiers[t]);
        float *out = cr_guard_alloc(n_blocks * n * 64, 64, CR_AT_END);
        struct cr_cast_args args = {out, n * CR_LANES, x, n * 32, n};
        run(ops.from_bf16, &args, n_blocks, t % 2 == 0);
        for (size_t b = 0; b < n_blocks; b++) {
            for (size_t k = 0; k < n; k++) {
                for (size_t lane = 0; lane < CR_LANES; lane++) {
                    uint16_t bits = x[b * n * CR_LANES + cr_tl16_bf16(k, lane)];
                    bool nan = (bits & 0x7fffu) > 0x7f80u;
                    uint32_t want = (uint32_t)bits << 16 | (nan ? 0x400000u : 0);
                    ck_assert_uint_eq(cr_f32_bits(cr_tl16_get(out, CR_X_F32, n * 64, b, k, lane)), want);
                }
            }
        }
        cr_guard_free(out);
    }
    cr_guard_free_all();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("cast");
    TCase *tc = tcase_create("cast");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, rounding);
    tcase_add_loop_test(tc, to_bf16, 0, sizeof features / sizeof *features);
    tcase_add_test(tc, from_bf16);
    suite_add_tcase(suite, tc);
    return cr_run_suite(suite);
}
