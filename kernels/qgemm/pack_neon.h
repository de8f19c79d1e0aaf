/* pack_neon: panels by way of the dequantiser. Included by the neon tiers, which define
 *
 *   PACK_STEP                      weights of an output in a step: 1 (f32) or 2 (bf16)
 *   PACK_MULTIPLE                  steps that the micro-tile takes at once: as many are filled up with zeros
 *   pack_steps(rows, to)           four steps of the eight outputs whose weights lie PACK_COLUMNS apart (forward)
 *   pack_step(rows, strip, step)   one step of eight outputs side by side: PACK_STEP rows, CR_QGEMM_ROWS apart (dX);
 *                                  called in the order of steps
 */
#ifndef CR_QGEMM_PACK_NEON_H
#define CR_QGEMM_PACK_NEON_H

#include <string.h>

#include "credence/kernels/qgemm.h"
#include "kernels/qgemm/columns.h"
#include "kernels/qgemm/plan.h"

/* Columns of eight rows that `rows` holds. */
enum { PACK_COLUMNS = 2 * CR_QGEMM_ROWS / CR_QGEMM_STRIP, PACK_STEP_BYTES = 4 * CR_QGEMM_STRIP };

static void pack_steps(const float *rows, char *to);
static void pack_step(const float *rows, char *strip, size_t step);

static inline float *words(char *p)
{
    return (float *)(void *)p;
}

static void pack_fwd(const struct cr_qmat *w, size_t out, size_t n_out, char *panel, size_t strip_bytes, float *rows)
{
    cr_dequant_fn *dequant = cr_dequant_fn_for(w->type, CR_TIER_NEON);
    for (size_t first = 0; first < n_out; first += CR_QGEMM_STRIP) {
        char *to = panel + first / CR_QGEMM_STRIP * strip_bytes;
        for (size_t k = 0; k < w->n_cols; k += PACK_COLUMNS) {
            size_t n = w->n_cols - k < PACK_COLUMNS ? w->n_cols - k : PACK_COLUMNS;
            for (size_t r = 0; r < CR_QGEMM_STRIP; r++) {
                size_t o = first + r;
                if (o < n_out) {
                    dequant((const char *)w->data + (out + o) * w->row_bytes, k, n, rows + r * PACK_COLUMNS);
                } else {
                    memset(rows + r * PACK_COLUMNS, 0, n * sizeof *rows);
                }
            }
            for (size_t i = 0; i < n; i += 4 * PACK_STEP) {
                pack_steps(rows + i, to);
                to += 4 * PACK_STEP_BYTES;
            }
        }
    }
}

static void pack_dx(const struct cr_qmat *w, size_t out, size_t n_out, char *panel, size_t strip_bytes, float *rows)
{
    cr_dequant_fn *dequant = cr_dequant_fn_for(w->type, CR_TIER_NEON);
    const struct cr_qgemm_columns columns = cr_qgemm_columns(w, out, out + n_out);
    size_t each = (size_t)PACK_STEP * PACK_MULTIPLE, n_rows = (w->n_rows + each - 1) / each * each;
    for (size_t n = 0; n < n_rows; n += PACK_STEP) {
        for (size_t r = 0; r < PACK_STEP; r++) { /* n_out <= CR_QGEMM_BLOCK_MAX = CR_QGEMM_ROWS */
            if (n + r < w->n_rows) {
                cr_qgemm_fetch_row(w, n + r, &columns);
                dequant((const char *)w->data + (n + r) * w->row_bytes, out, n_out, rows + r * CR_QGEMM_ROWS);
            } else {
                memset(rows + r * CR_QGEMM_ROWS, 0, n_out * sizeof *rows);
            }
        }
        for (size_t c = 0; c < n_out; c += CR_QGEMM_STRIP) {
            pack_step(rows + c, panel + c / CR_QGEMM_STRIP * strip_bytes, n / PACK_STEP);
        }
    }
}

#endif
