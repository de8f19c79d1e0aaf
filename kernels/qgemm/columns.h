/* columns: where the weights of a panel of columns lie. A row is often a page away from the next: no hardware
 * prefetcher follows, so each row asks for one further on.
 *
 * Zen 4, 2026-11-22, Q4_1, dX at 2048 x 2048: M 128 from .79 to .87 of the bf16 peak, M 1024 from .91 to .94.
 */
#ifndef CR_QGEMM_COLUMNS_H
#define CR_QGEMM_COLUMNS_H

#include "credence/kernels/dequant.h"
#include "credence/kernels/qgemm.h"
#include "kernels/common/lanes.h"

enum { CR_QGEMM_AHEAD = 32 }; /* rows */

/* Bytes [first, last] of every row: the blocks that hold columns [begin, end). */
struct cr_qgemm_columns {
    size_t first, last;
};

CR_INLINE struct cr_qgemm_columns cr_qgemm_columns(const struct cr_qmat *w, size_t begin, size_t end)
{
    const struct cr_qtype_info *info = cr_qtype_info(w->type);
    size_t n_blocks = (end + info->block_values - 1) / info->block_values;
    return (struct cr_qgemm_columns){begin / info->block_values * info->block_bytes, n_blocks * info->block_bytes - 1};
}

/* Both ends of what row n + CR_QGEMM_AHEAD holds: up to two lines, which is all of a panel's share of most types. */
CR_INLINE void cr_qgemm_fetch_row(const struct cr_qmat *w, size_t n, const struct cr_qgemm_columns *columns)
{
    if (n + CR_QGEMM_AHEAD < w->n_rows) {
        const char *row = (const char *)w->data + (n + CR_QGEMM_AHEAD) * w->row_bytes;
        __builtin_prefetch(row + columns->first, 0, 2);
        __builtin_prefetch(row + columns->last, 0, 2);
    }
}

#endif
