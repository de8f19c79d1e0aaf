/* ivon: the variant of each tier, and the average over workers. */
#include "credence/kernels/ivon.h"

#include "kernels/common/tiers.h"

CR_TIER_OPS_INIT(ivon)

static void average(float *const *workers, size_t n_workers, size_t begin, size_t end)
{
    for (size_t e = begin; e < end; e++) {
        double sum = 0;
        for (size_t w = 0; w < n_workers; w++) {
            sum += (double)workers[w][e];
        }
        float share = (float)(sum / (double)n_workers);
        for (size_t w = 0; w < n_workers; w++) {
            workers[w][e] = share;
        }
    }
}

void cr_ivon_merge(float *const *avg_grad, float *const *avg_curv, size_t n_workers, size_t begin, size_t end)
{
    average(avg_grad, n_workers, begin, end);
    average(avg_curv, n_workers, begin, end);
}
