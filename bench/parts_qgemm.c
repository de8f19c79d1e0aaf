/* parts_qgemm: where the time of a qgemm call goes, from outside.
 *
 *   parts_qgemm [tier] [type] [fwd|dx] [K] [N]       default: avx512_bf16 Q4_1 fwd 2048 64
 *
 * A call of N outputs costs panel + tokens * slope. The slope is measured four times: with token blocks and outputs
 * all at one place (stride 0: both stay in the first two cache levels), with real tokens, with real outputs, with
 * both; the panel is the rest of a call with few tokens. Shares are of the calibration loop run between the calls.
 * Runs are half a millisecond, well under a scheduler slice. Neighbours only ever add time, so the fast fiftieth of
 * the rounds is compared with that of the calibrations.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "bench/cr_bench.h"
#include "kernels/common/half.h"
#include "credence/kernels/dequant.h"
#include "credence/kernels/qgemm.h"

enum { ROUNDS = 400, FEW = 3, MANY = 33, N_CASES = 8 };

struct setup {
    struct cr_qgemm_ops ops;
    struct cr_qgemm_args args;
    bool dx;
    size_t n_out, n_reduce;
    void *scratch;
};

static void *huge(size_t n_bytes)
{
    size_t page = (size_t)1 << 21;
    void *p = aligned_alloc(page, (n_bytes + page - 1) / page * page);
    if (p == NULL) {
        exit(1);
    }
    madvise(p, n_bytes, MADV_HUGEPAGE);
    return p;
}

static uint32_t next(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 32);
}

/* Any bytes will do for weights and tokens as long as nothing is a NaN, infinite or subnormal. */
static void fill(struct setup *s, size_t n_blocks)
{
    uint64_t state = 1;
    const struct cr_qmat *w = &s->args.w;
    const struct cr_qtype_info *info = cr_qtype_info(w->type);
    unsigned char *data = huge(w->row_bytes * w->n_rows);
    for (size_t i = 0; i < w->row_bytes * w->n_rows; i++) {
        data[i] = (unsigned char)next(&state);
    }
    for (size_t b = 0; info->block_values > 1 && b < w->row_bytes * w->n_rows / info->block_bytes; b++) {
        unsigned char *block = data + b * info->block_bytes;
        bool at_end = w->type == CR_Q_Q2_K || w->type == CR_Q_Q3_K || w->type == CR_Q_Q6_K;
        memset(at_end ? block + info->block_bytes - 2 : block, 0x20, 2);
        if (w->type == CR_Q_Q2_K) {
            memset(block + 80, 0x20, 2);
        }
        if (w->type == CR_Q_Q4_1 || w->type == CR_Q_Q5_1 || w->type == CR_Q_Q4_K || w->type == CR_Q_Q5_K) {
            memset(block + 2, 0x21, 2);
        }
    }
    s->args.w.data = data;
    uint16_t *x = huge(s->args.x_stride * n_blocks);
    for (size_t i = 0; i < s->args.x_stride * n_blocks / 2; i++) {
        x[i] = (uint16_t)(0x3f00u + (next(&state) & 0x807fu));
    }
    s->args.x = x;
    s->args.y = huge(s->args.y_stride * 4 * n_blocks);
    memset(s->args.y, 0, s->args.y_stride * 4 * n_blocks);
}

/* Seconds of a case: bit 0 real tokens, bit 1 real outputs, bit 2 many tokens. */
static double run(const struct setup *s, int which)
{
    struct cr_qgemm_args args = s->args;
    args.n_blocks = which & 4 ? MANY : FEW;
    args.x_stride = which & 1 ? args.x_stride : 0;
    args.y_stride = which & 2 ? args.y_stride : 0;
    double start = cr_bench_now();
    (s->dx ? s->ops.dx : s->ops.fwd)(&args, 0, s->n_out, s->scratch);
    return cr_bench_now() - start;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double quantile(double *values, int n, int rank)
{
    qsort(values, (size_t)n, sizeof *values, ascending);
    return values[rank];
}

static void report(const struct setup *s, enum cr_bench_unit unit)
{
    static const char *const names[] = {"tile loop alone", "with token stream", "with stores", "with both"};
    static double seconds[N_CASES][ROUNDS], peaks[ROUNDS];
    for (int round = -1; round < ROUNDS; round++) { /* one to warm up */
        int at = round < 0 ? 0 : round;
        for (int i = 0; i < N_CASES; i++) {
            seconds[i][at] = run(s, i);
        }
        peaks[at] = cr_bench_peak(unit);
    }
    double per_block = 2.0 * (double)s->n_out * (double)s->n_reduce * CR_LANES, cost[N_CASES];
    double peak = quantile(peaks, ROUNDS, ROUNDS - 1 - ROUNDS / 50);
    for (int i = 0; i < N_CASES; i++) { /* in operations at the peak rate */
        cost[i] = peak * quantile(seconds[i], ROUNDS, ROUNDS / 50);
    }
    for (int i = 0; i < 4; i++) {
        printf("  %-18s %5.1f %% of peak\n", names[i], 100 * per_block * (MANY - FEW) / (cost[i + 4] - cost[i]));
    }
    double slope = (cost[7] - cost[3]) / (MANY - FEW), panel = cost[3] - FEW * slope;
    printf("  panel              %.4f ns a weight, %.1f tokens' worth at peak (%.1f GFLOP/s)\n",
           1e9 * panel / peak / (double)(s->n_out * s->n_reduce), panel / per_block * CR_LANES, 1e-9 * peak);
    for (size_t blocks = 8; blocks <= 64; blocks *= blocks == 16 ? 4 : 2) {
        printf("  M %4zu             %5.1f %% of peak\n", blocks * CR_LANES,
               100 * per_block * (double)blocks / (panel + (double)blocks * slope));
    }
}

int main(int argc, char **argv)
{
    static const char *const units[] = {"scalar", "avx2", "avx512", "avx512_bf16"};
    int tier = CR_TIER_AVX512_BF16, type = CR_Q_Q4_1;
    for (int i = 0; argc > 1 && i < 4; i++) {
        tier = strcmp(argv[1], units[i]) == 0 ? i : tier;
    }
    for (int i = 0; argc > 2 && i <= CR_Q_BF16; i++) {
        type = strcmp(cr_qtype_info(i)->name, argv[2]) == 0 ? i : type;
    }
    struct setup s = {.dx = argc > 3 && strcmp(argv[3], "dx") == 0};
    size_t k = argc > 4 ? (size_t)atoi(argv[4]) : 2048, n = argc > 5 ? (size_t)atoi(argv[5]) : 64;
    cr_qgemm_ops_init(&s.ops, (enum cr_tier)tier);
    const struct cr_qtype_info *info = cr_qtype_info(type);
    s.n_out = n;
    s.n_reduce = k;
    size_t rows = s.dx ? k : n, columns = s.dx ? n : k;
    size_t stored = (columns + 255) / 256 * 256; /* columns of the matrix; whole blocks */
    s.args.w = (struct cr_qmat){.row_bytes = stored / info->block_values * info->block_bytes,
                                .n_rows = rows,
                                .n_cols = s.dx ? stored : columns,
                                .type = type};
    s.args.x_stride = cr_tl16_bytes(s.ops.x_type, k);
    s.args.y_stride = 2048 * CR_LANES; /* of a matrix of 2048 outputs */
    s.scratch = huge(cr_qgemm_scratch_bytes(&s.ops, k, 0));
    fill(&s, MANY);
    printf("%s %s %s K %zu N %zu\n", cr_tier_name(s.ops.tier), info->name, s.dx ? "dx" : "fwd", k, n);
    struct cr_cpu cpu;
    cr_cpu_detect(&cpu);
    cr_bench_units_init(&cpu);
    report(&s, s.ops.x_type == CR_X_BF16 ? cr_bench_bf16(s.ops.tier) : cr_bench_fma(s.ops.tier));
    return 0;
}
