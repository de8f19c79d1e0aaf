/* pack_f32: panels of f32 weights for the f32 tiers, by way of the dequantiser of DEQUANT_TIER. */
#ifndef CR_QGEMM_PACK_F32_H
#define CR_QGEMM_PACK_F32_H

#include <string.h>

#include "credence/kernels/qgemm.h"
#include "kernels/qgemm/columns.h"
#include "kernels/qgemm/plan.h"

/* Row r of a strip is 64 bytes in every 512: 16 weights as they come. */
static void pack_fwd(const struct cr_qmat *w, size_t out, size_t n_out, char *panel, size_t strip_bytes, float *rows)
{
    cr_dequant_fn *dequant = cr_dequant_fn_for(w->type, DEQUANT_TIER);
    for (size_t o = 0; o < (n_out + 7) / 8 * 8; o++) {
        char *to = panel + o / 8 * strip_bytes + o % 8 * 64;
        for (size_t k = 0; k < w->n_cols; k += CR_QGEMM_ROWS) {
            size_t n = w->n_cols - k < CR_QGEMM_ROWS ? w->n_cols - k : CR_QGEMM_ROWS;
            if (o < n_out) {
                dequant((const char *)w->data + (out + o) * w->row_bytes, k, n, rows);
            } else {
                memset(rows, 0, n * sizeof *rows);
            }
            for (size_t i = 0; i < n; i += 16) {
                memcpy(to + (k + i) * 32, rows + i, 64);
            }
        }
    }
}

/* One row of the matrix is one step: 32 bytes for every strip of 8 columns. */
static void pack_dx(const struct cr_qmat *w, size_t out, size_t n_out, char *panel, size_t strip_bytes, float *rows)
{
    cr_dequant_fn *dequant = cr_dequant_fn_for(w->type, DEQUANT_TIER);
    const struct cr_qgemm_columns columns = cr_qgemm_columns(w, out, out + n_out);
    for (size_t n = 0; n < w->n_rows; n++) {
        cr_qgemm_fetch_row(w, n, &columns);
        dequant((const char *)w->data + n * w->row_bytes, out, n_out, rows); /* n_out <= CR_QGEMM_BLOCK_MAX */
        char *to = panel + n * 32;
        for (size_t c = 0; c < n_out; c += 8) {
            memcpy(to + c / 8 * strip_bytes, rows + c, 32);
        }
    }
}

#endif
