/* A host draws parameters of its own from N(mean, A diag(v) + B D^T D), many samples in one pass, and asks for the
 * log-density of one of them. Draws are checked one by one against plain C in double, then by their covariance: two
 * elements that share no diagonal noise vary together as the rows of D say. Written in the common part of C11 and
 * C++17. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <credence/kernels.h>

enum { D = CR_DPLR_CHUNK + 77, K = 3, S = 64, N_PASSES = 64 };

static const double A = 0.5, B = 0.25;

static float mean[D], var[D], out[S * D], coef[K * S];
static uint16_t rows[K * D]; /* bf16 */

static double row_at(size_t k, size_t e)
{
    uint32_t bits = (uint32_t)rows[k * D + e] << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return (double)value;
}

static void make_posterior(void)
{
    for (size_t e = 0; e < D; e++) {
        mean[e] = (float)(e % 13) / 8.0f - 0.75f;
        var[e] = 0.25f + (float)(e % 7) / 16.0f;
        for (size_t k = 0; k < K; k++) {
            /* 1, 1.5, -1, -1.5: the bits of sign and first place of a bf16 */
            rows[k * D + e] = (uint16_t)(0x3f80u | (e >> k & 1u) << 15 | (e >> (k + 3) & 1u) << 6);
        }
    }
}

static struct cr_noise noise_of(uint32_t pass, uint32_t sample, uint32_t tensor)
{
    struct cr_noise noise = {{11, 5}, pass, sample, tensor};
    return noise;
}

/* One number a row and sample, times the square root of B: what couples the elements. */
static void draw_coefficients(uint32_t pass)
{
    for (uint32_t s = 0; s < S; s++) {
        struct cr_noise noise = noise_of(pass, s, 1);
        for (size_t k = 0; k < K; k++) {
            coef[k * S + s] = (float)sqrt(B) * cr_normal_at(&noise, k);
        }
    }
}

static double worst_draw(uint32_t pass)
{
    double worst = 0;
    for (uint32_t s = 0; s < S; s++) {
        struct cr_noise noise = noise_of(pass, s, 0);
        for (size_t e = 0; e < D; e += 97) {
            double x = (double)mean[e] + sqrt(A * (double)var[e]) * (double)cr_normal_at(&noise, e);
            for (size_t k = 0; k < K; k++) {
                x += (double)coef[k * S + s] * row_at(k, e);
            }
            double difference = fabs((double)out[s * D + e] - x);
            if (!(difference <= worst)) {
                worst = difference;
            }
        }
    }
    return worst;
}

/* The log-density of the last sample, from the totals of the chunks. It must be near minus the distribution's entropy,
 * within six of its standard deviations, sqrt(D / 2) each. */
static int density_is_near(const struct cr_dplr_ops *ops, struct cr_dplr_args *args)
{
    enum { N_CHUNKS = (D + CR_DPLR_CHUNK - 1) / CR_DPLR_CHUNK, N_SUMS = 2 + K + K * (K + 1) / 2 };
    static double sums[N_CHUNKS * N_SUMS], totals[N_SUMS], work[K * (K + 1)];
    void *scratch = aligned_alloc(64, CR_DPLR_SCRATCH_BYTES);
    double entropy = 0.5 * D * (log(2 * acos(-1.0)) + 1);
    if (scratch == NULL || cr_dplr_n_sums(K) != N_SUMS) {
        free(scratch);
        return 0;
    }
    args->x = out + (S - 1) * (size_t)D;
    args->sums = sums;
    memset(totals, 0, sizeof totals);
    ops->density(args, 0, D, scratch);
    free(scratch);
    for (size_t i = 0; i < (size_t)N_CHUNKS * N_SUMS; i++) {
        totals[i % N_SUMS] += sums[i];
    }
    for (size_t e = 0; e < D; e++) {
        entropy += 0.5 * log(A * (double)var[e]);
    }
    double found = cr_dplr_log_density(totals, D, K, A, B, work);
    /* K rows add K/2 ln(1 + B/A |row|^2 / v) to the entropy: at most 3/2 ln(1 + 2.25 D B / (A 0.25)) = 15. */
    printf("  log-density %.1f, minus entropy %.1f\n", found, -entropy);
    return fabs(found + entropy) < 6 * sqrt(D / 2.0) + 15;
}

static int run(enum cr_tier tier)
{
    struct cr_dplr_ops ops;
    struct cr_dplr_args args;
    const size_t e1 = 5, e2 = D - 3;
    double product = 0, expected = 0, spread = 0;
    int good = cr_dplr_ops_init(&ops, tier) == CR_OK;
    memset(&args, 0, sizeof args);
    args.mean = mean;
    args.var = var;
    args.rows = rows;
    args.row_stride = D;
    args.n_rows = K;
    args.var_scale = A;
    args.coef = coef;
    args.out = out;
    args.out_stride = D;
    args.n_samples = S;
    for (uint32_t pass = 0; good && pass < N_PASSES; pass++) {
        draw_coefficients(pass);
        args.noise = noise_of(pass, 0, 0);
        /* Any threads might take these ranges, in any order. */
        for (size_t begin = 0; begin < D; begin += CR_DPLR_CHUNK) {
            ops.sample(&args, begin, begin + CR_DPLR_CHUNK < D ? begin + CR_DPLR_CHUNK : (size_t)D);
        }
        for (size_t s = 0; s < S; s++) {
            product += ((double)out[s * D + e1] - (double)mean[e1]) * ((double)out[s * D + e2] - (double)mean[e2]);
        }
        /* Some twenty roundings of numbers below 16. */
        good = pass > 0 || worst_draw(pass) <= 20 * 16 * ldexp(1, -24);
    }
    double v1 = A * (double)var[e1], v2 = A * (double)var[e2];
    for (size_t k = 0; k < K; k++) {
        expected += B * row_at(k, e1) * row_at(k, e2);
        v1 += B * row_at(k, e1) * row_at(k, e1);
        v2 += B * row_at(k, e2) * row_at(k, e2);
    }
    product /= (double)S * N_PASSES;
    spread = sqrt((v1 * v2 + expected * expected) / ((double)S * N_PASSES));
    printf("  covariance of two elements %.4f, expected %.4f, standard error %.4f\n", product, expected, spread);
    return good && fabs(product - expected) < 5 * spread && density_is_near(&ops, &args);
}

int main(void)
{
    struct cr_cpu cpu;
    int good = 1;
    cr_cpu_detect(&cpu);
    make_posterior();
    printf("%s\n", cr_tier_name(CR_TIER_SCALAR));
    good = run(CR_TIER_SCALAR) && good;
    printf("%s\n", cr_tier_name(cpu.tier));
    good = run(cpu.tier) && good;
    return good ? 0 : 1;
}
