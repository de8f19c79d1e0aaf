/* units: one burst of a unit on every thread, and the memory of all bursts. */
#include "bench/units.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench/cr_bench.h"
#include "bench/memory.h"
#include "credence/kernels/rng.h"
#include "credence/kernels/peak.h"

enum { MAX_BURSTS = 8192, MAX_WORKERS = 256 };

/* Per worker: two arrays of n_floats; DRAM goes on from `at`. */
struct arrays {
    float *x, *y;
    size_t n_floats, at;
};

static struct cr_cpu cpu;
static struct cr_peak_ops widest;            /* of this CPU */
static struct arrays arrays[4][MAX_WORKERS]; /* L1, L2, L3, DRAM */
static double *bursts[CR_UNITS];
static size_t n_bursts[CR_UNITS];

/* Bytes of a worker's arrays in memory at the least: bursts of four places at once fit into them. */
#define DRAM_LEAST ((double)(16 << 20))

/* One level: the share of its bytes that the arrays fill, its size where the system tells none, bytes of one burst. */
static const struct level {
    double share, unknown, burst_bytes;
} levels[4] = {
    {0.5, 32e3, 96e6},
    {0.5, 1e6, 32e6},
    {0.25, 16e6, 12e6},
    {4, 16e6, 24e6},
};

void cr_bench_units_init(const struct cr_cpu *detected)
{
    cpu = *detected;
    cr_peak_ops_init(&widest, cpu.tier);
}

static double level_bytes(int level)
{
    int64_t known = level == 0 ? cpu.l1d_bytes : level == 1 ? cpu.l2_bytes : cpu.l3_bytes;
    return known > 0 ? (double)known : levels[level].unknown;
}

static bool has(enum cr_tier tier)
{
    return tier == CR_TIER_SCALAR || (cpu.features >> tier & 1u);
}

/* The lanes that tiers compute with, in the order of the units of a kind. */
static const enum cr_tier lane_tiers[] = {CR_TIER_SCALAR, CR_TIER_AVX2, CR_TIER_AVX512, CR_TIER_NEON};
enum { N_LANE_TIERS = sizeof lane_tiers / sizeof *lane_tiers };

static int lanes_of(enum cr_tier tier)
{
    return tier >= CR_TIER_NEON ? 3 : tier >= CR_TIER_AVX512 ? 2 : tier == CR_TIER_AVX2 ? 1 : 0;
}

enum cr_bench_unit cr_bench_bf16(enum cr_tier tier)
{
    return tier >= CR_TIER_NEON ? CR_UNIT_NONE : tier == CR_TIER_AMX ? CR_UNIT_TILE : CR_UNIT_BF16;
}

enum cr_bench_unit cr_bench_fma(enum cr_tier tier)
{
    return (enum cr_bench_unit)(CR_UNIT_FMA_SCALAR + lanes_of(tier));
}

enum cr_bench_unit cr_bench_exp(enum cr_tier tier)
{
    return (enum cr_bench_unit)(CR_UNIT_EXP_SCALAR + lanes_of(tier));
}

enum cr_bench_unit cr_bench_mul(enum cr_tier tier)
{
    return (enum cr_bench_unit)(CR_UNIT_MUL_SCALAR + lanes_of(tier));
}

enum cr_bench_unit cr_bench_normals(enum cr_tier tier)
{
    return (enum cr_bench_unit)(CR_UNIT_NORMAL_SCALAR + lanes_of(tier));
}

enum cr_bench_unit cr_bench_level(double n_bytes)
{
    if (n_bytes <= 0.75 * level_bytes(0)) {
        return CR_UNIT_L1;
    }
    if (n_bytes <= 0.75 * level_bytes(1)) {
        return CR_UNIT_L2;
    }
    return n_bytes <= 0.5 * level_bytes(2) ? CR_UNIT_L3 : CR_UNIT_DRAM;
}

static const char *const names[CR_UNITS] = {
    [CR_UNIT_NONE] = "none",
    [CR_UNIT_FMA_SCALAR] = "f32 multiply-add, portable",
    [CR_UNIT_FMA_AVX2] = "f32 FMA, AVX2",
    [CR_UNIT_FMA_AVX512] = "f32 FMA, AVX-512",
    [CR_UNIT_FMA_NEON] = "f32 FMA, NEON",
    [CR_UNIT_BF16] = "bf16 dot product, AVX-512",
    [CR_UNIT_TILE] = "bf16 tile product, AMX",
    [CR_UNIT_EXP_SCALAR] = "exp, portable",
    [CR_UNIT_EXP_AVX2] = "exp, AVX2",
    [CR_UNIT_EXP_AVX512] = "exp, AVX-512",
    [CR_UNIT_EXP_NEON] = "exp, NEON",
    [CR_UNIT_MUL_SCALAR] = "wide integer product, portable",
    [CR_UNIT_MUL_AVX2] = "wide integer product, AVX2",
    [CR_UNIT_MUL_AVX512] = "wide integer product, AVX-512",
    [CR_UNIT_MUL_NEON] = "wide integer product, NEON",
    [CR_UNIT_NORMAL_SCALAR] = "normals, portable",
    [CR_UNIT_NORMAL_AVX2] = "normals, AVX2",
    [CR_UNIT_NORMAL_AVX512] = "normals, AVX-512",
    [CR_UNIT_NORMAL_NEON] = "normals, NEON",
    [CR_UNIT_L1] = "L1",
    [CR_UNIT_L2] = "L2",
    [CR_UNIT_L3] = "L3",
    [CR_UNIT_DRAM] = "DRAM",
    [CR_UNIT_CLOCK] = "clock",
};

const char *cr_bench_unit_name(enum cr_bench_unit unit)
{
    return names[unit];
}

double cr_bench_now(void)
{
    struct timespec t;
    clock_gettime(cr_bench_threads() > 1 ? CLOCK_MONOTONIC : CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* A chain of products of three cycles each on x86 and on most Arm cores. */
static double clock_loop(size_t n)
{
    uint64_t x = 3;
    for (size_t k = 0; k < n; k++) {
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++) {
#if defined(__x86_64__)
            __asm__ volatile("imul %0, %0" : "+r"(x) : : "cc");
#else
            x *= x;
            __asm__ volatile("" : "+r"(x));
#endif
        }
    }
    return (double)n * 8 * 3;
}

/* Into a buffer that stays in the first level. */
static double normals_loop(enum cr_tier tier)
{
    enum { N = 2048, TIMES = 100 };
    float out[N];
    struct cr_rng_ops ops;
    struct cr_noise noise = {{1, 2}, 3, 4, 5};
    cr_rng_ops_init(&ops, tier);
    int n_times = tier == CR_TIER_SCALAR ? TIMES / 20 : TIMES;
    for (int i = 0; i < n_times; i++) {
        ops.normals(&noise, out, 0, N);
    }
    return (double)N * n_times;
}

/* Sizes such that a burst lasts 0.1 to 0.4 ms at 2 to 4 GHz. */
static double lanes_burst(int kind, enum cr_tier tier)
{
    struct cr_peak_ops loops;
    cr_peak_ops_init(&loops, tier);
    return kind == 0   ? loops.fma(28000)
           : kind == 1 ? loops.exp(6000)
           : kind == 2 ? loops.mul(40000)
                       : normals_loop(tier);
}

static double compute(enum cr_bench_unit unit)
{
    int place = (int)unit - CR_UNIT_FMA_SCALAR - (unit > CR_UNIT_TILE ? 2 : 0);
    if (unit == CR_UNIT_CLOCK) {
        return clock_loop(40000);
    }
    if (unit == CR_UNIT_BF16 || unit == CR_UNIT_TILE) {
        enum cr_tier tier = unit == CR_UNIT_TILE ? CR_TIER_AMX : CR_TIER_AVX512_BF16;
        struct cr_peak_ops loops;
        cr_peak_ops_init(&loops, tier);
        cr_peak_fn *loop = unit == CR_UNIT_TILE ? loops.tile : loops.dot;
        return has(tier) && loop != NULL ? loop(unit == CR_UNIT_TILE ? 10000 : 28000) : 0;
    }
    enum cr_tier tier = lane_tiers[place % N_LANE_TIERS];
    return has(tier) ? lanes_burst(place / N_LANE_TIERS, tier) : 0;
}

/* A level's arrays of a worker, made when first asked for. */
static struct arrays *arrays_of(int level, int worker)
{
    struct arrays *a = &arrays[level][worker];
    if (a->x == NULL) {
        double n_bytes = levels[level].share * level_bytes(level) / (level < 2 ? 1 : cr_bench_threads());
        n_bytes = level == 3 && n_bytes < DRAM_LEAST ? DRAM_LEAST : n_bytes;
        a->n_floats = (size_t)(n_bytes / 8) / 1024 * 1024;
        a->x = cr_bench_pages(a->n_floats * sizeof *a->x);
        a->y = cr_bench_pages(a->n_floats * sizeof *a->y);
        if (a->x == NULL || a->y == NULL) {
            abort();
        }
        memset(a->x, 0, a->n_floats * sizeof *a->x);
        memset(a->y, 0, a->n_floats * sizeof *a->y);
    }
    return a;
}

/* Bytes moved by one burst on one worker; `warm` only brings the arrays in. */
static double stream(int level, int worker, bool warm)
{
    struct arrays *a = arrays_of(level, worker);
    if (level == 3) {
        /* Four places at once, since prefetchers stop at the end of a page, and not a power of two apart. */
        size_t n = (size_t)(levels[level].burst_bytes / 48) / 64 * 64, quarter = a->n_floats / 4 - 1040;
        a->at = a->at + n > quarter ? 0 : a->at;
        widest.triad4(a->y + a->at, a->x + a->at, n, quarter);
        a->at += n;
        n *= 4;
        return 12.0 * (double)n;
    }
    double pass = 12.0 * (double)a->n_floats;
    int n_passes = warm ? 1 : (int)(levels[level].burst_bytes / pass);
    n_passes = n_passes > 0 ? n_passes : 1;
    for (int i = 0; i < n_passes; i++) {
        widest.triad(a->y, a->x, a->n_floats);
    }
    return pass * n_passes;
}

struct burst {
    enum cr_bench_unit unit;
    bool warm;
    double work[MAX_WORKERS]; /* by item */
};

static void burst_item(void *arg, size_t begin, size_t end, int worker)
{
    struct burst *b = arg;
    for (size_t i = begin; i < end; i++) {
        bool memory = b->unit >= CR_UNIT_L1 && b->unit <= CR_UNIT_DRAM;
        b->work[i] = memory ? stream((int)b->unit - CR_UNIT_L1, worker, b->warm) : compute(b->unit);
    }
}

static void remember(enum cr_bench_unit unit, double rate)
{
    if (bursts[unit] == NULL) {
        bursts[unit] = malloc(MAX_BURSTS * sizeof *bursts[unit]);
    }
    if (bursts[unit] != NULL && n_bursts[unit] < MAX_BURSTS) {
        bursts[unit][n_bursts[unit]++] = rate;
    }
}

double cr_bench_peak(enum cr_bench_unit unit)
{
    static struct burst b;
    if (unit == CR_UNIT_NONE) {
        return 0;
    }
    size_t n = (size_t)cr_bench_threads();
    b.unit = unit;
    if (unit >= CR_UNIT_L1 && unit <= CR_UNIT_L3) {
        b.warm = true;
        cr_bench_over(burst_item, &b, n, 1);
    }
    b.warm = false;
    double start = cr_bench_now(), work = 0;
    cr_bench_over(burst_item, &b, n, 1);
    double seconds = cr_bench_now() - start;
    for (size_t i = 0; i < n; i++) {
        work += b.work[i];
    }
    double rate = seconds > 0 ? work / seconds : 0;
    remember(unit, rate);
    return rate;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double cr_bench_quantile(double *values, size_t n, double share)
{
    if (n == 0) {
        return 0;
    }
    qsort(values, n, sizeof *values, ascending);
    return values[(size_t)(share * (double)(n - 1) + 0.5)];
}

double cr_bench_typical(enum cr_bench_unit unit)
{
    for (int i = 0; i < 5 && n_bursts[unit] < 5; i++) {
        cr_bench_peak(unit);
    }
    return cr_bench_quantile(bursts[unit], n_bursts[unit], 0.5);
}
