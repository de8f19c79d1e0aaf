/* qgemm, words: the bf16 value of a weight for every scale and every code, forward and transposed, on every table that
 * multiplies bf16. It is the value of kernels/dequant (whose own bits are those of test_dequant and test_bits) rounded
 * once more. Unit tokens read weights back one by one, so the whole way from block to product is looked at.
 *
 * Types of one scale: all finite halves with all codes; each with minima of all sizes where there are minima. Types of
 * 256 values: every sub-scale at every place of the block with every code, under super-scales (and minima) of all
 * sizes. The amx tier on its models walks every scale and sub-scale too, but meets each with one of the minima,
 * super-scales or (Q8_0) eighths of the codes: which one rotates from block to block.
 */
#include <math.h>
#include <stdalign.h>
#include <stdlib.h>
#include <string.h>

#include "credence/kernels/dequant.h"
#include "kernels/common/half.h"
#include "tests/kernels/qgemm_words_case.h"
#include "tests/support/kernel_test.h"
#include "tests/support/qgemm_tables.h"

/* ---- weights read back ---- */

/* Blocks as a matrix and what to expect of it; one row a block forward, 32 rows transposed. */
struct read {
    struct cr_qgemm_ops ops;
    const char *table;
    struct cr_qmat w;
    bool dx;
    const float *values; /* [n_rows][n_cols], bf16 */
};

enum { REDUCE_MAX = 256, BLOCKS_MAX = N_FINITE_HALVES };

/* Memory of all products, made once: bounds are the business of test_qgemm. */
static alignas(64) uint16_t tokens[REDUCE_MAX * REDUCE_MAX];
static alignas(64) float sums[32 * 32 * BLOCKS_MAX];
static alignas(64) char room[4 << 20];

/* Token t is 1 in feature t and 0 elsewhere. */
static void fill_tokens(size_t n)
{
    memset(tokens, 0, sizeof tokens);
    for (size_t t = 0; t < n; t++) {
        tokens[t / CR_LANES * n * CR_LANES + cr_tl16_bf16(t, t % CR_LANES)] = 0x3f80;
    }
}

/* y [features][token] of the product with unit tokens. */
static const float *product(const struct read *r, size_t n_out, size_t n_reduce)
{
    struct cr_qgemm_args args = {.w = r->w,
                                 .x = tokens,
                                 .x_stride = cr_tl16_bytes(CR_X_BF16, n_reduce),
                                 .y = sums,
                                 .y_stride = n_out * CR_LANES,
                                 .n_blocks = n_reduce / CR_LANES};
    ck_assert_uint_le(n_reduce, REDUCE_MAX);
    ck_assert_uint_le(n_out * n_reduce * sizeof *sums, sizeof sums);
    ck_assert_uint_le(cr_qgemm_scratch_bytes(&r->ops, n_reduce, 0), sizeof room);
    fill_tokens(n_reduce);
    cr_poison(sums, n_out * n_reduce * sizeof *sums);
    (r->dx ? r->ops.dx : r->ops.fwd)(&args, 0, n_out, room);
    return sums;
}

static size_t check(const struct read *r)
{
    size_t n_rows = r->w.n_rows, n_cols = r->w.n_cols, n_out = r->dx ? n_cols : n_rows;
    const float *y = product(r, n_out, r->dx ? n_rows : n_cols);
    for (size_t row = 0; row < n_rows; row++) {
        for (size_t col = 0; col < n_cols; col++) {
            size_t o = r->dx ? col : row, t = r->dx ? row : col;
            float got = y[(t / CR_LANES * n_out + o) * CR_LANES + t % CR_LANES], want = r->values[row * n_cols + col];
            if (got != want) { /* a check that holds costs a system call */
                ck_abort_msg("%s %s %s: weight (%zu,%zu) is %a, expected %a", r->table, r->dx ? "dx" : "fwd",
                             cr_qtype_info(r->w.type)->name, row, col, (double)got, (double)want);
            }
        }
    }
    return n_rows * n_cols;
}

/* n blocks both ways. */
static size_t check_blocks(unsigned table, int type, const unsigned char *blocks, size_t n)
{
    const struct cr_qtype_info *info = cr_qtype_info(type);
    size_t n_values = n * info->block_values, n_seen = 0;
    static float values[32 * BLOCKS_MAX];
    struct read r = {.table = cr_qgemm_table_name(table), .values = values};
    ck_assert_uint_le(n_values * sizeof *values, sizeof values);
    cr_qgemm_table(&r.ops, table);
    cr_dequant_fn_for(type, CR_TIER_SCALAR)(blocks, 0, n_values, values);
    for (size_t i = 0; i < n_values; i++) {
        values[i] = cr_bf16_to_f32(cr_f32_to_bf16(values[i]));
    }
    for (int dx = 0; dx < 2; dx++) {
        size_t n_rows = dx ? 32 : n;
        r.dx = dx;
        r.w = (struct cr_qmat){blocks, n / n_rows * info->block_bytes, n_rows, n_values / n_rows, type};
        n_seen += check(&r);
    }
    return n_seen;
}

START_TEST(every_scale_and_code)
{
    const struct words_kind *kind = &words_kinds[_i];
    size_t block_bytes = cr_qtype_info(kind->type)->block_bytes, n = kind->per_round;
    unsigned tables[CR_QGEMM_TABLES];
    size_t n_tables = cr_qgemm_tables(tables);
    size_t least = (n < 1024 ? 1024 : n) / cr_test_every(8), stride = cr_test_every(7); /* no common factor */
    unsigned char *blocks = malloc(least * block_bytes);
    ck_assert_ptr_nonnull(blocks);
    for (size_t t = 0; t < n_tables; t++) {
        struct cr_qgemm_ops ops;
        cr_qgemm_table(&ops, tables[t]);
        if (ops.x_type != CR_X_BF16 || tables[t] == CR_AMX_MODEL_TRAPPED) {
            continue; /* instructions emulated one by one: slow, and its panels are those of the model with words */
        }
        bool whole = ops.tier != CR_TIER_AMX && cr_test_every(2) == 1;
        for (size_t round = 0; round < (whole ? kind->n_rounds : 1); round++) {
            for (size_t i = 0; i < least; i++) {
                size_t variety = whole ? round + i / n : i * 5 + i / n;
                words_block(kind, blocks + i * block_bytes, i * stride % n, variety % kind->n_rounds);
            }
            size_t n_seen = check_blocks(tables[t], kind->type, blocks, least);
            ck_assert_uint_eq(n_seen, 2 * least * cr_qtype_info(kind->type)->block_values);
        }
    }
    free(blocks);
}
END_TEST

/* A scale that is infinite or NaN: no value of its block is finite, and with that none of the sums that it enters; all
 * others are what they were. */
START_TEST(spoiled_row)
{
    enum { N = 64, BAD = 37 };
    static const uint16_t bad[] = {0x7c00, 0xfc00, 0x7e00, 0x7c01};
    const struct words_kind *kind = &words_kinds[_i];
    const struct cr_qtype_info *info = cr_qtype_info(kind->type);
    size_t n_cols = info->block_values, n_values = N * n_cols;
    unsigned char *blocks = malloc(N * info->block_bytes);
    float *values = malloc(n_values * sizeof *values);
    unsigned tables[CR_QGEMM_TABLES];
    size_t n_tables = cr_qgemm_tables(tables);
    for (size_t i = 0; i < N; i++) {
        words_block(kind, blocks + i * info->block_bytes, i, 9 % kind->n_rounds);
    }
    for (size_t b = 0; b < sizeof bad / sizeof *bad; b++) {
        memcpy(blocks + BAD * info->block_bytes + kind->d_at, &bad[b], 2);
        cr_dequant_fn_for(kind->type, CR_TIER_SCALAR)(blocks, 0, n_values, values);
        for (size_t t = 0; t < n_tables; t++) {
            struct read r = {.w = {blocks, info->block_bytes, N, n_cols, kind->type}};
            cr_qgemm_table(&r.ops, tables[t]);
            if (r.ops.x_type != CR_X_BF16) {
                continue;
            }
            const float *y = product(&r, N, n_cols);
            for (size_t row = 0; row < N; row++) {
                for (size_t col = 0; col < n_cols; col++) {
                    float got = y[(col / CR_LANES * N + row) * CR_LANES + col % CR_LANES];
                    float want = cr_bf16_to_f32(cr_f32_to_bf16(values[row * n_cols + col]));
                    if (row == BAD ? isfinite(got) || isfinite(want) : got != want) {
                        ck_abort_msg("%s %s: weight (%zu,%zu) is %a beside %04x", cr_qgemm_table_name(tables[t]),
                                     info->name, row, col, (double)got, bad[b]);
                    }
                }
            }
        }
    }
    free(values);
    free(blocks);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("qgemm words");
    TCase *tc = tcase_create("qgemm words");
    tcase_set_timeout(tc, 300);
    tcase_add_loop_test(tc, every_scale_and_code, 0, N_WORDS_KINDS);
    tcase_add_loop_test(tc, spoiled_row, 0, N_WORDS_KINDS);
    suite_add_tcase(suite, tc);
    return cr_run_suite(suite);
}
