/* Checked entries of steps and draws (contracts_case.h). */
#include <check.h>
#include <string.h>

#include "tests/kernels/contracts_case.h"
#include "tests/support/kernel_test.h"

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
    REFUSED(STEP, a.eps = 0, "eps", 0, end);     /* 0 / 0 where there was no gradient yet */
    REFUSED(STEP, a.eps = 1e-50, "eps", 0, end); /* 0 as f32 */
    REFUSED(STEP, a.eps = 1e39, "eps", 0, end);  /* infinite as f32 */
    REFUSED(STEP, a.clip = -1, "clip", 0, end);
    REFUSED(STEP, a.clip = __builtin_nan(""), "clip", 0, end);
    REFUSED(STEP, a.clip = 1e39, "clip", 0, end);
    REFUSED(STEP, a.lr = __builtin_nan(""), "lr", 0, end);
    REFUSED(STEP, a.lr = 1e38, "lr", 0, end); /* over 1 - beta1 = 0.1 */
    REFUSED(STEP, a.weight_decay = __builtin_inf(), "weight_decay", 0, end);
    REFUSED(STEP, a.weight_decay = 1e42, "weight_decay", 0, end);
    ACCEPTED(STEP, (a.lr = 1e37, a.clip = 3.4028234e38), 1, 0, end);
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
    REFUSED(SAMPLE, a.var_scale = 1e39, "var_scale", 0, end);
    REFUSED(DENSITY, a.var_floor = 1e39, "var_floor", 0, end, memory, bytes);
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
    REFUSED(STEP, a.ess = 1e39, "ess", 0, end);  /* infinite as f32 */
    REFUSED(STEP, a.ess = 1e-39, "ess", 0, end); /* its inverse is */
    REFUSED(PERTURB, a.ess = 1e39, "ess", 0, end);
    ACCEPTED(STEP, a.ess = 1e30, 1, 0, end);
    REFUSED(STEP, a.weight_decay = -1, "weight_decay", 0, end);
    REFUSED(STEP, a.weight_decay = 1e39, "weight_decay", 0, end);
    REFUSED(STEP, a.lr = 1e39, "lr", 0, end);
    REFUSED(STEP, (a.lr = 1e20, a.hess_init = 1e20, a.rescale_lr = true), "lr", 0, end);
    REFUSED(STEP, a.hess_init = 1e39, "hess_init", 0, end);
    REFUSED(STEP, a.grad_scale = 1e39, "grad_scale", 0, end);
    REFUSED(STEP, a.clip = 1e39, "clip", 0, end);
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

/* The average over workers is no call of a table: what it leaves shows whether it ran. */
START_TEST(ivon_merge)
{
    float a[3] = {1, 2, 3}, b[3] = {3, 6, 9}, c[3] = {5, 5, 5}, d[3] = {7, 7, 7};
    float *grads[2] = {a, b}, *curvs[2] = {c, d}, *lacking[2] = {c, NULL};
    const size_t many = ((size_t)1 << 34) + 1;
    static const char *const names[] = {"avg_grad", "avg_curv", "n_workers", "n_workers", "begin", "end"};
    const struct {
        float *const *grads, *const *curvs;
        size_t n, begin, end;
    } bad[] = {{NULL, curvs, 2, 0, 3},         {grads, NULL, 2, 0, 3},  {grads, curvs, 0, 0, 3},
               {grads, curvs, SIZE_MAX, 0, 3}, {grads, curvs, 2, 2, 1}, {grads, curvs, 2, 0, many},
               {grads, lacking, 2, 0, 3}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct cr_error err;
        ck_assert_int_eq(cr_ivon_merge_checked(bad[i].grads, bad[i].curvs, bad[i].n, bad[i].begin, bad[i].end, &err),
                         CR_E_USAGE);
        const char *name = i < 6 ? names[i] : "avg_curv of a worker";
        ck_assert_msg(strstr(err.message, name) == err.message + strlen("ivon merge: "), "%s", err.message);
        ck_assert(a[0] == 1 && b[2] == 9 && c[1] == 5);
    }
    ck_assert_int_eq(cr_ivon_merge_checked(grads, curvs, 2, 1, 3, NULL), CR_OK);
    ck_assert(a[0] == 1 && a[1] == 4 && a[2] == 6 && b[0] == 3 && b[1] == 4 && c[0] == 5 && c[1] == 6 && d[2] == 6);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("contracts optim");
    TCase *tcase = tcase_create("contracts optim");
    tcase_add_test(tcase, adamw);
    tcase_add_test(tcase, dplr);
    tcase_add_test(tcase, dplr_collect);
    tcase_add_test(tcase, ivon);
    tcase_add_test(tcase, ivon_merge);
    suite_add_tcase(suite, tcase);
    return cr_run_suite(suite);
}
