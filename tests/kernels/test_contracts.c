/* Checked entries: every violation of a caller is a status and a message that names the argument, and the kernel does
 * not run; sound arguments run it once. The kernels are spies that count, so no memory stands behind the pointers.
 * Tables refuse tiers outside the enum. */
#include <check.h>
#include <stdalign.h>
#include <stdlib.h>
#include <string.h>

#include "credence/kernels.h"

enum { BLOCKS = 3 };

static alignas(64) char memory[4096]; /* what sound pointers point to: never touched but by embed's ids */
static int n_runs;

#define SPY(op)                                                                                                        \
    static void spy_##op(const struct cr_##op##_args *args, size_t begin, size_t end)                                  \
    {                                                                                                                  \
        (void)args, (void)begin, (void)end;                                                                            \
        n_runs++;                                                                                                      \
    }
#define SPY_SCRATCH(op)                                                                                                \
    static void spy_##op(const struct cr_##op##_args *args, size_t begin, size_t end, void *scratch)                   \
    {                                                                                                                  \
        (void)args, (void)begin, (void)end, (void)scratch;                                                             \
        n_runs++;                                                                                                      \
    }

/* One call on a copy of `good` after `change`. REFUSED wants the argument named, ACCEPTED one run. */
#define REFUSED(call, change, argument, ...)                                                                           \
    do {                                                                                                               \
        const struct cr_error untouched = {.status = 1, .message = "before"};                                          \
        struct cr_error err = untouched;                                                                               \
        __typeof__(good) a = good;                                                                                     \
        change;                                                                                                        \
        n_runs = 0;                                                                                                    \
        ck_assert_int_eq(call(&ops, &a, __VA_ARGS__, &err), CR_E_USAGE);                                               \
        ck_assert_int_eq(err.status, CR_E_USAGE);                                                                      \
        ck_assert_msg(strstr(err.message, ": " argument " ") != NULL, "'%s' does not name " argument, err.message);    \
        ck_assert_int_eq(call(&ops, &a, __VA_ARGS__, NULL), CR_E_USAGE);                                               \
        ck_assert_int_eq(n_runs, 0);                                                                                   \
    } while (0)
#define ACCEPTED(call, change, runs, ...)                                                                              \
    do {                                                                                                               \
        struct cr_error err = {.message = "before"};                                                                   \
        __typeof__(good) a = good;                                                                                     \
        change;                                                                                                        \
        n_runs = 0;                                                                                                    \
        cr_status status = call(&ops, &a, __VA_ARGS__, &err);                                                          \
        ck_assert_msg(status == CR_OK, "%s", err.message);                                                             \
        ck_assert_str_eq(err.message, "before");                                                                       \
        ck_assert_int_eq(n_runs, runs);                                                                                \
    } while (0)
/* What every entry refuses; the last arguments are the scratch, if any. */
#define REFUSED_ALWAYS(call, fn, ...)                                                                                  \
    do {                                                                                                               \
        struct cr_error said;                                                                                          \
        ck_assert_int_eq(call(NULL, &good, __VA_ARGS__, &said), CR_E_USAGE);                                           \
        ck_assert_ptr_nonnull(strstr(said.message, ": ops is NULL"));                                                  \
        ck_assert_int_eq(call(&ops, NULL, __VA_ARGS__, &said), CR_E_USAGE);                                            \
        ck_assert_ptr_nonnull(strstr(said.message, ": args is NULL"));                                                 \
        __typeof__(ops) kept = ops;                                                                                    \
        ops.fn = NULL;                                                                                                 \
        REFUSED(call, , "ops." #fn, __VA_ARGS__);                                                                      \
        ops = kept;                                                                                                    \
    } while (0)
/* A TL16 operand: there, on a line, strides whole lines, apart and addressable. stride counts `line` a line. */
#define REFUSED_BLOCKS(call, pointer, stride, line, ...)                                                               \
    do {                                                                                                               \
        REFUSED(call, a.pointer = NULL, #pointer, __VA_ARGS__);                                                        \
        REFUSED(call, a.pointer = (void *)(memory + 16), #pointer, __VA_ARGS__);                                       \
        REFUSED(call, a.stride += (line) / 2, #pointer, __VA_ARGS__);                                                  \
        REFUSED(call, a.stride = (line), #pointer, __VA_ARGS__);                                                       \
        REFUSED(call, a.stride = SIZE_MAX / 64 * (line) / 2, #pointer, __VA_ARGS__);                                   \
        REFUSED(call, a.stride = SIZE_MAX & ~(size_t)63, #pointer, __VA_ARGS__);                                       \
    } while (0)

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

/* A sound 70 x 64 matrix of Q4_0. */
static const struct cr_qmat q4_0 = {.data = memory, .row_bytes = 36, .n_rows = 70, .n_cols = 64, .type = CR_Q_Q4_0};

#define REFUSED_MATRIX(call, w, ...)                                                                                   \
    do {                                                                                                               \
        REFUSED(call, a.w.data = NULL, "w.data", __VA_ARGS__);                                                         \
        REFUSED(call, a.w.type = -1, "w.type", __VA_ARGS__);                                                           \
        REFUSED(call, a.w.type = 1000, "w.type", __VA_ARGS__);                                                         \
        REFUSED(call, a.w.type = 4, "w.type", __VA_ARGS__);  /* withdrawn */                                           \
        REFUSED(call, a.w.type = 28, "w.type", __VA_ARGS__); /* known, not multiplied with */                          \
        REFUSED(call, a.w.n_cols = 48, "w.n_cols", __VA_ARGS__);                                                       \
        REFUSED(call, a.w.type = CR_Q_Q4_K, "w.n_cols", __VA_ARGS__);                                                  \
        REFUSED(call, a.w.n_cols = 0, "w.n_cols", __VA_ARGS__);                                                        \
        REFUSED(call, a.w.n_rows = 0, "w.n_rows", __VA_ARGS__);                                                        \
        REFUSED(call, a.w.n_rows = SIZE_MAX, "w.n_rows", __VA_ARGS__);                                                 \
        REFUSED(call, a.w.row_bytes = 35, "w.row_bytes", __VA_ARGS__);                                                 \
        REFUSED(call, a.w.row_bytes = SIZE_MAX / 8, "w.row_bytes", __VA_ARGS__);                                       \
    } while (0)
#define REFUSED_SCRATCH(call, begin, end, bytes)                                                                       \
    do {                                                                                                               \
        REFUSED(call, , "scratch", begin, end, NULL, bytes);                                                           \
        REFUSED(call, , "scratch", begin, end, memory + 8, bytes);                                                     \
        REFUSED(call, , "scratch_bytes", begin, end, memory, (bytes)-1);                                               \
        REFUSED(call, , "scratch_bytes", begin, end, memory, 0);                                                       \
    } while (0)

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

SPY(adamw)
START_TEST(adamw)
{
    struct cr_adamw_ops ops = {spy_adamw, spy_adamw};
    struct cr_adamw_args good = {.lr = 1e-3, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .clip = 1, .t = 1};
    good.w = good.m = good.v = (float *)memory;
    good.grad = (const float *)memory;
    good.partial = (double *)memory;
    const size_t end = 2 * CR_ADAMW_CHUNK + 17;
#define STEP cr_adamw_step_checked
    ACCEPTED(STEP, , 1, CR_ADAMW_CHUNK, end);
    ACCEPTED(cr_adamw_norm2_checked, , 1, 0, end);
    REFUSED_ALWAYS(STEP, step, 0, end);
    REFUSED_ALWAYS(cr_adamw_norm2_checked, norm2, 0, end);
    REFUSED(STEP, , "begin", 32, end);
    REFUSED(STEP, , "end", 0, SIZE_MAX / 2);
    REFUSED(STEP, a.w = NULL, "w", 0, end);
    REFUSED(STEP, a.m = NULL, "m", 0, end);
    REFUSED(STEP, a.v = NULL, "v", 0, end);
    REFUSED(STEP, a.grad = NULL, "grad", 0, end);
    REFUSED(STEP, a.t = 0, "t", 0, end);
    REFUSED(STEP, a.beta1 = 1, "beta1", 0, end);
    REFUSED(STEP, a.beta2 = -0.5, "beta2", 0, end);
    REFUSED(STEP, a.beta2 = __builtin_nan(""), "beta2", 0, end);
    REFUSED(STEP, a.eps = -1, "eps", 0, end);
    REFUSED(cr_adamw_norm2_checked, a.partial = NULL, "partial", 0, end);
#undef STEP
}
END_TEST

SPY(dplr)
SPY(dplr_collect)
static void spy_density(const struct cr_dplr_args *args, size_t begin, size_t end, void *scratch)
{
    (void)args, (void)begin, (void)end, (void)scratch;
    n_runs++;
}
START_TEST(dplr)
{
    struct cr_dplr_ops ops = {spy_dplr, spy_density, spy_dplr_collect};
    const size_t end = CR_DPLR_CHUNK + 17, bytes = CR_DPLR_SCRATCH_BYTES;
    struct cr_dplr_args good = {.row_stride = end, .n_rows = 4, .var_scale = 1, .out_stride = end, .n_samples = 3};
    good.mean = good.var = good.coef = good.x = (const float *)memory;
    good.rows = (const uint16_t *)memory;
    good.out = (float *)memory;
    good.sums = (double *)memory;
#define SAMPLE cr_dplr_sample_checked
#define DENSITY cr_dplr_density_checked
    ACCEPTED(SAMPLE, , 1, CR_DPLR_CHUNK, end);
    ACCEPTED(SAMPLE, (a.n_rows = 0, a.rows = NULL, a.coef = NULL), 1, 0, end);
    ACCEPTED(SAMPLE, (a.n_rows = a.n_samples = 1, a.row_stride = a.out_stride = 0), 1, 0, end);
    ACCEPTED(DENSITY, , 1, 0, end, memory, bytes);
    REFUSED_ALWAYS(SAMPLE, sample, 0, end);
    REFUSED_ALWAYS(DENSITY, density, 0, end, memory, bytes);
    REFUSED(SAMPLE, , "begin", 64, end);
    REFUSED(SAMPLE, , "end", 0, ((size_t)1 << 34) + 1);
    REFUSED(SAMPLE, a.mean = NULL, "mean", 0, end);
    REFUSED(SAMPLE, a.var = NULL, "var", 0, end);
    REFUSED(SAMPLE, a.rows = NULL, "rows", 0, end);
    REFUSED(SAMPLE, a.n_rows = SIZE_MAX, "n_rows", 0, end);
    REFUSED(SAMPLE, a.row_stride = end - 1, "row_stride", 0, end);
    REFUSED(SAMPLE, a.row_stride = SIZE_MAX / 4, "row_stride", 0, end);
    REFUSED(SAMPLE, a.coef = NULL, "coef", 0, end);
    REFUSED(SAMPLE, a.out = NULL, "out", 0, end);
    REFUSED(SAMPLE, a.out_stride = end - 1, "out_stride", 0, end);
    REFUSED(SAMPLE, a.n_samples = 0, "n_samples", 0, end);
    REFUSED(SAMPLE, a.eps = a.x, "eps_stride", 0, end);
    REFUSED(SAMPLE, a.var_scale = -1, "var_scale", 0, end);
    REFUSED(SAMPLE, a.var_floor = __builtin_nan(""), "var_floor", 0, end);
    REFUSED(DENSITY, a.x = NULL, "x", 0, end, memory, bytes);
    REFUSED(DENSITY, a.sums = NULL, "sums", 0, end, memory, bytes);
    REFUSED(DENSITY, , "scratch", 0, end, NULL, bytes);
    REFUSED(DENSITY, , "scratch", 0, end, memory + 4, bytes);
    REFUSED(DENSITY, , "scratch_bytes", 0, end, memory, bytes - 1);
#undef SAMPLE
#undef DENSITY
}
END_TEST

START_TEST(dplr_collect)
{
    struct cr_dplr_ops ops = {spy_dplr, spy_density, spy_dplr_collect};
    const size_t end = CR_DPLR_CHUNK + 17;
    struct cr_dplr_collect_args good = {0};
    good.w = (const float *)memory;
    good.mean = good.mean_low = good.m2 = (float *)memory;
    good.row = (uint16_t *)memory;
#define COLLECT cr_dplr_collect_checked
    ACCEPTED(COLLECT, , 1, 0, end);
    REFUSED_ALWAYS(COLLECT, collect, 0, end);
    REFUSED(COLLECT, , "begin", 64, end);
    REFUSED(COLLECT, a.w = NULL, "w", 0, end);
    REFUSED(COLLECT, a.mean = NULL, "mean", 0, end);
    REFUSED(COLLECT, a.mean_low = NULL, "mean_low", 0, end);
    REFUSED(COLLECT, a.m2 = NULL, "m2", 0, end);
    REFUSED(COLLECT, a.row = NULL, "row", 0, end);
#undef COLLECT
}
END_TEST

SPY(ivon)
START_TEST(ivon)
{
    struct cr_ivon_ops ops = {spy_ivon, spy_ivon, spy_ivon};
    struct cr_ivon_args good = {.lr = 0.1, .ess = 1e5, .beta1 = 0.9, .beta2 = 0.99999, .hess_init = 1e-3};
    good.mean = good.momentum = good.hess = good.avg_grad = good.avg_curv = good.next = (float *)memory;
    good.grad = (const float *)memory;
    good.clip_radius = __builtin_inf();
    good.grad_scale = good.clip = 1;
    good.t = good.sample = 1;
    const size_t end = 2 * CR_IVON_CHUNK + 17;
    const double nan = __builtin_nan("");
#define STEP cr_ivon_step_checked
#define ACCUMULATE cr_ivon_accumulate_checked
#define PERTURB cr_ivon_perturb_checked
    ACCEPTED(STEP, , 1, CR_IVON_CHUNK, end);
    ACCEPTED(STEP, a.avg_grad = a.next = NULL, 1, 0, end);
    ACCEPTED(STEP, a.grad = NULL, 1, 0, end);
    ACCEPTED(ACCUMULATE, a.mean = a.next = NULL, 1, 0, end);
    ACCEPTED(PERTURB, a.momentum = NULL, 1, 0, end);
    REFUSED_ALWAYS(STEP, step, 0, end);
    REFUSED_ALWAYS(ACCUMULATE, accumulate, 0, end);
    REFUSED_ALWAYS(PERTURB, perturb, 0, end);
    REFUSED(STEP, , "begin", 64, end);
    REFUSED(STEP, , "end", 0, ((size_t)1 << 34) + 1);
    REFUSED(STEP, a.mean = NULL, "mean", 0, end);
    REFUSED(STEP, a.momentum = NULL, "momentum", 0, end);
    REFUSED(STEP, a.hess = NULL, "hess", 0, end);
    REFUSED(STEP, (a.sample = 2, a.avg_curv = NULL), "avg_curv", 0, end);
    REFUSED(STEP, (a.grad = NULL, a.avg_grad = NULL), "avg_grad", 0, end);
    REFUSED(STEP, a.next_high = (uint16_t *)memory, "next_low", 0, end);
    REFUSED(STEP, a.sample = 0, "sample", 0, end);
    REFUSED(STEP, a.t = 0, "t", 0, end);
    REFUSED(STEP, a.lr = nan, "lr", 0, end);
    REFUSED(STEP, a.ess = 0, "ess", 0, end);
    REFUSED(STEP, a.ess = __builtin_inf(), "ess", 0, end);
    REFUSED(STEP, a.weight_decay = -1, "weight_decay", 0, end);
    REFUSED(STEP, a.beta1 = 1, "beta1", 0, end);
    REFUSED(STEP, a.beta2 = nan, "beta2", 0, end);
    REFUSED(STEP, a.hess_init = 0, "hess_init", 0, end);
    REFUSED(STEP, a.clip_radius = 0, "clip_radius", 0, end);
    REFUSED(STEP, a.grad_scale = nan, "grad_scale", 0, end);
    REFUSED(STEP, a.clip = -1, "clip", 0, end);
    REFUSED(ACCUMULATE, a.grad = NULL, "grad", 0, end);
    REFUSED(ACCUMULATE, a.avg_grad = NULL, "avg_grad", 0, end);
    REFUSED(ACCUMULATE, a.hess = NULL, "hess", 0, end);
    REFUSED(PERTURB, a.next = NULL, "next", 0, end);
#undef STEP
#undef ACCUMULATE
#undef PERTURB
}
END_TEST

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
                                 .x_stride = 70 * 32,
                                 .y_stride = 70 * 16,
                                 .n_blocks = BLOCKS,
                                 .p_os = 4,
                                 .p_rs = 1,
                                 .u_stride = 64,
                                 .rank = 4};
    good.x_stride = 35 * 64;
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
START_TEST(attention)
{
    struct cr_attention_ops ops = {
        .fwd = spy_attention, .bwd = spy_attention, .sum_kv = spy_attention, .sum_prefix = spy_attention};
    uint32_t seg[] = {0, 5, 40, 48}, of_seg[] = {1, CR_ATTENTION_NO_PREFIX, 0};
    struct cr_attention_prefix prefix = {.stride = 2 * 2 * 8 * 16, .n_rows = 20, .n_prefixes = 2, .of_seg = of_seg};
    prefix.k = prefix.v = (const float *)memory;
    prefix.dk = prefix.dv = prefix.dk_part = prefix.dv_part = (float *)memory;
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
                                     .prefix = &prefix};
    good.q = good.k = good.v = good.d_o = (const float *)memory;
    good.o = good.lse = good.dq = good.dk = good.dv = good.dk_sum = good.dv_sum = (float *)memory;
    const size_t bytes = cr_attention_scratch_bytes(35, 8, 20);
#define FWD cr_attention_fwd_checked
#define BWD cr_attention_bwd_checked
#define SUM cr_attention_sum_kv_checked
#define SUM_PREFIX cr_attention_sum_prefix_checked
#define ROOM memory, bytes
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
    REFUSED_BLOCKS(BWD, d_o, do_stride, 16, 0, 12, ROOM);
    REFUSED_BLOCKS(BWD, dk, dkv_stride, 16, 0, 12, ROOM);
    REFUSED(BWD, a.dq = NULL, "dq", 0, 12, ROOM);
    REFUSED(BWD, a.dv = NULL, "dv", 0, 12, ROOM);
    REFUSED_BLOCKS(SUM, dk, dkv_stride, 16, 0, BLOCKS);
    REFUSED_BLOCKS(SUM, dk_sum, kv_stride, 16, 0, BLOCKS);
    REFUSED(SUM, a.dv_sum = NULL, "dv_sum", 0, BLOCKS);
    REFUSED_SCRATCH(FWD, 0, 12, bytes);
    REFUSED_SCRATCH(BWD, 0, 12, bytes);
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
#undef FWD
#undef BWD
#undef SUM
#undef SUM_PREFIX
#undef ROOM
}
END_TEST

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

/* Each table: every tier of the enum is taken and fills every slot; others and NULL are refused with nothing written.
 */
#define TABLE(op)                                                                                                      \
    do {                                                                                                               \
        struct cr_##op##_ops ops;                                                                                      \
        void *first;                                                                                                   \
        for (int tier = -2; tier < 40; tier++) {                                                                       \
            bool known = (tier >= CR_TIER_SCALAR && tier <= CR_TIER_AMX) ||                                            \
                         (tier >= CR_TIER_NEON && tier <= CR_TIER_NEON_BF16);                                          \
            memset(&ops, 0xee, sizeof ops);                                                                            \
            memcpy(&first, &ops, sizeof first);                                                                        \
            void *before = first;                                                                                      \
            ck_assert_int_eq(cr_##op##_ops_init(&ops, (enum cr_tier)tier), known ? CR_OK : CR_E_USAGE);                \
            memcpy(&first, &ops, sizeof first);                                                                        \
            ck_assert_msg((first != before) == known, #op " at tier %d", tier);                                        \
        }                                                                                                              \
        ck_assert_int_eq(cr_##op##_ops_init(NULL, CR_TIER_SCALAR), CR_E_USAGE);                                        \
    } while (0)

START_TEST(tables)
{
    TABLE(act);
    TABLE(adamw);
    TABLE(attention);
    TABLE(cast);
    TABLE(dplr);
    TABLE(embed);
    TABLE(ivon);
    TABLE(lowrank);
    TABLE(norm);
    TABLE(qgemm);
    TABLE(rng);
    TABLE(rope);
    TABLE(xent);
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
    tcase_add_test(tcase, adamw);
    tcase_add_test(tcase, dplr);
    tcase_add_test(tcase, dplr_collect);
    tcase_add_test(tcase, ivon);
    tcase_add_test(tcase, lowrank);
    tcase_add_test(tcase, qgemm);
    tcase_add_test(tcase, attention);
    tcase_add_test(tcase, dequant);
    tcase_add_test(tcase, tables);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int n_failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return n_failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
