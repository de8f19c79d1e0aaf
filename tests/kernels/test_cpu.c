/* cpu: detection agrees with the compiler's own, caps resolve or refuse; half: exhaustive f16, bf16 rounding. */
#include <math.h>
#include <string.h>

#include "kernels/common/half.h"
#include "tests/support/kernel_test.h"

START_TEST(detection)
{
    struct cr_cpu cpu;
    cr_cpu_detect(&cpu);
    ck_assert(cpu.features & 1u);
    ck_assert(cpu.features >> cpu.tier & 1u);
    ck_assert_int_ne(cpu.vendor[0], 0);
#if defined(__x86_64__)
    __builtin_cpu_init();
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
    bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                  __builtin_cpu_supports("avx512vnni");
    ck_assert_int_eq(cpu.features >> CR_TIER_AVX2 & 1, avx2);
    ck_assert_int_eq(cpu.features >> CR_TIER_AVX512 & 1, avx512);
    ck_assert_int_eq(cpu.features >> CR_TIER_AVX512_BF16 & 1, avx512 && __builtin_cpu_supports("avx512bf16"));
    if (strcmp(cpu.vendor, "GenuineIntel") == 0) {
        ck_assert(cpu.tier != CR_TIER_AVX512_BF16);
    }
    ck_assert_int_gt(cpu.family, 0);
    if (cpu.features >> CR_TIER_AMX & 1) { /* asked for once more: no different */
        struct cr_cpu again;
        cr_cpu_detect(&again);
        ck_assert_int_eq(cpu.amx_refused, 0);
        ck_assert_int_eq(again.features >> CR_TIER_AMX & 1, 1);
        ck_assert(cpu.features >> CR_TIER_AVX512_BF16 & 1);
    }
#elif defined(__aarch64__)
    ck_assert_str_eq(cpu.vendor, "Arm");
    ck_assert(cpu.features >> CR_TIER_NEON & 1u);
    bool dotprod = cpu.features >> CR_TIER_NEON_DOTPROD & 1u;
    ck_assert(dotprod || cpu.tier == CR_TIER_NEON);
    ck_assert(dotprod || cpu.features >> CR_TIER_NEON_I8MM == 0);
    ck_assert(cpu.tier != CR_TIER_NEON_BF16 || cpu.family == 0x41);
#endif
}
END_TEST

START_TEST(names)
{
    ck_assert_str_eq(cr_tier_name(CR_TIER_SCALAR), "scalar");
    ck_assert_str_eq(cr_tier_name(CR_TIER_AVX512_BF16), "avx512_bf16");
    ck_assert_str_eq(cr_tier_name(CR_TIER_NEON_BF16), "neon_bf16");
    ck_assert_str_eq(cr_tier_name((enum cr_tier)9), "unknown");
}
END_TEST

START_TEST(caps)
{
    struct cr_cpu cpu = {.tier = CR_TIER_AVX512,
                         .features = 1u << CR_TIER_SCALAR | 1u << CR_TIER_AVX2 | 1u << CR_TIER_AVX512 |
                                     1u << CR_TIER_AVX512_BF16};
    struct cr_error err;
    enum cr_tier tier = CR_TIER_NEON;
    ck_assert_int_eq(cr_cpu_cap(&cpu, NULL, &tier, &err), CR_OK);
    ck_assert_int_eq(tier, CR_TIER_AVX512);
    ck_assert_int_eq(cr_cpu_cap(&cpu, "", &tier, NULL), CR_OK);
    ck_assert_int_eq(cr_cpu_cap(&cpu, "avx2", &tier, &err), CR_OK);
    ck_assert_int_eq(tier, CR_TIER_AVX2);
    ck_assert_int_eq(cr_cpu_cap(&cpu, "avx512_bf16", &tier, &err), CR_OK);
    ck_assert_int_eq(tier, CR_TIER_AVX512_BF16);
    ck_assert_int_eq(cr_cpu_cap(&cpu, "amx", &tier, &err), CR_E_USAGE);
    ck_assert_str_eq(err.message, "CPU tier 'amx' is not available on this CPU, expected one of scalar, avx2, avx512, "
                                  "avx512_bf16");
    ck_assert_int_eq(err.status, CR_E_USAGE);
    ck_assert_int_eq(cr_cpu_cap(&cpu, "sse9\n", &tier, &err), CR_E_USAGE);
    ck_assert(strstr(err.message, "'sse9?' is unknown") != NULL);
    ck_assert_int_eq(tier, CR_TIER_AVX512_BF16);
    char text[3000];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    ck_assert_int_eq(cr_cpu_cap(&cpu, text, &tier, &err), CR_E_USAGE);
    ck_assert_uint_lt(strlen(err.message), sizeof err.message);
    ck_assert_int_eq(cr_cpu_cap(&cpu, text, &tier, NULL), CR_E_USAGE);
}
END_TEST

START_TEST(f16)
{
    for (uint32_t h = 0; h < 0x10000u; h++) {
        uint32_t exponent = h >> 10 & 31u, fraction = h & 1023u;
        float got = cr_f16_to_f32((uint16_t)h);
        if (exponent == 31 && fraction != 0) {
            ck_assert(isnan(got));
            ck_assert(isnan(cr_f16_to_f32(cr_f32_to_f16(got))));
            continue;
        }
        double want = exponent == 31  ? INFINITY
                      : exponent == 0 ? ldexp(fraction, -24)
                                      : ldexp(1024 + fraction, (int)exponent - 25);
        ck_assert_msg((double)got == (h & 0x8000u ? -want : want), "f16 %04x gives %g", h, (double)got);
        ck_assert_uint_eq(cr_f32_to_f16(got), h);
        if (exponent < 30) { /* the half-way point to the next number goes to the even one, its neighbours do not */
            float next = cr_f16_to_f32((uint16_t)(h + 1)), middle = got + (next - got) * 0.5f;
            ck_assert_uint_eq(cr_f32_to_f16(middle), h & 1u ? h + 1 : h);
            ck_assert_uint_eq(cr_f32_to_f16(nextafterf(middle, got)), h);
            ck_assert_uint_eq(cr_f32_to_f16(nextafterf(middle, next)), h + 1);
        }
    }
    ck_assert_uint_eq(cr_f32_to_f16(65519.996f), 0x7bff);
    ck_assert_uint_eq(cr_f32_to_f16(65520.0f), 0x7c00);
    ck_assert_uint_eq(cr_f32_to_f16(1e-30f), 0);
}
END_TEST

START_TEST(bf16)
{
    for (uint32_t h = 0; h < 0x10000u; h++) {
        float value = cr_bf16_to_f32((uint16_t)h);
        if (isnan(value)) {
            ck_assert_uint_eq(cr_f32_to_bf16(value), h | 0x40u);
            continue;
        }
        ck_assert_uint_eq(cr_f32_to_bf16(value), h);
        if ((h & 0x7fffu) < 0x7f80u) {
            ck_assert_uint_eq(cr_f32_to_bf16(cr_f32_from_bits(h << 16 | 0x7fffu)), h);
            ck_assert_uint_eq(cr_f32_to_bf16(cr_f32_from_bits(h << 16 | 0x8000u)), h + (h & 1u));
            ck_assert_uint_eq(cr_f32_to_bf16(cr_f32_from_bits(h << 16 | 0x8001u)), h + 1);
        }
    }
    ck_assert_uint_eq(cr_f32_to_bf16(cr_f32_from_bits(0x7f800001u)), 0x7fc0);
}
END_TEST

START_TEST(guards)
{
    unsigned char *p = cr_guard_alloc(100, 64, CR_AT_END);
    ck_assert_uint_eq((uintptr_t)p % 64, 0);
    cr_guard_protect(p, true);
    cr_guard_protect(p, false);
    p[99] = 1;
    cr_guard_free(p);
    p = cr_guard_alloc(4096, 64, CR_AT_START);
    ck_assert_uint_eq((uintptr_t)p % 4096, 0);
    cr_guard_free_all();
}
END_TEST

#if !defined(__SANITIZE_ADDRESS__) /* it catches the fault first */
START_TEST(guard_before)
{
    volatile unsigned char *p = cr_guard_alloc(64, 64, CR_AT_START);
    p[-1] = 1;
}
END_TEST

START_TEST(guard_behind)
{
    volatile unsigned char *p = cr_guard_alloc(64, 64, CR_AT_END);
    p[64] = 1;
}
END_TEST
#endif

int main(void)
{
    Suite *suite = suite_create("cpu");
    TCase *tc = tcase_create("cpu");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, detection);
    tcase_add_test(tc, names);
    tcase_add_test(tc, caps);
    tcase_add_test(tc, f16);
    tcase_add_test(tc, bf16);
    tcase_add_test(tc, guards);
#if !defined(__SANITIZE_ADDRESS__)
    tcase_add_test_raise_signal(tc, guard_before, 11);
    tcase_add_test_raise_signal(tc, guard_behind, 11);
#endif
    suite_add_tcase(suite, tc);
    return cr_run_suite(suite);
}
