/* Sizes of scratch for any numbers: a host asks for them before it can reach a checked entry. No number traps or wraps:
 * what no call computes takes SIZE_MAX, and no entry believes in that much. */
#include <check.h>
#include <stdalign.h>

#include "credence/kernels.h"
#include "tests/support/kernel_test.h"
#include "tests/support/qgemm_tables.h"

/* Ascending: nothing, real ones, around every power of two that sizes multiply by, the last of all. */
static size_t n_numbers;
static size_t numbers[200];

static void fill_numbers(void)
{
    static const size_t real[] = {0, 1, 2, 31, 32, 33};
    n_numbers = 0;
    for (size_t i = 0; i < sizeof real / sizeof *real; i++) {
        numbers[n_numbers++] = real[i];
    }
    for (int bit = 6; bit < 64; bit++) {
        numbers[n_numbers++] = ((size_t)1 << bit) - 1;
        numbers[n_numbers++] = (size_t)1 << bit;
        numbers[n_numbers++] = ((size_t)1 << bit) + 1;
    }
    numbers[n_numbers++] = SIZE_MAX - 1;
    numbers[n_numbers++] = SIZE_MAX;
}

static const size_t largest = SIZE_MAX >> 24; /* dimension that the checked entries take */

/* Grows with the number; between the sizes of operands and those of an address space where there is a call, else
 * SIZE_MAX. */
static void expect(const char *what, size_t number, size_t got, size_t before, bool possible)
{
    ck_assert_msg(got >= before, "%s of %zu: %zu after %zu", what, number, got, before);
    ck_assert_msg(possible ? got > 0 && got <= PTRDIFF_MAX : got == SIZE_MAX, "%s of %zu: %zu", what, number, got);
}

/* Every table, tile models included. */
START_TEST(qgemm)
{
    unsigned tables[CR_QGEMM_TABLES];
    size_t n_tables = cr_qgemm_tables(tables);
    struct cr_qgemm_ops all[CR_QGEMM_TABLES + 1];
    for (size_t t = 0; t < n_tables; t++) {
        cr_qgemm_table(&all[t], tables[t]);
    }
    all[n_tables] = (struct cr_qgemm_ops){.step = 32, .x_type = CR_X_BF16, .tier = CR_TIER_AMX};
    for (size_t t = 0; t <= n_tables; t++) {
        bool tiles = all[t].tier == CR_TIER_AMX;
        for (size_t i = 0, before = 0, by_rank = 0; i < n_numbers; i++) {
            size_t n = numbers[i], got = cr_qgemm_scratch_bytes(&all[t], n, 16);
            /* the number of outputs of a panel falls as the panel grows: ascending but for that */
            expect("qgemm", n, got, tiles || n > 65536 ? before : 0, n <= largest);
            ck_assert(tiles || n > largest || got >= 32 * 2 * n);
            before = got;
            got = cr_qgemm_scratch_bytes(&all[t], 64, n);
            expect("qgemm rank", n, got, by_rank, n <= CR_RANK_MAX);
            by_rank = got;
        }
        ck_assert_uint_eq(cr_qgemm_scratch_bytes(&all[t], 0, 0), cr_qgemm_scratch_bytes(&all[t], 1, 0));
        ck_assert_uint_eq(cr_qgemm_scratch_bytes(&all[t], (size_t)1 << 59, 0), SIZE_MAX);
    }
}
END_TEST

START_TEST(lowrank)
{
    for (size_t i = 0, before = 0, by_rank = 0; i < n_numbers; i++) {
        size_t n = numbers[i], got = cr_lowrank_scratch_bytes(n, 8);
        expect("lowrank", n, got, before, n <= largest);
        before = got;
        got = cr_lowrank_scratch_bytes(64, n);
        expect("lowrank rank", n, got, by_rank, n <= CR_RANK_MAX);
        by_rank = got;
    }
}
END_TEST

/* K, V and Q of a head at the least, two bytes each: two numbers at a time, so that their product is what overflows. */
START_TEST(attention)
{
    for (size_t i = 0; i < n_numbers; i++) {
        for (size_t j = 0, before = 0; j < n_numbers; j++) {
            size_t len = numbers[i], dim = numbers[j], got = cr_attention_scratch_bytes(len, dim, 0), least;
            bool fits = !__builtin_mul_overflow(len, 6 * dim, &least) && dim <= largest && len <= largest;
            ck_assert_msg(got >= before, "%zu x %zu: %zu after %zu", len, dim, got, before);
            ck_assert_msg(fits && least <= (size_t)1 << 50 ? got >= least && got <= PTRDIFF_MAX
                                                           : got == SIZE_MAX || (got >= least && got <= PTRDIFF_MAX),
                          "%zu x %zu: %zu", len, dim, got);
            ck_assert(fits || got == SIZE_MAX);
            ck_assert_uint_le(got, cr_attention_scratch_bytes(len, dim, len)); /* rows of a prefix are keys too */
            before = got;
        }
        size_t n = numbers[i];
        expect("prefix", n, cr_attention_scratch_bytes(64, 64, n), 0, n <= largest);
    }
    ck_assert_uint_eq(cr_attention_scratch_bytes((size_t)1 << 63, 128, 0), SIZE_MAX);
}
END_TEST

START_TEST(dplr_sums)
{
    for (size_t i = 0, before = 0; i < n_numbers; i++) {
        size_t n = numbers[i], got = cr_dplr_n_sums(n);
        expect("dplr", n, got, before, n <= 65536);
        before = got;
    }
    ck_assert_uint_eq(cr_dplr_n_sums(20), 2 + 20 + 210);
}
END_TEST

static void spy(const struct cr_attention_args *args, size_t begin, size_t end, void *scratch)
{
    (void)args, (void)begin, (void)end, (void)scratch;
    ck_abort_msg("ran");
}

/* A caller that hands SIZE_MAX on is refused, even if it says that it has so much. */
START_TEST(refused)
{
    static alignas(64) char memory[64];
    struct cr_attention_ops ops = {.fwd = spy, .bwd = spy};
    uint32_t seg[] = {0, 1u << 31};
    struct cr_attention_args args = {.n_heads = 1, .n_kv = 1, .scale = 1, .seg = seg, .n_seg = 1};
    args.q = args.k = args.v = args.d_o = (const float *)memory;
    args.o = args.lse = args.dq = args.dk = args.dv = (float *)memory;
    args.head_dim = (size_t)1 << 29;
    args.q_stride = args.kv_stride = args.o_stride = args.do_stride = args.dkv_stride = (size_t)1 << 33;
    ck_assert_uint_eq(cr_attention_scratch_bytes(seg[1], args.head_dim, 0), SIZE_MAX);
    struct cr_error err;
    ck_assert_int_eq(cr_attention_fwd_checked(&ops, &args, 0, 1, memory, SIZE_MAX, &err), CR_E_USAGE);
    ck_assert_str_eq(err.message, "attention fwd: scratch_bytes cannot be had for these sizes");
}
END_TEST

int main(void)
{
    fill_numbers();
    Suite *suite = suite_create("contracts sizes");
    TCase *tcase = tcase_create("contracts sizes");
    tcase_add_test(tcase, qgemm);
    tcase_add_test(tcase, lowrank);
    tcase_add_test(tcase, attention);
    tcase_add_test(tcase, dplr_sums);
    tcase_add_test(tcase, refused);
    suite_add_tcase(suite, tcase);
    return cr_run_suite(suite);
}
