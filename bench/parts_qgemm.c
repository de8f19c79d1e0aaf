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

#include "bench/cr_bench.h"
#include "bench/material.h"
#include "credence/kernels/dequant.h"
#include "credence/kernels/qgemm.h"

enum { ROUNDS = 400, FEW = 3, MANY = 33, N_CASES = 8 };
#define FAST 0.02 /* the share of the rounds that neighbours disturbed least */

struct setup {
    struct cr_qgemm_ops ops;
    struct cr_qgemm_args args;
    bool dx;
    size_t n_out, n_reduce;
    void *scratch;
};

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
    double peak = cr_bench_quantile(peaks, ROUNDS, 1 - FAST);
    for (int i = 0; i < N_CASES; i++) { /* in operations at the peak rate */
        cost[i] = peak * cr_bench_quantile(seconds[i], ROUNDS, FAST);
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
    s.n_out = n;
    s.n_reduce = k;
    size_t rows = s.dx ? k : n, columns = s.dx ? n : k;
    size_t stored = (columns + 255) / 256 * 256; /* columns of the matrix; whole blocks */
    s.args.w = cr_bench_qmat(type, rows, stored);
    s.args.w.n_cols = s.dx ? stored : columns;
    s.args.x = cr_bench_operand(s.ops.x_type, k, MANY);
    s.args.x_stride = cr_tl16_bytes(s.ops.x_type, k);
    s.args.y_stride = 2048 * CR_LANES; /* of a matrix of 2048 outputs */
    s.args.y = cr_bench_memory(s.args.y_stride * sizeof(float) * MANY);
    s.scratch = cr_bench_memory(cr_qgemm_scratch_bytes(&s.ops, k, 0));
    printf("%s %s %s K %zu N %zu\n", cr_tier_name(s.ops.tier), cr_qtype_info(type)->name, s.dx ? "dx" : "fwd", k, n);
    struct cr_cpu cpu;
    cr_cpu_detect(&cpu);
    cr_bench_units_init(&cpu);
    report(&s, s.ops.x_type == CR_X_BF16 ? cr_bench_bf16(s.ops.tier) : cr_bench_fma(s.ops.tier));
    return 0;
}
