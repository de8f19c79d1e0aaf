#include "kernels/common/contract.h"

#include "credence/kernels/dequant.h"

enum { LINE_BYTES = 64 };

static void append(struct cr_error *err, size_t *used, const char *text)
{
    while (*text != '\0' && *used + 1 < sizeof err->message) {
        err->message[(*used)++] = *text++;
    }
    err->message[*used] = '\0';
}

static void append_size(struct cr_error *err, size_t *used, size_t value)
{
    char digits[24];
    size_t at = sizeof digits;
    digits[--at] = '\0';
    do {
        digits[--at] = (char)('0' + value % 10);
        value /= 10;
    } while (value > 0);
    append(err, used, digits + at);
}

/* "entry: argument" into an error that the caller goes on writing; NULL when nobody asked for a message. */
static struct cr_error *fail(struct cr_contract *c, const char *argument, size_t *used)
{
    c->status = CR_E_USAGE;
    *used = 0;
    if (c->err != NULL) {
        c->err->status = CR_E_USAGE;
        append(c->err, used, c->entry);
        append(c->err, used, ": ");
        append(c->err, used, argument);
    }
    return c->err;
}

static void fail_text(struct cr_contract *c, const char *argument, const char *text)
{
    size_t used;
    struct cr_error *err = fail(c, argument, &used);
    if (err != NULL) {
        append(err, &used, " ");
        append(err, &used, text);
    }
}

static void fail_size(struct cr_contract *c, const char *argument, size_t found, const char *relation, size_t expected)
{
    size_t used;
    struct cr_error *err = fail(c, argument, &used);
    if (err != NULL) {
        append(err, &used, " is ");
        append_size(err, &used, found);
        append(err, &used, ", expected ");
        append(err, &used, relation);
        append_size(err, &used, expected);
    }
}

struct cr_contract cr_contract_open(const char *entry, const void *ops, const void *args, size_t begin, size_t end,
                                    struct cr_error *err)
{
    struct cr_contract c = {entry, err, CR_OK};
    cr_contract_pointer(&c, ops, "ops");
    cr_contract_pointer(&c, args, "args");
    cr_contract_at_most(&c, begin, end, "begin");
    return c;
}

void cr_contract_that(struct cr_contract *c, bool holds, const char *argument, const char *text)
{
    if (c->status == CR_OK && !holds) {
        fail_text(c, argument, text);
    }
}

void cr_contract_at_least(struct cr_contract *c, size_t found, size_t least, const char *argument)
{
    if (c->status == CR_OK && found < least) {
        fail_size(c, argument, found, "at least ", least);
    }
}

void cr_contract_at_most(struct cr_contract *c, size_t found, size_t most, const char *argument)
{
    if (c->status == CR_OK && found > most) {
        fail_size(c, argument, found, "at most ", most);
    }
}

void cr_contract_pointer(struct cr_contract *c, const void *pointer, const char *argument)
{
    cr_contract_that(c, pointer != NULL, argument, "is NULL");
}

void cr_contract_dimension(struct cr_contract *c, size_t value, const char *argument)
{
    cr_contract_at_least(c, value, 1, argument);
    cr_contract_at_most(c, value, CR_DIMENSION_MAX, argument);
}

void cr_contract_range(struct cr_contract *c, size_t begin, size_t end, size_t step, size_t limit)
{
    cr_contract_at_most(c, end, limit, "end");
    if (c->status == CR_OK && begin % step != 0) {
        fail_size(c, "begin", begin, "a multiple of ", step);
    }
    if (c->status == CR_OK && end % step != 0 && end != limit) {
        fail_size(c, "end", end, "the last item or a multiple of ", step);
    }
}

_Static_assert(sizeof(size_t) == 8, "sizes of the contracts are counted in 64 bits");

void cr_contract_elements(struct cr_contract *c, size_t begin, size_t end, size_t chunk)
{
    cr_contract_at_most(c, end, (size_t)1 << 34, "end");
    cr_contract_range(c, begin, end, chunk, end);
}

void cr_contract_operand_type(struct cr_contract *c, enum cr_xtype type, size_t n_features, const char *argument)
{
    cr_contract_that(c, type == CR_X_F32 || type == CR_X_BF16, argument, "is no operand type");
    cr_contract_that(c, type != CR_X_BF16 || n_features % 2 == 0, argument, "bf16 holds even numbers of features only");
}

static bool aligned(const void *pointer)
{
    return (uintptr_t)pointer % LINE_BYTES == 0;
}

void cr_contract_blocks(struct cr_contract *c, const void *base, size_t stride_bytes, size_t block_bytes,
                        size_t n_blocks, const char *argument)
{
    if (c->status != CR_OK || n_blocks == 0) {
        return;
    }
    cr_contract_pointer(c, base, argument);
    cr_contract_that(c, aligned(base), argument, "is not aligned to 64 bytes");
    if (n_blocks == 1) {
        return;
    }
    cr_contract_that(c, stride_bytes % LINE_BYTES == 0, argument, "has a stride that is no multiple of 64 bytes");
    cr_contract_that(c, stride_bytes >= block_bytes, argument, "has a stride smaller than a token block");
    size_t total;
    cr_contract_that(c,
                     !__builtin_mul_overflow(n_blocks - 1, stride_bytes, &total) &&
                         !__builtin_add_overflow(total, block_bytes, &total) && total <= PTRDIFF_MAX,
                     argument, "has token blocks beyond the address space");
}

void cr_contract_f32_blocks(struct cr_contract *c, const void *base, size_t stride_floats, size_t n_features,
                            size_t n_blocks, const char *argument)
{
    if (n_blocks > 1) {
        cr_contract_that(c, stride_floats <= SIZE_MAX / sizeof(float), argument, "has a stride that overflows");
    }
    cr_contract_blocks(c, base, stride_floats * sizeof(float), cr_tl16_bytes(CR_X_F32, n_features), n_blocks, argument);
}

void cr_contract_matrix(struct cr_contract *c, const struct cr_qmat *w)
{
    const struct cr_qtype_info *info = cr_qtype_info(w->type);
    cr_contract_that(c, info != NULL, "w.type", "is no tensor type");
    cr_contract_that(c, info != NULL && info->computes, "w.type", "is a tensor type that has no products here");
    cr_contract_pointer(c, w->data, "w.data");
    cr_contract_dimension(c, w->n_rows, "w.n_rows");
    cr_contract_dimension(c, w->n_cols, "w.n_cols");
    if (c->status != CR_OK) {
        return;
    }
    size_t whole = info->block_values > 32 ? info->block_values : 32;
    if (w->n_cols % whole != 0) {
        fail_size(c, "w.n_cols", w->n_cols, "a multiple of ", whole);
    }
    cr_contract_at_least(c, w->row_bytes, w->n_cols / info->block_values * info->block_bytes, "w.row_bytes");
    size_t total;
    cr_contract_that(c, !__builtin_mul_overflow(w->n_rows, w->row_bytes, &total) && total <= PTRDIFF_MAX, "w.row_bytes",
                     "times w.n_rows is beyond the address space");
}

void cr_contract_scratch(struct cr_contract *c, const void *scratch, size_t found_bytes, size_t needed_bytes)
{
    if (needed_bytes == 0) {
        return;
    }
    cr_contract_pointer(c, scratch, "scratch");
    cr_contract_that(c, aligned(scratch), "scratch", "is not aligned to 64 bytes");
    cr_contract_that(c, needed_bytes != SIZE_MAX, "scratch_bytes", "cannot be had for these sizes");
    cr_contract_at_least(c, found_bytes, needed_bytes, "scratch_bytes");
}
