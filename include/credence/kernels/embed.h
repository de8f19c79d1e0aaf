/* embed: rows of a quantised embedding table into lanes.
 *
 *   x[k][t] = v(table row ids[t], k)      x TL16 f32 with table.n_cols features, ids [n_blocks * 16] all < n_rows
 * Range: token blocks. Exact. scratch: n_cols floats, 64-byte aligned. No aliasing between x, table, ids and scratch.
 * There is no backward pass: the table is part of the frozen base.
 */
#ifndef CREDENCE_KERNELS_EMBED_H
#define CREDENCE_KERNELS_EMBED_H

#include "credence/kernels/qgemm.h"

#ifdef __cplusplus
extern "C" {
#endif

struct cr_embed_args {
    struct cr_qmat table;
    const int32_t *ids;
    float *x;
    size_t x_stride; /* floats between token blocks */
};

typedef void cr_embed_fn(const struct cr_embed_args *args, size_t begin, size_t end, void *scratch);

struct cr_embed_ops {
    cr_embed_fn *rows;
};

CR_API cr_status cr_embed_ops_init(struct cr_embed_ops *ops, enum cr_tier tier);

/* Checked entries: the call when the arguments are sound, else CR_E_USAGE, a message and nothing touched. The ids are
 * read and checked too. */
CR_API cr_status cr_embed_rows_checked(const struct cr_embed_ops *ops, const struct cr_embed_args *args, size_t begin,
                                       size_t end, void *scratch, size_t scratch_bytes, struct cr_error *err);

#ifdef __cplusplus
}
#endif
#endif
