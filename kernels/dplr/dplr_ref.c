/* dplr: the definition, element by element. */
#include <string.h>

#include "kernels/common/tiers.h"
#include "kernels/dplr/dplr_element.h"

static void sample(const struct cr_dplr_args *args, size_t begin, size_t end)
{
    for (size_t s = 0; s < args->n_samples; s++) {
        for (size_t e = begin; e < end; e++) {
            args->out[s * args->out_stride + e] = dplr_draw(args, s, e);
        }
    }
}

static void collect(const struct cr_dplr_collect_args *args, size_t begin, size_t end)
{
    struct dplr_weights c = dplr_weights_of(args->n);
    for (size_t e = begin; e < end; e++) {
        dplr_collect(args, c, e);
    }
}

static double square_and_logs(const struct cr_dplr_args *a, size_t begin, size_t end, double *logs)
{
    float chain[DPLR_CHAINS] = {0};
    double mantissa[DPLR_CHAINS];
    int64_t exponents = 0;
    for (size_t i = 0; i < DPLR_CHAINS; i++) {
        mantissa[i] = 1;
    }
    for (size_t e = begin; e < end; e++) {
        float v = dplr_var(a, e), d = a->x[e] - a->mean[e];
        mantissa[e % DPLR_CHAINS] *= dplr_mantissa(v, &exponents);
        chain[dplr_chain(e)] = dplr_fused(d, (1.0f / v) * d, chain[dplr_chain(e)]);
    }
    *logs = dplr_join_logs(mantissa, exponents);
    return dplr_join(chain);
}

static void density(const struct cr_dplr_args *a, size_t begin, size_t end, void *scratch)
{
    (void)scratch;
    for (size_t at = begin; at < end; at += CR_DPLR_CHUNK) {
        size_t stop = end - at < CR_DPLR_CHUNK ? end : at + CR_DPLR_CHUNK;
        double *sums = a->sums + at / CR_DPLR_CHUNK * cr_dplr_n_sums(a->n_rows);
        sums[0] = square_and_logs(a, at, stop, &sums[1]);
        for (size_t k = 0; k < a->n_rows; k++) {
            float chain[DPLR_CHAINS] = {0};
            for (size_t e = at; e < stop; e++) {
                float p = (1.0f / dplr_var(a, e)) * (a->x[e] - a->mean[e]);
                chain[dplr_chain(e)] = dplr_fused(p, dplr_row(a, k, e), chain[dplr_chain(e)]);
            }
            sums[dplr_u(k)] = dplr_join(chain);
            for (size_t j = 0; j <= k; j++) {
                memset(chain, 0, sizeof chain);
                for (size_t e = at; e < stop; e++) {
                    float weighted = (1.0f / dplr_var(a, e)) * dplr_row(a, k, e);
                    chain[dplr_chain(e)] = dplr_fused(weighted, dplr_row(a, j, e), chain[dplr_chain(e)]);
                }
                sums[dplr_g(a->n_rows, k, j)] = dplr_join(chain);
            }
        }
    }
}

static void fill(struct cr_dplr_ops *ops)
{
    static const struct cr_dplr_ops table = {.sample = sample, .density = density, .collect = collect};
    *ops = table;
}

CR_TIER_VARIANT(dplr, ref)
