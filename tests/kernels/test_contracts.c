/* Checked entries of what a layer does beside its products, and of the loss (contracts_case.h). Tables refuse tiers
 * outside the enum. */
#include <check.h>
#include <stddef.h>
#include <string.h>

#include "tests/kernels/contracts_case.h"
#include "tests/support/kernel_test.h"

SPY(norm)
START_TEST(norm)
{
    struct cr_norm_ops ops = {spy_norm, spy_norm, spy_norm};
    struct cr_norm_args good = {.n_features = 6,
                                .x_stride = 384,
                                .y_stride = 192,
                                .y_type = CR_X_BF16,
                                .dy_stride = 96,
                                .dx_stride = 96,
                                .eps = 1e-5f};
    good.x = memory;
    good.w = good.dy = (const float *)memory;
    good.rstd = good.dx = (float *)memory;
    good.y = memory;
#define FWD cr_norm_rms_fwd_checked
#define BWD cr_norm_rms_bwd_checked
#define APPLY cr_norm_rms_apply_checked
    ACCEPTED(FWD, , 1, 1, BLOCKS);
    ACCEPTED(BWD, , 1, 0, BLOCKS);
    ACCEPTED(APPLY, , 1, 0, BLOCKS);
    ACCEPTED(APPLY, a.x_type = CR_X_BF16, 1, 0, BLOCKS);
    ACCEPTED(FWD, , 0, 2, 2);
    ACCEPTED(FWD, a.x_stride = 0, 1, 0, 1); /* one block has no neighbour */
    REFUSED_ALWAYS(FWD, rms_fwd, 0, BLOCKS);
    REFUSED_ALWAYS(BWD, rms_bwd, 0, BLOCKS);
    REFUSED_ALWAYS(APPLY, rms_apply, 0, BLOCKS);
    REFUSED(FWD, a.x_type = CR_X_BF16, "x_type", 0, BLOCKS);
    REFUSED(BWD, a.x_type = (enum cr_xtype)2, "x_type", 0, BLOCKS);
    REFUSED_BLOCKS(APPLY, y, y_stride, 64, 0, BLOCKS);
    REFUSED(FWD, , "begin", 2, 1);
    REFUSED(FWD, a.n_features = 0, "n_features", 0, BLOCKS);
    REFUSED(FWD, a.n_features = SIZE_MAX, "n_features", 0, BLOCKS);
    REFUSED(FWD, a.n_features = 5, "y_type", 0, BLOCKS);
    REFUSED(FWD, a.y_type = (enum cr_xtype)2, "y_type", 0, BLOCKS);
    REFUSED(FWD, a.w = NULL, "w", 0, BLOCKS);
    REFUSED(FWD, a.rstd = NULL, "rstd", 0, BLOCKS);
    REFUSED(FWD, , "x", 0, SIZE_MAX);
    REFUSED_BLOCKS(FWD, x, x_stride, 64, 0, BLOCKS);
    REFUSED_BLOCKS(FWD, y, y_stride, 64, 0, BLOCKS);
    REFUSED_BLOCKS(BWD, dy, dy_stride, 16, 0, BLOCKS);
    REFUSED_BLOCKS(BWD, dx, dx_stride, 16, 0, BLOCKS);
#undef FWD
#undef BWD
#undef APPLY
}
END_TEST

SPY(rope)
START_TEST(rope)
{
    struct cr_rope_ops ops = {spy_rope};
    struct cr_rope_args good = {.n_heads = 2, .head_dim = 4, .n_rot = 4, .x_stride = 128, .style = CR_ROPE_NEOX};
    good.x = (float *)memory;
    good.table = (const float *)memory;
    good.pos = (const uint32_t *)memory;
#define RUN cr_rope_apply_checked
    ACCEPTED(RUN, , 1, 0, BLOCKS);
    REFUSED_ALWAYS(RUN, apply, 0, BLOCKS);
    REFUSED_BLOCKS(RUN, x, x_stride, 16, 0, BLOCKS);
    REFUSED(RUN, a.pos = NULL, "pos", 0, BLOCKS);
    REFUSED(RUN, a.table = NULL, "table", 0, BLOCKS);
    REFUSED(RUN, a.n_heads = 0, "n_heads", 0, BLOCKS);
    REFUSED(RUN, a.head_dim = 0, "head_dim", 0, BLOCKS);
    REFUSED(RUN, a.n_rot = 3, "n_rot", 0, BLOCKS);
    REFUSED(RUN, a.n_rot = 6, "n_rot", 0, BLOCKS);
    REFUSED(RUN, a.style = (enum cr_rope_style)9, "style", 0, BLOCKS);
    REFUSED(RUN, a.n_heads = a.head_dim = (size_t)1 << 33, "n_heads", 0, BLOCKS);
#undef RUN
}
END_TEST

SPY(act)
START_TEST(act)
{
    struct cr_act_ops ops = {spy_act, spy_act};
    struct cr_act_args good = {.n_features = 4,
                               .gu_stride = 128,
                               .g_type = CR_X_BF16,
                               .h_stride = 256,
                               .dh_stride = 64,
                               .dgu_stride = 64,
                               .h_type = CR_X_F32};
    good.g = good.u = good.h = memory;
    good.dh = good.dg = good.du = (float *)memory;
#define FWD cr_act_swiglu_fwd_checked
#define BWD cr_act_swiglu_bwd_checked
    ACCEPTED(FWD, , 1, 0, BLOCKS);
    ACCEPTED(BWD, , 1, 0, BLOCKS);
    REFUSED_ALWAYS(FWD, swiglu_fwd, 0, BLOCKS);
    REFUSED_ALWAYS(BWD, swiglu_bwd, 0, BLOCKS);
    REFUSED_BLOCKS(FWD, g, gu_stride, 64, 0, BLOCKS);
    REFUSED(FWD, a.u = NULL, "u", 0, BLOCKS);
    REFUSED_BLOCKS(FWD, h, h_stride, 64, 0, BLOCKS);
    REFUSED_BLOCKS(BWD, dh, dh_stride, 16, 0, BLOCKS);
    REFUSED_BLOCKS(BWD, dg, dgu_stride, 16, 0, BLOCKS);
    REFUSED(BWD, a.du = (float *)(memory + 4), "du", 0, BLOCKS);
    REFUSED(FWD, a.g_type = (enum cr_xtype)7, "g_type", 0, BLOCKS);
    REFUSED(FWD, a.h_type = (enum cr_xtype)7, "h_type", 0, BLOCKS);
    REFUSED(BWD, a.n_features = 3, "g_type", 0, BLOCKS);
    REFUSED(FWD, a.n_features = 0, "n_features", 0, BLOCKS);
#undef FWD
#undef BWD
}
END_TEST

SPY(cast)
START_TEST(cast)
{
    struct cr_cast_ops ops = {spy_cast, spy_cast};
    struct cr_cast_args good = {.n_features = 4, .f32_stride = 64, .bf16_stride = 128};
    good.f32 = (float *)memory;
    good.bf16 = (uint16_t *)memory;
    ACCEPTED(cr_cast_to_bf16_checked, , 1, 0, BLOCKS);
    ACCEPTED(cr_cast_from_bf16_checked, , 1, 0, BLOCKS);
    REFUSED_ALWAYS(cr_cast_to_bf16_checked, to_bf16, 0, BLOCKS);
    REFUSED_ALWAYS(cr_cast_from_bf16_checked, from_bf16, 0, BLOCKS);
    REFUSED_BLOCKS(cr_cast_to_bf16_checked, f32, f32_stride, 16, 0, BLOCKS);
    REFUSED_BLOCKS(cr_cast_from_bf16_checked, bf16, bf16_stride, 64, 0, BLOCKS);
    REFUSED(cr_cast_to_bf16_checked, a.n_features = 3, "n_features", 0, BLOCKS);
    REFUSED(cr_cast_to_bf16_checked, a.n_features = 0, "n_features", 0, BLOCKS);
}
END_TEST

SPY_SCRATCH(embed)
START_TEST(embed)
{
    struct cr_embed_ops ops = {spy_embed};
    int32_t ids[BLOCKS * CR_LANES] = {0};
    ids[47] = 69;
    struct cr_embed_args good = {.table = q4_0, .ids = ids, .x = (float *)memory, .x_stride = 64 * 16};
    const size_t bytes = 64 * sizeof(float);
#define RUN cr_embed_rows_checked
    ACCEPTED(RUN, , 1, 0, BLOCKS, memory, bytes);
    REFUSED_ALWAYS(RUN, rows, 0, BLOCKS, memory, bytes);
    REFUSED_BLOCKS(RUN, x, x_stride, 16, 0, BLOCKS, memory, bytes);
    REFUSED_MATRIX(RUN, table, 0, BLOCKS, memory, bytes);
    REFUSED_SCRATCH(RUN, 0, BLOCKS, bytes);
    REFUSED(RUN, a.ids = NULL, "ids", 0, BLOCKS, memory, bytes);
    REFUSED(RUN, ids[20] = 70, "ids", 0, BLOCKS, memory, bytes);
    ACCEPTED(RUN, , 1, 0, 1, memory, bytes); /* the bad one is in the second block */
    REFUSED(RUN, ids[20] = -1, "ids", 0, BLOCKS, memory, bytes);
#undef RUN
}
END_TEST

SPY(xent)
static void spy_xent_row(const struct cr_xent_row_args *args, size_t begin, size_t end)
{
    (void)args, (void)begin, (void)end;
    n_runs++;
}
START_TEST(xent)
{
    struct cr_xent_ops ops = {spy_xent, spy_xent, spy_xent, spy_xent_row, spy_xent_row};
    struct cr_xent_args good = {.n_rows = 6, .z_stride = 96, .dz_stride = 192, .dz_type = CR_X_BF16};
    good.z = good.lse = good.weight = (const float *)memory;
    good.m = good.s = good.label = (float *)memory;
    good.target = (const int32_t *)memory;
    good.dz = memory;
    good.mass = (float *)memory;
#define STATS cr_xent_stats_checked
#define GRAD cr_xent_grad_checked
#define EXPSUM cr_xent_expsum_checked
    ACCEPTED(STATS, , 1, 0, BLOCKS);
    ACCEPTED(GRAD, , 1, 0, BLOCKS);
    ACCEPTED(STATS, a.n_rows = 5, 1, 0, BLOCKS);
    REFUSED_ALWAYS(STATS, stats, 0, BLOCKS);
    REFUSED_ALWAYS(GRAD, grad, 0, BLOCKS);
    REFUSED_BLOCKS(STATS, z, z_stride, 16, 0, BLOCKS);
    REFUSED_BLOCKS(GRAD, dz, dz_stride, 64, 0, BLOCKS);
    REFUSED(STATS, a.target = NULL, "target", 0, BLOCKS);
    REFUSED(STATS, a.m = NULL, "m", 0, BLOCKS);
    REFUSED(STATS, a.s = NULL, "s", 0, BLOCKS);
    REFUSED(STATS, a.label = NULL, "label", 0, BLOCKS);
    REFUSED(GRAD, a.lse = NULL, "lse", 0, BLOCKS);
    REFUSED(GRAD, a.weight = NULL, "weight", 0, BLOCKS);
    REFUSED(GRAD, a.n_rows = 5, "dz_type", 0, BLOCKS);
    REFUSED(GRAD, a.dz_type = (enum cr_xtype)3, "dz_type", 0, BLOCKS);
    REFUSED(STATS, a.n_rows = 0, "n_rows", 0, BLOCKS);
    REFUSED(STATS, a.first_row = INT32_MAX - 3, "n_rows", 0, BLOCKS);
    REFUSED(STATS, a.first_row = SIZE_MAX - 2, "first_row", 0, BLOCKS);
    ACCEPTED(EXPSUM, , 1, 0, BLOCKS);
    ACCEPTED(EXPSUM, a.n_rows = 5, 1, 0, BLOCKS);
    REFUSED_ALWAYS(EXPSUM, expsum, 0, BLOCKS);
    REFUSED_BLOCKS(EXPSUM, z, z_stride, 16, 0, BLOCKS);
    REFUSED_BLOCKS(EXPSUM, dz, dz_stride, 64, 0, BLOCKS);
    REFUSED(EXPSUM, (a.n_rows = 5, a.dz_stride = 128), "dz", 0, BLOCKS); /* the missing half needs its place */
    REFUSED(EXPSUM, a.m = NULL, "m", 0, BLOCKS);
    REFUSED(EXPSUM, a.s = NULL, "s", 0, BLOCKS);
    REFUSED(EXPSUM, a.mass = NULL, "mass", 0, BLOCKS);
    REFUSED(EXPSUM, a.target = NULL, "target", 0, BLOCKS);
    REFUSED(EXPSUM, a.dz_type = (enum cr_xtype)3, "dz_type", 0, BLOCKS);
#undef STATS
#undef GRAD
#undef EXPSUM
}
END_TEST

START_TEST(xent_rows)
{
    struct cr_xent_ops ops = {spy_xent, spy_xent, spy_xent, spy_xent_row, spy_xent_row};
    struct cr_xent_row_args good = {
        .w_stride = 96, .h_stride = 192, .h_type = CR_X_BF16, .dh_stride = 96, .n_features = 6};
    good.w = good.m = good.dh = (float *)memory;
    good.mass = good.scale = (const float *)memory;
    good.h = memory;
#define LABEL cr_xent_label_checked
#define FINISH cr_xent_finish_checked
    ACCEPTED(LABEL, , 1, 0, BLOCKS);
    ACCEPTED(FINISH, , 1, 0, BLOCKS);
    REFUSED_ALWAYS(LABEL, label, 0, BLOCKS);
    REFUSED_ALWAYS(FINISH, finish, 0, BLOCKS);
    REFUSED_BLOCKS(LABEL, w, w_stride, 16, 0, BLOCKS);
    REFUSED_BLOCKS(LABEL, h, h_stride, 64, 0, BLOCKS);
    REFUSED_BLOCKS(FINISH, w, w_stride, 16, 0, BLOCKS);
    REFUSED_BLOCKS(FINISH, dh, dh_stride, 16, 0, BLOCKS);
    REFUSED(LABEL, a.n_features = 0, "n_features", 0, BLOCKS);
    REFUSED(LABEL, a.n_features = 5, "h_type", 0, BLOCKS);
    REFUSED(LABEL, a.m = NULL, "m", 0, BLOCKS);
    REFUSED(FINISH, a.n_features = 0, "n_features", 0, BLOCKS);
    REFUSED(FINISH, a.mass = NULL, "mass", 0, BLOCKS);
    REFUSED(FINISH, a.scale = NULL, "scale", 0, BLOCKS);
#undef LABEL
#undef FINISH
}
END_TEST

static void spy_normals(const struct cr_noise *noise, float *out, size_t begin, size_t end)
{
    (void)noise, (void)out, (void)begin, (void)end;
    n_runs++;
}
static void spy_words(const struct cr_noise *noise, uint32_t *out, size_t begin, size_t end)
{
    (void)noise, (void)out, (void)begin, (void)end;
    n_runs++;
}
#define REFUSED_NUMBERS(call, fn, out)                                                                                 \
    do {                                                                                                               \
        struct cr_error said;                                                                                          \
        ACCEPTED(call, , 1, out, 3, end);                                                                              \
        ACCEPTED(call, , 0, out, end, end);                                                                            \
        REFUSED(call, , "out", NULL, 0, 1);                                                                            \
        REFUSED(call, , "begin", out, 2, 1);                                                                           \
        REFUSED(call, , "end", out, 0, end + 1);                                                                       \
        ck_assert_int_eq(call(NULL, &good, out, 0, 1, &said), CR_E_USAGE);                                             \
        ck_assert_ptr_nonnull(strstr(said.message, ": ops is NULL"));                                                  \
        ck_assert_int_eq(call(&ops, NULL, out, 0, 1, &said), CR_E_USAGE);                                              \
        ck_assert_ptr_nonnull(strstr(said.message, ": noise is NULL"));                                                \
        ops.fn = NULL;                                                                                                 \
        REFUSED(call, , "ops." #fn, out, 0, 1);                                                                        \
    } while (0)
START_TEST(rng)
{
    struct cr_rng_ops ops = {spy_normals, spy_words};
    const struct cr_noise good = {{1, 2}, 3, 4, 5};
    const size_t end = (size_t)1 << 34;
    REFUSED_NUMBERS(cr_rng_normals_checked, normals, (float *)memory);
    REFUSED_NUMBERS(cr_rng_words_checked, words, (uint32_t *)memory);
}
END_TEST

/* How many of the 8-byte words of a table are this byte all over. */
static size_t words_of(int byte, const void *table, size_t bytes)
{
    unsigned char word[8];
    memset(word, byte, sizeof word);
    size_t n = 0;
    for (size_t at = 0; at < bytes; at += sizeof word) {
        n += memcmp((const char *)table + at, word, sizeof word) == 0;
    }
    return n;
}

/* Each table: every tier of the enum is taken and fills every slot; others and NULL are refused with nothing written.
 * The first `slots` bytes are functions and other things that are not 0. */
#define TABLE(op, slots)                                                                                               \
    do {                                                                                                               \
        struct cr_##op##_ops ops;                                                                                      \
        ck_assert_uint_eq(sizeof ops % 8, 0);                                                                          \
        for (int tier = -2; tier < 40; tier++) {                                                                       \
            bool known = (tier >= CR_TIER_SCALAR && tier <= CR_TIER_AMX) ||                                            \
                         (tier >= CR_TIER_NEON && tier <= CR_TIER_NEON_BF16);                                          \
            memset(&ops, 0xee, sizeof ops);                                                                            \
            ck_assert_int_eq(cr_##op##_ops_init(&ops, (enum cr_tier)tier), known ? CR_OK : CR_E_USAGE);                \
            size_t left = words_of(0xee, &ops, sizeof ops), empty = words_of(0, &ops, slots);                          \
            ck_assert_msg(left == (known ? 0 : sizeof ops / 8), #op " at tier %d: %zu words left", tier, left);        \
            ck_assert_msg(empty == 0, #op " at tier %d: %zu slots empty", tier, empty);                                \
        }                                                                                                              \
        ck_assert_int_eq(cr_##op##_ops_init(NULL, CR_TIER_SCALAR), CR_E_USAGE);                                        \
    } while (0)

START_TEST(tables)
{
    TABLE(act, sizeof ops);
    TABLE(adamw, sizeof ops);
    TABLE(attention, sizeof ops);
    TABLE(cast, sizeof ops);
    TABLE(dplr, sizeof ops);
    TABLE(embed, sizeof ops);
    TABLE(ivon, sizeof ops);
    TABLE(lowrank, sizeof ops);
    TABLE(norm, sizeof ops);
    TABLE(qgemm, offsetof(struct cr_qgemm_ops, x_type));
    TABLE(rng, sizeof ops);
    TABLE(rope, sizeof ops);
    TABLE(xent, sizeof ops);
    ck_assert_str_eq(cr_kernels_version(), CREDENCE_VERSION);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("contracts");
    TCase *tcase = tcase_create("contracts");
    tcase_add_test(tcase, norm);
    tcase_add_test(tcase, rope);
    tcase_add_test(tcase, act);
    tcase_add_test(tcase, cast);
    tcase_add_test(tcase, embed);
    tcase_add_test(tcase, xent);
    tcase_add_test(tcase, xent_rows);
    tcase_add_test(tcase, rng);
    tcase_add_test(tcase, tables);
    suite_add_tcase(suite, tcase);
    return cr_run_suite(suite);
}
