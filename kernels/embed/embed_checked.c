#include "credence/kernels/embed.h"

#include "kernels/common/contract.h"

/* Ids choose where to read, so they are read too: sixteen a block, beside the rows that the call is about to read. */
static void known_ids(struct cr_contract *c, const struct cr_embed_args *a, size_t begin, size_t end)
{
    cr_contract_at_most(c, end, PTRDIFF_MAX / sizeof *a->ids / CR_LANES, "end");
    for (size_t i = begin * CR_LANES; c->status == CR_OK && i < end * CR_LANES; i++) {
        cr_contract_that(c, a->ids[i] >= 0 && (size_t)a->ids[i] < a->table.n_rows, "ids",
                         "holds a row that the table lacks");
    }
}

cr_status cr_embed_rows_checked(const struct cr_embed_ops *ops, const struct cr_embed_args *args, size_t begin,
                                size_t end, void *scratch, size_t scratch_bytes, struct cr_error *err)
{
    struct cr_contract c = cr_contract_open("embed rows", ops, args, begin, end, err);
    if (c.status != CR_OK) {
        return c.status;
    }
    cr_contract_that(&c, ops->rows != NULL, "ops.rows", "is NULL");
    cr_contract_matrix(&c, &args->table);
    cr_contract_pointer(&c, args->ids, "ids");
    cr_contract_f32_blocks(&c, args->x, args->x_stride, args->table.n_cols, end, "x");
    cr_contract_scratch(&c, scratch, scratch_bytes, args->table.n_cols * sizeof(float));
    known_ids(&c, args, begin, end);
    if (c.status == CR_OK && begin < end) {
        ops->rows(args, begin, end, scratch);
    }
    return c.status;
}
