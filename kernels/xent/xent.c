/* xent: the variant of each tier, and the merge of two partial statistics. */
#include "credence/kernels/xent.h"

#include "credence/kernels/math.h"
#include "kernels/common/tiers.h"

CR_TIER_OPS_INIT(xent)

void cr_xent_merge(float *m, float *s, float *label, const float *m2, const float *s2, const float *label2, size_t n)
{
    for (size_t t = 0; t < n; t++) {
        float top = m[t] > m2[t] ? m[t] : m2[t];
        float from = top == -__builtin_inff() ? 0.0f : top; /* both empty: measure from 0 */
        s[t] = s[t] * cr_expf(m[t] - from) + s2[t] * cr_expf(m2[t] - from);
        m[t] = top;
        label[t] += label2[t];
    }
}
