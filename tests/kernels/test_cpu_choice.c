/* cpu: processors that this machine is not, by their CPUID; which tier and which tables each of them gets. */
#include <string.h>

#include "credence/kernels/attention.h"
#include "credence/kernels/lowrank.h"
#include "credence/kernels/qgemm.h"
#include "credence/kernels/xent.h"
#include "tests/support/fake_cpu.h"
#include "tests/support/kernel_test.h"

static struct cr_cpu describe(struct cr_fake_cpu fake, unsigned n_requests)
{
    struct cr_cpu cpu;
    cr_fake_cpu_describe(&cpu, &fake);
    ck_assert_uint_eq(fake.n_requests, n_requests);
    ck_assert(cpu.features >> cpu.tier & 1u);
    return cpu;
}

/* The tier where tiles can be used: amx, unless the compiler that built the library knows none. */
static enum cr_tier tier_with_tiles(void)
{
    struct cr_qgemm_ops ops;
    ck_assert_int_eq(cr_qgemm_ops_init(&ops, CR_TIER_AMX), CR_OK);
    return ops.tier == CR_TIER_AMX ? CR_TIER_AMX : CR_TIER_AVX512;
}

static const uint32_t up_to_avx512 = 1u << CR_TIER_SCALAR | 1u << CR_TIER_AVX2 | 1u << CR_TIER_AVX512;
static const uint32_t up_to_bf16 = up_to_avx512 | 1u << CR_TIER_AVX512_BF16;

START_TEST(sapphire_rapids)
{
    struct cr_cpu cpu = describe(cr_fake_sapphire_rapids(), 1);
    ck_assert_str_eq(cpu.vendor, "GenuineIntel");
    ck_assert_str_eq(cpu.name, "Intel(R) Xeon(R) Platinum 8480+");
    ck_assert_int_eq(cpu.family, 6);
    ck_assert_int_eq(cpu.model, 143);
    ck_assert_int_eq(cpu.l1d_bytes, 48 << 10);
    ck_assert_int_eq(cpu.l2_bytes, 2 << 20);
    ck_assert_int_eq(cpu.l3_bytes, 0);
    ck_assert_uint_eq(cpu.features, up_to_bf16 | 1u << CR_TIER_AMX);
    ck_assert_int_eq(cpu.amx_refused, 0);
    ck_assert_int_eq(cpu.tier, tier_with_tiles());
}
END_TEST

/* Without tiles it computes in f32: VDPBF16PS has half of that rate. A cap may still ask for it. */
START_TEST(tiles_refused)
{
    struct cr_fake_cpu fake = cr_fake_sapphire_rapids();
    fake.permission = false;
    for (int i = 0; i < 2; i++) { /* no permission; a kernel that does not know tiles, which is not asked */
        struct cr_cpu cpu = describe(fake, i == 0);
        ck_assert_uint_eq(cpu.features, up_to_bf16);
        ck_assert_int_eq(cpu.amx_refused, 1);
        ck_assert_int_eq(cpu.tier, CR_TIER_AVX512);
        enum cr_tier tier;
        ck_assert_int_eq(cr_cpu_cap(&cpu, "avx512_bf16", &tier, NULL), CR_OK);
        ck_assert_int_eq(tier, CR_TIER_AVX512_BF16);
        ck_assert_int_eq(cr_cpu_cap(&cpu, "amx", &tier, NULL), CR_E_USAGE);
        fake.saved = CR_SAVED_ZMM;
    }
    fake.amx = false; /* a hypervisor hides them: nothing is refused */
    struct cr_cpu cpu = describe(fake, 0);
    ck_assert_int_eq(cpu.amx_refused, 0);
    ck_assert_int_eq(cpu.tier, CR_TIER_AVX512);
}
END_TEST

START_TEST(other_processors)
{
    struct cr_fake_cpu fake = cr_fake_zen4();
    struct cr_cpu cpu = describe(fake, 0);
    ck_assert_int_eq(cpu.family, 0x19);
    ck_assert_int_eq(cpu.model, 17);
    ck_assert_int_eq(cpu.l1d_bytes, 48 << 10);
    ck_assert_uint_eq(cpu.features, up_to_bf16);
    ck_assert_int_eq(cpu.tier, CR_TIER_AVX512_BF16);
    fake.signature = 0x00b00f21; /* Zen 5 */
    cpu = describe(fake, 0);
    ck_assert_int_eq(cpu.family, 0x1a);
    ck_assert_int_eq(cpu.tier, CR_TIER_AVX512_BF16);
    fake.vendor = "GenuineOther";
    ck_assert_int_eq(describe(fake, 0).tier, CR_TIER_AVX512);
    fake.vendor = "GenuineIntel";
    fake.signature = 0x0005065b; /* Cooper Lake */
    cpu = describe(fake, 0);
    ck_assert_int_eq(cpu.model, 85);
    ck_assert_int_eq(cpu.tier, CR_TIER_AVX512);
    fake = cr_fake_zen4();
    fake.saved = CR_SAVED_YMM;
    ck_assert_int_eq(describe(fake, 0).tier, CR_TIER_AVX2);
    fake.saved = 0;
    ck_assert_int_eq(describe(fake, 0).tier, CR_TIER_SCALAR);
    fake = cr_fake_zen4();
    fake.avx512 = false; /* Zen 3 */
    ck_assert_int_eq(describe(fake, 0).tier, CR_TIER_AVX2);
}
END_TEST

/* Tables of Sapphire Rapids: tiles where there are tiles, elsewhere f32 vectors and never VDPBF16PS. */
START_TEST(tables)
{
    struct cr_qgemm_ops qgemm;
    ck_assert_int_eq(cr_qgemm_ops_init(&qgemm, describe(cr_fake_sapphire_rapids(), 1).tier), CR_OK);
#if defined(__x86_64__)
    ck_assert_int_eq(qgemm.tier, tier_with_tiles());
#endif
    ck_assert_int_eq(qgemm.x_type, qgemm.tier == CR_TIER_AMX ? CR_X_BF16 : CR_X_F32);
    struct cr_fake_cpu refused = cr_fake_sapphire_rapids();
    refused.permission = false;
    ck_assert_int_eq(cr_qgemm_ops_init(&qgemm, describe(refused, 1).tier), CR_OK);
    ck_assert_int_eq(qgemm.x_type, CR_X_F32);
#if defined(__x86_64__)
    ck_assert_int_eq(qgemm.tier, CR_TIER_AVX512);
#define EXPECT_F32(op)                                                                                                 \
    do {                                                                                                               \
        struct cr_##op##_ops f32, tiles;                                                                               \
        memset(&f32, 0, sizeof f32);                                                                                   \
        memset(&tiles, 0, sizeof tiles);                                                                               \
        ck_assert_int_eq(cr_##op##_ops_init(&f32, CR_TIER_AVX512), CR_OK);                                             \
        ck_assert_int_eq(cr_##op##_ops_init(&tiles, CR_TIER_AMX), CR_OK);                                              \
        ck_assert_msg(memcmp(&f32, &tiles, sizeof f32) == 0, #op " on amx is not the avx512 table");                   \
    } while (0)
    EXPECT_F32(xent);
    struct cr_attention_ops f32, bf16, tiles;
    ck_assert_int_eq(cr_attention_ops_init(&f32, describe(refused, 1).tier), CR_OK);
    ck_assert_int_eq(cr_attention_ops_init(&bf16, CR_TIER_AVX512_BF16), CR_OK);
    ck_assert_int_eq(cr_attention_ops_init(&tiles, CR_TIER_AMX), CR_OK);
    ck_assert(f32.fwd != bf16.fwd && f32.bwd != bf16.bwd);
    ck_assert(tiles.fwd != bf16.fwd && tiles.bwd != bf16.bwd);
    ck_assert_int_eq(tiles.fwd != f32.fwd, tier_with_tiles() == CR_TIER_AMX);
    struct cr_lowrank_ops lanes, dots, lowrank;
    ck_assert_int_eq(cr_lowrank_ops_init(&lanes, describe(refused, 1).tier), CR_OK);
    ck_assert_int_eq(cr_lowrank_ops_init(&dots, CR_TIER_AVX512_BF16), CR_OK);
    ck_assert_int_eq(cr_lowrank_ops_init(&lowrank, CR_TIER_AMX), CR_OK);
    ck_assert(dots.down == lanes.down && dots.up == lanes.up && dots.grad == lanes.grad);
    ck_assert_int_eq(lowrank.down != lanes.down, tier_with_tiles() == CR_TIER_AMX);
    ck_assert_int_eq(lowrank.grad != lanes.grad, tier_with_tiles() == CR_TIER_AMX);
#endif
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("cpu choice");
    TCase *tc = tcase_create("choice");
    tcase_add_test(tc, sapphire_rapids);
    tcase_add_test(tc, tiles_refused);
    tcase_add_test(tc, other_processors);
    tcase_add_test(tc, tables);
    suite_add_tcase(suite, tc);
    return cr_run_suite(suite);
}
