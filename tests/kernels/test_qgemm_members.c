/* qgemm with several adapters: a call with members gives, bit for bit, what one call for each range of tokens gives. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "credence/kernels/dequant.h"
#include "credence/kernels/qgemm.h"
#include "tests/support/qgemm_tables.h"

enum { N = 72, K = 160, N_BLOCKS = 23, MAX_RANK = 17, N_CASES = 4 };

/* Ranges of token blocks with the rank of each, 0 = a member without a term; the rest of the blocks has no member. */
struct range {
    size_t begin, end, rank;
};

static const struct range cases[N_CASES][8] = {
    {{0, 23, 16}},
    {{0, 1, 4}, {1, 3, 4}, {3, 6, 4}, {6, 10, 4}, {10, 15, 4}, {15, 21, 4}, {21, 22, 4}, {22, 23, 4}},
    {{2, 5, 8}, {5, 6, 1}, {9, 9, 3}, {12, 19, 17}},
    {{0, 7, 3}, {7, 12, 0}, {12, 23, 9}},
};

struct problem {
    struct cr_qgemm_ops ops;
    struct cr_qgemm_args args;
    struct cr_qgemm_member members[8];
    size_t n_out, n_y;
    bool dx;
    void *scratch;
};

static void make(struct problem *problem, unsigned tier, const struct range *ranges, bool dx, struct cr_rng *rng)
{
    struct problem p = {.n_out = dx ? K : N, .dx = dx};
    cr_qgemm_table(&p.ops, tier);
    size_t n_reduce = dx ? N : K, row_bytes = K / 32 * 34;
    unsigned char *weights = cr_guard_alloc(row_bytes * N, 2, CR_AT_END);
    cr_fill_bytes(rng, weights, row_bytes * N);
    for (size_t b = 0; b < row_bytes * N; b += 34) {
        weights[b + 1] = 0x20; /* a scale between 2^-7 and 2^-6 */
    }
    p.args.w = (struct cr_qmat){weights, row_bytes, N, K, CR_Q_Q8_0};
    p.args.n_blocks = N_BLOCKS;
    p.args.x_stride = cr_tl16_bytes(p.ops.x_type, n_reduce);
    void *x = cr_guard_alloc(p.args.x_stride * N_BLOCKS, 64, CR_AT_END);
    if (p.ops.x_type == CR_X_BF16) {
        cr_fill_bf16(rng, x, p.args.x_stride * N_BLOCKS / 2, -1, 1);
    } else {
        cr_fill_f32(rng, x, p.args.x_stride * N_BLOCKS / 4, -1, 1);
    }
    p.args.x = x;
    p.args.u_stride = MAX_RANK * CR_LANES;
    float *u = cr_guard_alloc(p.args.u_stride * N_BLOCKS * 4, 64, CR_AT_END);
    cr_fill_f32(rng, u, p.args.u_stride * N_BLOCKS, -1, 1);
    p.args.u = u;
    p.args.y_stride = p.n_out * CR_LANES;
    p.n_y = p.args.y_stride * N_BLOCKS;
    p.args.y = cr_guard_alloc(p.n_y * 4, 64, CR_AT_END);
    p.args.members = problem->members;
    for (size_t i = 0; i < 8 && ranges[i].end > 0; i++) {
        float *matrix = cr_guard_alloc(p.n_out * (ranges[i].rank + 1) * 4, 4, CR_AT_END);
        cr_fill_f32(rng, matrix, p.n_out * (ranges[i].rank + 1), -1, 1);
        bool by_rank = i % 2 != 0;
        p.members[p.args.n_members++] = (struct cr_qgemm_member){
            ranges[i].begin,       ranges[i].end, ranges[i].rank > 0 ? matrix : NULL, by_rank ? 1 : ranges[i].rank,
            by_rank ? p.n_out : 1, ranges[i].rank};
    }
    p.scratch = cr_guard_alloc(cr_qgemm_scratch_bytes(&p.ops, n_reduce, MAX_RANK), 64, CR_AT_END);
    *problem = p;
}

static void run(const struct problem *p, const struct cr_qgemm_args *args)
{
    (p->dx ? p->ops.dx : p->ops.fwd)(args, 0, p->n_out, p->scratch);
}

/* Blocks [begin, end) by themselves, with one term or none. */
static void run_alone(const struct problem *p, size_t begin, size_t end, const struct cr_qgemm_member *m)
{
    struct cr_qgemm_args args = p->args;
    args.members = NULL;
    args.n_members = 0;
    args.x = (const char *)args.x + begin * args.x_stride;
    args.y += begin * args.y_stride;
    args.n_blocks = end - begin;
    if (m != NULL && m->p != NULL) {
        args.p = m->p;
        args.p_os = m->p_os;
        args.p_rs = m->p_rs;
        args.rank = m->rank;
        args.u += begin * args.u_stride;
    }
    run(p, &args);
}

START_TEST(members_equal_separate_calls)
{
    unsigned tiers[CR_QGEMM_TABLES];
    size_t n_tiers = cr_qgemm_tables(tiers);
    for (size_t t = 0; t < n_tiers; t++) {
        for (int dx = 0; dx < 2; dx++) {
            struct cr_rng rng = cr_rng_make(900 + (uint64_t)_i);
            struct problem p;
            make(&p, tiers[t], cases[_i], dx, &rng);
            size_t at = 0;
            for (size_t i = 0; i < p.args.n_members; i++) {
                run_alone(&p, at, p.members[i].begin, NULL);
                run_alone(&p, p.members[i].begin, p.members[i].end, &p.members[i]);
                at = p.members[i].end;
            }
            run_alone(&p, at, N_BLOCKS, NULL);
            float *want = malloc(p.n_y * 4);
            memcpy(want, p.args.y, p.n_y * 4);
            cr_poison(p.args.y, p.n_y * 4);
            run(&p, &p.args);
            char what[80];
            snprintf(what, sizeof what, "%s %s case %d", cr_qgemm_table_name(tiers[t]), dx ? "dx" : "fwd", _i);
            cr_expect_bytes(what, p.args.y, want, p.n_y * 4);
            free(want);
            cr_guard_free_all();
        }
    }
}
END_TEST

/* Overlapping, descending and overlong ranges and ranks out of bounds are refused by the checked entry. */
START_TEST(bad_members_are_refused)
{
    struct cr_rng rng = cr_rng_make(950);
    struct problem p;
    make(&p, CR_TIER_SCALAR, cases[2], false, &rng);
    size_t bytes = cr_qgemm_scratch_bytes(&p.ops, K, MAX_RANK);
    ck_assert_int_eq(cr_qgemm_fwd_checked(&p.ops, &p.args, 0, N, p.scratch, bytes, NULL), CR_OK);
    static const struct range bad[] = {{2, 6, 8}, {5, 4, 8}, {2, 24, 8}, {2, 5, 0}, {2, 5, 257}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct problem q = p;
        q.args.members = q.members;
        q.members[0].begin = bad[i].begin;
        q.members[0].end = bad[i].end;
        q.members[0].rank = bad[i].rank;
        ck_assert_msg(cr_qgemm_fwd_checked(&q.ops, &q.args, 0, N, q.scratch, bytes, NULL) == CR_E_USAGE, "case %zu", i);
    }
    p.args.members = NULL;
    ck_assert_int_eq(cr_qgemm_fwd_checked(&p.ops, &p.args, 0, N, p.scratch, bytes, NULL), CR_E_USAGE);
    cr_guard_free_all();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("qgemm members");
    TCase *tcase = tcase_create("members");
    tcase_set_timeout(tcase, 120);
    tcase_add_loop_test(tcase, members_equal_separate_calls, 0, N_CASES);
    tcase_add_test(tcase, bad_members_are_refused);
    suite_add_tcase(suite, tcase);
    return cr_run_suite(suite);
}
