/* The definition of qgemm: every product and every sum rounded by itself, k (n) ascending, then the low-rank term. */
#include <assert.h>
#include <string.h>

#include "credence/kernels/dequant.h"
#include "kernels/qgemm/members.h"
#include "kernels/qgemm/plan.h"
#include "kernels/qgemm/variants.h"

/* One output feature of one token block: w is the feature's weights, contiguous. */
static void feature(const struct cr_qgemm_args *a, size_t o, size_t block, const float *w, size_t n_reduce)
{
    const float *x = (const float *)((const char *)a->x + block * a->x_stride);
    float acc[CR_LANES] = {0};
    for (size_t k = 0; k < n_reduce; k++) {
        for (size_t t = 0; t < CR_LANES; t++) {
            acc[t] += w[k] * x[k * CR_LANES + t];
        }
    }
    struct cr_qgemm_member m = cr_qgemm_member_at(a, block);
    for (size_t i = 0; i < m.rank; i++) {
        const float *u = a->u + block * a->u_stride + i * CR_LANES;
        for (size_t t = 0; t < CR_LANES; t++) {
            acc[t] += m.p[o * m.p_os + i * m.p_rs] * u[t];
        }
    }
    float *y = a->y + block * a->y_stride + o * CR_LANES;
    for (size_t t = 0; t < CR_LANES; t++) {
        float sum = a->bias != NULL ? acc[t] + a->bias[o] : acc[t];
        y[t] = a->accumulate ? y[t] + sum : sum;
    }
}

void cr_qgemm_fwd_ref(const struct cr_qgemm_args *a, size_t begin, size_t end, void *scratch)
{
    assert(begin % CR_QGEMM_STEP == 0 && end <= a->w.n_rows && (end % CR_QGEMM_STEP == 0 || end == a->w.n_rows));
    cr_dequant_fn *dequant = cr_dequant_fn_for(a->w.type, CR_TIER_SCALAR);
    float *w = scratch;
    for (size_t o = begin; o < end; o++) {
        dequant((const char *)a->w.data + o * a->w.row_bytes, 0, a->w.n_cols, w);
        for (size_t block = 0; block < a->n_blocks; block++) {
            feature(a, o, block, w, a->w.n_cols);
        }
    }
}

void cr_qgemm_dx_ref(const struct cr_qgemm_args *a, size_t begin, size_t end, void *scratch)
{
    assert(begin % CR_QGEMM_STEP == 0 && end <= a->w.n_cols && end % CR_QGEMM_STEP == 0 && a->bias == NULL);
    cr_dequant_fn *dequant = cr_dequant_fn_for(a->w.type, CR_TIER_SCALAR);
    float *w = scratch; /* [32 columns][N] */
    size_t n_rows = a->w.n_rows;
    for (size_t o = begin; o < end; o += CR_QGEMM_STEP) {
        for (size_t n = 0; n < n_rows; n++) {
            float row[CR_QGEMM_STEP];
            dequant((const char *)a->w.data + n * a->w.row_bytes, o, CR_QGEMM_STEP, row);
            for (size_t c = 0; c < CR_QGEMM_STEP; c++) {
                w[c * n_rows + n] = row[c];
            }
        }
        for (size_t block = 0; block < a->n_blocks; block++) {
            for (size_t c = 0; c < CR_QGEMM_STEP; c++) {
                feature(a, o + c, block, w + c * n_rows, n_rows);
            }
        }
    }
}
