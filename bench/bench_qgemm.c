/* qgemm entries: both directions, every type, every tier, with and without a low-rank term of one or several adapters.
 * Shape: M, N, K, R, A adapters that share the tokens evenly. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "bench/cr_bench.h"
#include "bench/material.h"
#include "bench/shapes.h"
#include "kernels/common/half.h"
#include "credence/kernels/dequant.h"
#include "credence/kernels/qgemm.h"

enum { MAX_MEMBERS = 8 };

struct state {
    struct cr_qgemm_ops ops;
    struct cr_qgemm_args args;
    struct cr_qgemm_member members[MAX_MEMBERS];
    bool dx;
    size_t n_out, n_reduce, scratch_bytes;
    char *scratch;
    struct cr_onednn *peer;
};

/* One adapter for all tokens, or n_members of them for a stretch of token blocks each. */
static void add_lowrank(struct state *s, size_t rank, size_t n_members)
{
    struct cr_qgemm_args *a = &s->args;
    const float *p = cr_bench_floats(s->n_out * rank * n_members, -1, 1);
    a->u = cr_bench_operand(CR_X_F32, rank, a->n_blocks);
    a->u_stride = rank * CR_LANES;
    if (n_members == 1) {
        a->p = p;
        a->p_os = rank;
        a->p_rs = 1;
        a->rank = rank;
        return;
    }
    for (size_t i = 0; i < n_members; i++) {
        s->members[i] = (struct cr_qgemm_member){.begin = i * a->n_blocks / n_members,
                                                 .end = (i + 1) * a->n_blocks / n_members,
                                                 .p = p + i * s->n_out * rank,
                                                 .p_os = rank,
                                                 .p_rs = 1,
                                                 .rank = rank};
    }
    a->members = s->members;
    a->n_members = n_members;
}

static void *open_state(const struct cr_bench_entry *entry)
{
    size_t m = entry->shape[0], n = entry->shape[1], k = entry->shape[2], rank = entry->shape[3];
    struct state *s = cr_bench_memory(sizeof *s);
    cr_bench_reseed();
    cr_qgemm_ops_init(&s->ops, entry->tier);
    s->dx = entry->flag;
    s->n_out = s->dx ? k : n;
    s->n_reduce = s->dx ? n : k;
    size_t n_blocks = cr_tl16_blocks(m);
    s->args = (struct cr_qgemm_args){.w = cr_bench_qmat(entry->type, n, k),
                                     .x = cr_bench_operand(s->ops.x_type, s->n_reduce, n_blocks),
                                     .x_stride = cr_tl16_bytes(s->ops.x_type, s->n_reduce),
                                     .y = cr_bench_memory(s->n_out * 64 * n_blocks),
                                     .y_stride = s->n_out * CR_LANES,
                                     .n_blocks = n_blocks};
    if (rank > 0) {
        add_lowrank(s, rank, entry->shape[4]);
    }
    s->scratch_bytes = (cr_qgemm_scratch_bytes(&s->ops, s->n_reduce, rank) + 63) / 64 * 64;
    s->scratch = cr_bench_memory(s->scratch_bytes * (size_t)cr_bench_threads());
    s->peer = cr_onednn_open(m, s->n_out, s->n_reduce, s->ops.x_type == CR_X_BF16);
    return s;
}

static void close_state(void *state)
{
    struct state *s = state;
    cr_onednn_close(s->peer);
}

static void part(void *arg, size_t begin, size_t end, int worker)
{
    struct state *s = arg;
    (s->dx ? s->ops.dx : s->ops.fwd)(&s->args, begin, end, s->scratch + (size_t)worker * s->scratch_bytes);
}

static void run(void *state)
{
    struct state *s = state;
    cr_bench_over(part, s, s->n_out, s->ops.step);
}

static bool peer(void *state)
{
    struct state *s = state;
    if (s->peer != NULL) {
        cr_onednn_run(s->peer);
    }
    return s->peer != NULL;
}

/* One output in double, and the sum of the magnitudes of its terms. */
static double product(const struct state *s, size_t o, size_t block, size_t lane, double *total)
{
    const struct cr_qmat *w = &s->args.w;
    cr_dequant_fn *dequant = cr_dequant_fn_for(w->type, CR_TIER_SCALAR);
    double sum = 0;
    *total = 0;
    for (size_t k = 0; k < s->n_reduce; k++) {
        size_t row = s->dx ? k : o, column = s->dx ? o : k;
        float values[32];
        dequant((const char *)w->data + row * w->row_bytes, column / 32 * 32, 32, values);
        float value = values[column % 32];
        value = s->ops.x_type == CR_X_BF16 ? cr_bf16_to_f32(cr_f32_to_bf16(value)) : value;
        double term = (double)value * cr_bench_operand_at(s->args.x, s->ops.x_type, s->n_reduce, block, k, lane);
        sum += term;
        *total += fabs(term);
    }
    struct cr_qgemm_member m = {.p = s->args.p, .p_os = s->args.p_os, .p_rs = s->args.p_rs, .rank = s->args.rank};
    for (size_t i = 0; i < s->args.n_members; i++) {
        m = block >= s->members[i].begin && block < s->members[i].end ? s->members[i] : m;
    }
    for (size_t i = 0; i < m.rank; i++) {
        double term =
            (double)m.p[o * m.p_os + i * m.p_rs] * cr_bench_operand_at(s->args.u, CR_X_F32, m.rank, block, i, lane);
        sum += term;
        *total += fabs(term);
    }
    return sum;
}

/* Sixty-four random outputs; the bound of qgemm.h. */
static bool verify(void *state, char *message, size_t message_bytes)
{
    struct state *s = state;
    memset(s->args.y, 0xff, s->args.y_stride * s->args.n_blocks * sizeof(float));
    run(s);
    for (int i = 0; i < 64; i++) {
        size_t o = cr_bench_below(s->n_out), block = cr_bench_below(s->args.n_blocks), lane = cr_bench_below(CR_LANES);
        double total, want = product(s, o, block, lane, &total);
        size_t at = block * s->args.y_stride + o * CR_LANES + lane;
        double bound = (double)(s->n_reduce + s->args.u_stride / CR_LANES + 2) * 0x1p-24 * total;
        if (!cr_bench_near("y", at, (double)s->args.y[at], want, bound, message, message_bytes)) {
            return false;
        }
    }
    return true;
}

static void entry(enum cr_tier tier, int type, bool dx, size_t m, size_t n, size_t k, size_t rank, size_t n_members,
                  bool tour)
{
    struct cr_qgemm_ops ops;
    cr_qgemm_ops_init(&ops, tier);
    bool slow = tier == CR_TIER_SCALAR && (m > 48 || n * k > 512 * 2048);
    if (ops.tier != tier || k % cr_qtype_info(type)->block_values != 0 || slow) {
        return;
    }
    struct cr_bench_entry e = {.open = open_state,
                               .verify = verify,
                               .run = run,
                               .peer = peer,
                               .close = close_state,
                               .tier = tier,
                               .type = type,
                               .flag = dx,
                               .tour = tour,
                               .shape = {m, n, k, rank, n_members}};
    e.unit = ops.x_type == CR_X_BF16 ? cr_bench_bf16(ops.tier) : cr_bench_fma(tier);
    size_t n_out = dx ? k : n, n_reduce = dx ? n : k, n_blocks = cr_tl16_blocks(m);
    e.flops = 2.0 * (double)(n_blocks * CR_LANES) * ((double)n * (double)k + (double)rank * (double)n_out);
    e.bytes =
        (double)cr_bench_qbytes(type, n * k) + (double)(n_blocks * (cr_tl16_bytes(ops.x_type, n_reduce) + n_out * 64));
    char name[16], lowrank[24] = "";
    cr_bench_qname(type, name);
    if (rank > 0) {
        snprintf(lowrank, sizeof lowrank, n_members > 1 ? "_R%zu_A%zu" : "_R%zu", rank, n_members);
    }
    snprintf(e.name, sizeof e.name, "qgemm/%s/%s/M%zu_N%zu_K%zu%s/%s", dx ? "dx" : "fwd", name, m, n, k, lowrank,
             cr_tier_name(tier));
    cr_bench_register(&e);
}

static const int types[] = {CR_Q_Q4_1, CR_Q_Q4_0, CR_Q_Q8_0, CR_Q_Q4_K, CR_Q_Q5_0,   CR_Q_Q5_1,   CR_Q_Q2_K, CR_Q_Q3_K,
                            CR_Q_Q5_K, CR_Q_Q6_K, CR_Q_F16,  CR_Q_BF16, CR_Q_IQ4_NL, CR_Q_IQ4_XS, CR_Q_F32};

/* Every matrix with every number of tokens in Q4_1, every type on one matrix, low-rank terms on some. */
static void direction(enum cr_tier tier, bool dx, bool best)
{
    for (size_t i = 0; i < CR_BENCH_MATRICES; i++) {
        const struct cr_bench_matrix *matrix = &cr_bench_matrices[i];
        bool square = matrix->n == 2048 && matrix->k == 2048;
        for (size_t j = 0; j < CR_BENCH_TOKENS; j++) {
            size_t m = cr_bench_tokens[j];
            bool tour = best ? (m == 1024 && matrix->tour) || (square && m < 512) : square && m == 512 && tier > 0;
            entry(tier, CR_Q_Q4_1, dx, m, matrix->n, matrix->k, 0, 1, tour);
        }
        entry(tier, CR_Q_Q8_0, dx, 512, matrix->n, matrix->k, 0, 1, false);
        entry(tier, CR_Q_Q4_K, dx, 512, matrix->n, matrix->k, 0, 1, false);
        entry(tier, CR_Q_Q4_1, dx, 512, matrix->n, matrix->k, 16, 1, false);
        entry(tier, CR_Q_Q4_1, dx, 1024, matrix->n, matrix->k, 16, 1,
              best && (square || (matrix->n == 576 && matrix->k == 576)));
    }
    entry(tier, CR_Q_Q4_1, dx, 128, 576, 576, 16, 8, false);
    entry(tier, CR_Q_Q4_1, dx, 1024, 2048, 2048, 16, 8, best);
    for (size_t i = 1; i < sizeof types / sizeof types[0]; i++) {
        entry(tier, types[i], dx, 48, 512, 2048, 0, 1, false);
        entry(tier, types[i], dx, 1024, 2048, 2048, 0, 1, best && i < 4);
    }
}

void cr_bench_qgemm(const enum cr_tier *tiers, size_t n_tiers)
{
    enum cr_tier best = CR_TIER_SCALAR;
    for (size_t t = 0; t < n_tiers; t++) {
        struct cr_qgemm_ops ops;
        cr_qgemm_ops_init(&ops, tiers[t]);
        best = ops.tier == tiers[t] ? tiers[t] : best;
    }
    for (size_t t = 0; t < n_tiers; t++) {
        direction(tiers[t], false, tiers[t] == best);
        direction(tiers[t], true, tiers[t] == best);
    }
}
