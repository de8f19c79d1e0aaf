/* rope: the variant of each tier, and the table of angles. */
#include "credence/kernels/rope.h"

#include "credence/kernels/math.h"
#include "kernels/common/tiers.h"

CR_TIER_OPS_INIT(rope)

void cr_rope_table(float *table, size_t max_pos, size_t n_rot, double base, double freq_scale, const float *factors)
{
    size_t n_pairs = n_rot / 2;
    for (size_t j = 0; j < n_pairs; j++) {
        double frequency = freq_scale * cr_pow(base, -2.0 * (double)j / (double)n_rot);
        if (factors != NULL) {
            frequency /= (double)factors[j];
        }
        for (size_t pos = 0; pos < max_pos; pos++) {
            double angle = (double)pos * frequency;
            float *entry = table + (pos * n_pairs + j) * 2;
            entry[0] = (float)cr_cos(angle);
            entry[1] = (float)cr_sin(angle);
        }
    }
}
