/* dplr: Gaussians with a diagonal plus low-rank covariance, N(mean, a diag(v) + b D^T D): draws, log-density, and the
 * running moments that SWAG makes them of (Maddox et al. 2019, section 3 and algorithm 1). v = max(var, var_floor); D
 * is K rows of bf16.
 *
 * sample, for s = 0 ... S-1, elements e:
 *     out[s][e] = mean[e] + (sqrt(a v[e]) eps_s[e] + sum_k coef[k][s] D[k][e])
 *   mean, var and D are read once for all samples. coef [K][S] f32 is sqrt(b) times the K normals of each sample; eps
 *   [S][D] is given, or drawn from `noise` with sample + s (credence/kernels/rng.h). The sum is a chain of fused
 *   multiply-adds in order of k, then one more with eps: same bits for every split, tier and number of samples.
 *   SWAG: var = m2, a = scale / n, var_floor = clamp n, b = scale / (K - 1).
 *   Tolerance, u = 2^-24: (K + 4) u sum_k |coef D| + 5 u |noise| + 2 u |out|.
 * density, for chunk c of CR_DPLR_CHUNK elements and one point x: sums[c][...] in the order
 *     q = sum d^2 / v,  l = sum ln v,  u[k] = sum D[k] d / v,  g[k][j <= k] = sum D[k] D[j] / v,   d = x - mean
 *   cr_dplr_n_sums(K) doubles a chunk; the caller adds the chunks in order and hands the totals to cr_dplr_log_density.
 *   f32 in 16 chains a chunk, joined in double: within (256 + 20) 2^-24 of sum |terms|; l in double. var > 0 normal.
 *   Same bits on every tier.
 * collect, one more snapshot w after n (Welford):
 *     delta = w - mean;  mean += delta / (n + 1);  dev = delta n / (n + 1);  m2 += delta dev;  row = bf16(dev)
 *   The mean is a pair of f32, mean + mean_low; dev is w less the new mean, zero for the first. m2 / n is the variance,
 *   m2 / n + mean^2 the second moment. All start from zeros.
 *
 * Arrays [D] f32 or bf16 bits, any alignment, no aliasing; row k of D at rows + k row_stride. Requires a >= 0, b >= 0,
 * S >= 1, a and var_floor finite in f32; K 0 needs no rows. scratch: 64-byte aligned, CR_DPLR_SCRATCH_BYTES, density
 * only.
 * Range: elements; begin and end multiples of CR_DPLR_CHUNK or end == D; D <= 2^34.
 */
#ifndef CREDENCE_KERNELS_DPLR_H
#define CREDENCE_KERNELS_DPLR_H

#include "credence/kernels/rng.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { CR_DPLR_CHUNK = 4096, CR_DPLR_SCRATCH_BYTES = 2 * 4 * CR_DPLR_CHUNK };

struct cr_dplr_args {
    const float *mean, *var;
    const uint16_t *rows;
    size_t row_stride, n_rows;   /* elements; K */
    double var_scale, var_floor; /* a */
    const float *coef;           /* sample */
    const float *eps;            /* sample; NULL: drawn */
    size_t eps_stride;
    struct cr_noise noise;
    float *out;
    size_t out_stride, n_samples; /* S */
    const float *x;               /* density */
    double *sums;
};

struct cr_dplr_collect_args {
    const float *w;
    float *mean, *mean_low, *m2;
    uint16_t *row;
    uint64_t n; /* snapshots before this one */
};

typedef void cr_dplr_fn(const struct cr_dplr_args *args, size_t begin, size_t end);
typedef void cr_dplr_density_fn(const struct cr_dplr_args *args, size_t begin, size_t end, void *scratch);
typedef void cr_dplr_collect_fn(const struct cr_dplr_collect_args *args, size_t begin, size_t end);

struct cr_dplr_ops {
    cr_dplr_fn *sample;
    cr_dplr_density_fn *density;
    cr_dplr_collect_fn *collect;
};

CR_API cr_status cr_dplr_ops_init(struct cr_dplr_ops *ops, enum cr_tier tier);

/* 2 + K + K (K + 1) / 2; SIZE_MAX for K above 2^16, which the checked entries refuse. */
CR_API size_t cr_dplr_n_sums(size_t n_rows);

/* Log-density of x under N(mean, a diag(v) + b D^T D) from the totals of density over n_params elements, by the matrix
 * determinant lemma and Woodbury's identity on the K x K matrix I + b/a G (Cholesky, in double). scratch [K (K + 1)].
 * NaN when a total is not finite. */
CR_API double cr_dplr_log_density(const double *totals, size_t n_params, size_t n_rows, double a, double b,
                                  double *scratch);

/* Checked entries: the call when the arguments are sound, else CR_E_USAGE, a message and nothing touched. `end` is not
 * checked against D. */
CR_API cr_status cr_dplr_sample_checked(const struct cr_dplr_ops *ops, const struct cr_dplr_args *args, size_t begin,
                                        size_t end, struct cr_error *err);
CR_API cr_status cr_dplr_density_checked(const struct cr_dplr_ops *ops, const struct cr_dplr_args *args, size_t begin,
                                         size_t end, void *scratch, size_t scratch_bytes, struct cr_error *err);
CR_API cr_status cr_dplr_collect_checked(const struct cr_dplr_ops *ops, const struct cr_dplr_collect_args *args,
                                         size_t begin, size_t end, struct cr_error *err);

#ifdef __cplusplus
}
#endif
#endif
