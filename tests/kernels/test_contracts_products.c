/* Checked entries of products, attention and dequantisation (contracts_case.h). */
#include <check.h>
#include <string.h>

#include "tests/kernels/contracts_case.h"
#include "tests/support/kernel_test.h"

SPY_SCRATCH(lowrank)
START_TEST(lowrank)
{
    struct cr_lowrank_ops ops = {spy_lowrank, spy_lowrank, spy_lowrank};
    struct cr_lowrank_args good = {.p_rs = 40,
                                   .p_ks = 1,
                                   .g_rs = 1,
                                   .g_ks = 8,
                                   .x_type = CR_X_BF16,
                                   .x_stride = 20 * 64,
                                   .y_stride = 40 * 16,
                                   .u_stride = 8 * 16,
                                   .rank = 8,
                                   .n_features = 40,
                                   .n_blocks = BLOCKS,
                                   .scale = 1,
                                   .dropout.keep16 = 65536};
    good.p = (const float *)memory;
    good.g = good.y = good.u = (float *)memory;
    good.x = memory;
    const size_t bytes = cr_lowrank_scratch_bytes(good.n_features, good.rank);
#define DOWN cr_lowrank_down_checked
#define UP cr_lowrank_up_checked
#define GRAD cr_lowrank_grad_checked
    ACCEPTED(DOWN, , 1, 1, BLOCKS, memory, bytes);
    ACCEPTED(UP, , 1, 0, 2, memory, bytes);
    ACCEPTED(GRAD, , 1, 32, 40, memory, bytes);
    REFUSED_ALWAYS(DOWN, down, 0, BLOCKS, memory, bytes);
    REFUSED_ALWAYS(UP, up, 0, BLOCKS, memory, bytes);
    REFUSED_ALWAYS(GRAD, grad, 0, 40, memory, bytes);
    REFUSED_BLOCKS(DOWN, x, x_stride, 64, 0, BLOCKS, memory, bytes);
    REFUSED_BLOCKS(DOWN, u, u_stride, 16, 0, BLOCKS, memory, bytes);
    REFUSED_BLOCKS(UP, y, y_stride, 16, 0, BLOCKS, memory, bytes);
    REFUSED_SCRATCH(DOWN, 0, BLOCKS, bytes);
    REFUSED_SCRATCH(UP, 0, BLOCKS, bytes);
    REFUSED_SCRATCH(GRAD, 0, 40, bytes);
    REFUSED(DOWN, , "end", 0, BLOCKS + 1, memory, bytes);
    REFUSED(GRAD, , "end", 0, 41, memory, bytes);
    REFUSED(GRAD, , "end", 0, 36, memory, bytes);
    REFUSED(GRAD, , "begin", 8, 40, memory, bytes);
    REFUSED(DOWN, a.p = NULL, "p", 0, BLOCKS, memory, bytes);
    REFUSED(UP, a.p_rs = SIZE_MAX / 4, "p", 0, BLOCKS, memory, bytes);
    REFUSED(GRAD, a.g = NULL, "g", 0, 40, memory, bytes);
    REFUSED(GRAD, a.g_ks = SIZE_MAX / 64, "g", 0, 40, memory, bytes);
    REFUSED(DOWN, a.rank = 0, "rank", 0, BLOCKS, memory, bytes);
    REFUSED(DOWN, a.rank = CR_RANK_MAX + 1, "rank", 0, BLOCKS, memory, bytes);
    REFUSED(DOWN, a.n_features = 0, "n_features", 0, BLOCKS, memory, bytes);
    REFUSED(DOWN, a.x_type = (enum cr_xtype)5, "x_type", 0, BLOCKS, memory, bytes);
    REFUSED(DOWN, a.n_features = 39, "x_type", 0, BLOCKS, memory, bytes);
    REFUSED(DOWN, a.dropout.keep16 = 0, "dropout.keep16", 0, BLOCKS, memory, bytes);
    REFUSED(DOWN, a.dropout.keep16 = 65537, "dropout.keep16", 0, BLOCKS, memory, bytes);
    REFUSED(DOWN, a.dropout.keep16 = 100, "dropout.position", 0, BLOCKS, memory, bytes);
#undef DOWN
#undef UP
#undef GRAD
}
END_TEST

SPY_SCRATCH(qgemm)
START_TEST(qgemm)
{
    struct cr_qgemm_ops ops = {.fwd = spy_qgemm, .dx = spy_qgemm, .step = 32, .x_type = CR_X_BF16};
    struct cr_qgemm_args good = {.w = q4_0,
                                 .x_stride = 35 * 64,
                                 .y_stride = 70 * 16,
                                 .n_blocks = BLOCKS,
                                 .p_os = 4,
                                 .p_rs = 1,
                                 .u_stride = 64,
                                 .rank = 4};
    good.x = memory;
    good.y = (float *)memory;
    good.p = good.u = (const float *)memory;
    size_t fwd_bytes = cr_qgemm_scratch_bytes(&ops, 64, 4), dx_bytes = cr_qgemm_scratch_bytes(&ops, 70, 4);
#define FWD cr_qgemm_fwd_checked
#define DX cr_qgemm_dx_checked
    ACCEPTED(FWD, , 1, 32, 70, memory, fwd_bytes);
    ACCEPTED(DX, , 1, 32, 64, memory, dx_bytes);
    ACCEPTED(FWD, a.p = a.u = NULL, 1, 0, 64, memory, fwd_bytes);
    ACCEPTED(FWD, a.n_blocks = 0, 1, 0, 64, memory, fwd_bytes);
    REFUSED_ALWAYS(FWD, fwd, 0, 70, memory, fwd_bytes);
    REFUSED_ALWAYS(DX, dx, 0, 64, memory, dx_bytes);
    REFUSED_MATRIX(FWD, w, 0, 64, memory, fwd_bytes);
    REFUSED_MATRIX(DX, w, 0, 64, memory, dx_bytes);
    REFUSED_BLOCKS(FWD, x, x_stride, 64, 0, 70, memory, fwd_bytes);
    REFUSED_BLOCKS(FWD, y, y_stride, 16, 0, 70, memory, fwd_bytes);
    REFUSED_BLOCKS(DX, u, u_stride, 16, 0, 64, memory, dx_bytes);
    REFUSED_SCRATCH(FWD, 0, 70, fwd_bytes);
    REFUSED_SCRATCH(DX, 0, 64, dx_bytes);
    REFUSED(FWD, , "end", 0, 71, memory, fwd_bytes);
    REFUSED(FWD, , "end", 0, 40, memory, fwd_bytes);
    REFUSED(FWD, , "begin", 16, 70, memory, fwd_bytes);
    REFUSED(DX, , "end", 0, 70, memory, dx_bytes);
    REFUSED(DX, a.bias = (const float *)memory, "bias", 0, 64, memory, dx_bytes);
    REFUSED(FWD, a.rank = 0, "rank", 0, 70, memory, fwd_bytes);
    REFUSED(FWD, a.rank = CR_RANK_MAX + 1, "rank", 0, 70, memory, fwd_bytes);
    REFUSED(FWD, a.p_os = SIZE_MAX / 8, "p", 0, 70, memory, fwd_bytes);
    REFUSED(FWD, a.w.n_cols = (size_t)1 << 36; a.w.row_bytes = (size_t)18 << 31;
            a.x_stride = (size_t)1 << 41, "scratch_bytes", 0, 70, memory, fwd_bytes);
    ops.step = 0;
    REFUSED(FWD, , "ops.step", 0, 70, memory, fwd_bytes);
    ops.step = 32;
    ops.x_type = (enum cr_xtype)8;
    REFUSED(FWD, , "ops.x_type", 0, 70, memory, fwd_bytes);
#undef FWD
#undef DX
}
END_TEST

SPY_SCRATCH(attention)
static const struct cr_attention_ops attention_spies = {
    .fwd = spy_attention, .bwd = spy_attention, .sum_kv = spy_attention, .sum_prefix = spy_attention};
static uint32_t seg[] = {0, 5, 40, 48}, of_seg[] = {1, CR_ATTENTION_NO_PREFIX, 0};

/* Sound arguments, with prefixes that are written to *prefix. */
static struct cr_attention_args sound_attention(struct cr_attention_prefix *prefix)
{
    *prefix = (struct cr_attention_prefix){.stride = 2 * 2 * 8 * 16, .n_rows = 20, .n_prefixes = 2, .of_seg = of_seg};
    prefix->k = prefix->v = (const float *)memory;
    prefix->dk = prefix->dv = prefix->dk_part = prefix->dv_part = (float *)memory;
    struct cr_attention_args good = {.n_heads = 4,
                                     .n_kv = 2,
                                     .head_dim = 8,
                                     .scale = 0.5f,
                                     .seg = seg,
                                     .n_seg = 3,
                                     .q_stride = 512,
                                     .kv_stride = 256,
                                     .o_stride = 512,
                                     .do_stride = 512,
                                     .dkv_stride = 512,
                                     .prefix = prefix};
    good.q = good.k = good.v = good.d_o = (const float *)memory;
    good.o = good.lse = good.dq = good.dk = good.dv = good.dk_sum = good.dv_sum = (float *)memory;
    return good;
}

#define FWD cr_attention_fwd_checked
#define BWD cr_attention_bwd_checked
#define SUM cr_attention_sum_kv_checked
#define SUM_PREFIX cr_attention_sum_prefix_checked
#define ROOM memory, bytes

START_TEST(attention_operands)
{
    struct cr_attention_ops ops = attention_spies;
    struct cr_attention_prefix prefix;
    struct cr_attention_args good = sound_attention(&prefix);
    const size_t bytes = cr_attention_scratch_bytes(35, 8, 20);
    ACCEPTED(FWD, , 1, 0, 12, ROOM);
    ACCEPTED(FWD, a.prefix = NULL, 1, 0, 12, ROOM);
    ACCEPTED(BWD, , 1, 5, 12, ROOM);
    ACCEPTED(SUM, , 1, 0, BLOCKS);
    ACCEPTED(SUM_PREFIX, , 1, 0, 4);
    REFUSED_ALWAYS(FWD, fwd, 0, 12, ROOM);
    REFUSED_ALWAYS(BWD, bwd, 0, 12, ROOM);
    REFUSED_ALWAYS(SUM, sum_kv, 0, BLOCKS);
    REFUSED_ALWAYS(SUM_PREFIX, sum_prefix, 0, 4);
    REFUSED_BLOCKS(FWD, q, q_stride, 16, 0, 12, ROOM);
    REFUSED_BLOCKS(FWD, k, kv_stride, 16, 0, 12, ROOM);
    REFUSED(FWD, a.v = NULL, "v", 0, 12, ROOM);
    REFUSED_BLOCKS(FWD, o, o_stride, 16, 0, 12, ROOM);
    REFUSED(FWD, a.lse = NULL, "lse", 0, 12, ROOM);
    REFUSED(FWD, a.lse = (float *)(memory + 16), "lse", 0, 12, ROOM);
    REFUSED_BLOCKS(BWD, d_o, do_stride, 16, 0, 12, ROOM);
    REFUSED_BLOCKS(BWD, dk, dkv_stride, 16, 0, 12, ROOM);
    REFUSED(BWD, a.dq = NULL, "dq", 0, 12, ROOM);
    REFUSED(BWD, a.dv = NULL, "dv", 0, 12, ROOM);
    REFUSED_BLOCKS(SUM, dk, dkv_stride, 16, 0, BLOCKS);
    REFUSED_BLOCKS(SUM, dk_sum, kv_stride, 16, 0, BLOCKS);
    REFUSED(SUM, a.dv_sum = NULL, "dv_sum", 0, BLOCKS);
    REFUSED_SCRATCH(FWD, 0, 12, bytes);
    REFUSED_SCRATCH(BWD, 0, 12, bytes);
}
END_TEST

START_TEST(attention_shape)
{
    struct cr_attention_ops ops = attention_spies;
    struct cr_attention_prefix prefix;
    struct cr_attention_args good = sound_attention(&prefix);
    const size_t bytes = cr_attention_scratch_bytes(35, 8, 20);
    REFUSED(FWD, , "end", 0, 13, ROOM);
    REFUSED(FWD, a.n_heads = 0, "n_heads", 0, 12, ROOM);
    REFUSED(FWD, a.n_heads = 5, "n_heads", 0, 12, ROOM);
    REFUSED(FWD, a.n_kv = 0, "n_kv", 0, 12, ROOM);
    REFUSED(FWD, a.head_dim = 0, "head_dim", 0, 12, ROOM);
    REFUSED(FWD, a.n_heads = a.n_kv = a.head_dim = (size_t)1 << 33, "n_heads", 0, 12, ROOM);
    REFUSED(FWD, a.scale = 0, "scale", 0, 12, ROOM);
    REFUSED(FWD, a.scale = __builtin_nanf(""), "scale", 0, 12, ROOM);
    REFUSED(FWD, a.seg = NULL, "seg", 0, 12, ROOM);
    REFUSED(FWD, a.n_seg = 0, "n_seg", 0, 12, ROOM);
    REFUSED(FWD, a.n_seg = 2, "seg", 0, 8, ROOM); /* 40 tokens end inside a block */
    REFUSED(FWD, a.seg = seg + 1; a.n_seg = 2, "seg", 0, 8, ROOM);
    uint32_t descending[] = {0, 40, 16, 48};
    REFUSED(BWD, a.seg = descending, "seg", 0, 12, ROOM);
}
END_TEST

START_TEST(attention_prefix)
{
    struct cr_attention_ops ops = attention_spies;
    struct cr_attention_prefix prefix;
    struct cr_attention_args good = sound_attention(&prefix);
    const size_t bytes = cr_attention_scratch_bytes(35, 8, 20);
    const struct cr_attention_prefix sound = prefix;
#define REFUSED_PREFIX(call, change, argument, ...)                                                                    \
    do {                                                                                                               \
        change;                                                                                                        \
        REFUSED(call, , "prefix." argument, __VA_ARGS__);                                                              \
        prefix = sound;                                                                                                \
    } while (0)
    REFUSED_PREFIX(FWD, prefix.k = NULL, "k", 0, 12, ROOM);
    REFUSED_PREFIX(FWD, prefix.v = (const float *)(memory + 32), "v", 0, 12, ROOM);
    REFUSED_PREFIX(FWD, prefix.stride = 256, "k", 0, 12, ROOM);
    REFUSED_PREFIX(FWD, prefix.n_rows = 0, "n_rows", 0, 12, ROOM);
    REFUSED_PREFIX(FWD, prefix.n_rows = ((size_t)1 << 40) - 1; prefix.n_prefixes = 1; of_seg[0] = 0, "k", 0, 12, ROOM);
    of_seg[0] = 1;
    REFUSED_PREFIX(FWD, prefix.n_prefixes = 0, "n_prefixes", 0, 12, ROOM);
    REFUSED_PREFIX(FWD, prefix.n_prefixes = 1, "of_seg", 0, 12, ROOM);
    REFUSED_PREFIX(FWD, prefix.of_seg = NULL, "of_seg", 0, 12, ROOM);
    REFUSED_PREFIX(BWD, prefix.dk_part = NULL, "dk_part", 0, 12, ROOM);
    REFUSED_PREFIX(BWD, prefix.dv_part = (float *)(memory + 4), "dv_part", 0, 12, ROOM);
    REFUSED_PREFIX(SUM_PREFIX, prefix.dk = NULL, "dk", 0, 4);
    REFUSED_PREFIX(SUM_PREFIX, prefix.dv = NULL, "dv", 0, 4);
    REFUSED(SUM_PREFIX, , "end", 0, 5);
    REFUSED(SUM_PREFIX, a.prefix = NULL, "prefix", 0, 4);
}
END_TEST

#undef FWD
#undef BWD
#undef SUM
#undef SUM_PREFIX
#undef ROOM

START_TEST(dequant)
{
    float out[32];
    struct cr_error err;
    memset(memory, 0, 18);
    ck_assert_int_eq(cr_dequant_checked(CR_Q_Q4_0, CR_TIER_SCALAR, memory, 0, 32, out, &err), CR_OK);
    ck_assert(out[31] == 0);
    static const struct {
        int type;
        size_t first, n;
        bool row, out;
        const char *argument;
    } bad[] = {
        {-5, 0, 32, true, true, "type"},
        {4, 0, 32, true, true, "type"},
        {CR_Q_Q4_0, 0, 32, false, true, "row"},
        {CR_Q_Q4_0, 0, 32, true, false, "out"},
        {CR_Q_Q4_0, 0, 31, true, true, "n"},
        {CR_Q_Q4_0, 16, 32, true, true, "first"},
        {CR_Q_F32, 0, SIZE_MAX / 2 & ~31ul, true, true, "n"},
        {CR_Q_F32, SIZE_MAX & ~31ul, 32, true, true, "first"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        const void *row = bad[i].row ? memory : NULL;
        float *to = bad[i].out ? out : NULL;
        ck_assert_int_eq(cr_dequant_checked(bad[i].type, CR_TIER_SCALAR, row, bad[i].first, bad[i].n, to, &err),
                         CR_E_USAGE);
        char expected[32] = "dequant: ";
        strcat(expected, bad[i].argument);
        ck_assert_msg(strncmp(err.message, expected, strlen(expected)) == 0, "%s", err.message);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("contracts products");
    TCase *tcase = tcase_create("contracts products");
    tcase_add_test(tcase, lowrank);
    tcase_add_test(tcase, qgemm);
    tcase_add_test(tcase, attention_operands);
    tcase_add_test(tcase, attention_shape);
    tcase_add_test(tcase, attention_prefix);
    tcase_add_test(tcase, dequant);
    suite_add_tcase(suite, tcase);
    return cr_run_suite(suite);
}
