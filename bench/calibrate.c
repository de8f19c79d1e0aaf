/* Peak loops: sixteen independent chains of the unit's instruction, in registers. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench/cr_bench.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

double cr_bench_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static volatile float sink;

#if defined(__x86_64__)

/* The empty asm keeps the compiler from merging or moving chains out of the loop. */
#define CHAINS(F) F(0) F(1) F(2) F(3) F(4) F(5) F(6) F(7) F(8) F(9) F(10) F(11)
#define CHAINS16(F) CHAINS(F) F(12) F(13) F(14) F(15)

__attribute__((target("avx2,fma"))) static double fma_avx2(size_t n)
{
    __m256 a = _mm256_set1_ps(0.999f), b = _mm256_set1_ps(1e-3f);
#define DECLARE(i) __m256 c##i = _mm256_set1_ps((float)i);
#define STEP(i) c##i = _mm256_fmadd_ps(c##i, a, b);
#define KEEP(i) __asm__ volatile("" : "+x"(c##i));
    CHAINS(DECLARE)
    for (size_t k = 0; k < n; k++) {
        CHAINS(STEP)
        CHAINS(STEP)
        CHAINS(KEEP)
    }
    __m256 sum = _mm256_setzero_ps();
#define ADD(i) sum = _mm256_add_ps(sum, c##i);
    CHAINS(ADD)
    sink = _mm256_cvtss_f32(sum);
    return (double)n * 2 * 12 * 16;
#undef DECLARE
#undef STEP
#undef KEEP
#undef ADD
}

__attribute__((target("avx512f"))) static double fma_avx512(size_t n)
{
    __m512 a = _mm512_set1_ps(0.999f), b = _mm512_set1_ps(1e-3f);
#define DECLARE(i) __m512 c##i = _mm512_set1_ps((float)i);
#define STEP(i) c##i = _mm512_fmadd_ps(c##i, a, b);
#define KEEP(i) __asm__ volatile("" : "+v"(c##i));
    CHAINS16(DECLARE)
    for (size_t k = 0; k < n; k++) {
        CHAINS16(STEP)
        CHAINS16(STEP)
        CHAINS16(KEEP)
    }
    __m512 sum = _mm512_setzero_ps();
#define ADD(i) sum = _mm512_add_ps(sum, c##i);
    CHAINS16(ADD)
    sink = _mm512_cvtss_f32(sum);
    return (double)n * 2 * 16 * 32;
#undef STEP
}

__attribute__((target("avx512f,avx512bf16"))) static double bf16(size_t n)
{
    __m512bh a = (__m512bh)_mm512_set1_epi32(0x3f003f00), b = (__m512bh)_mm512_set1_epi32((int)0xbf003f00u);
#define STEP(i) c##i = _mm512_dpbf16_ps(c##i, a, b);
    CHAINS16(DECLARE)
    for (size_t k = 0; k < n; k++) {
        CHAINS16(STEP)
        CHAINS16(STEP)
        CHAINS16(KEEP)
    }
    __m512 sum = _mm512_setzero_ps();
    CHAINS16(ADD)
    sink = _mm512_cvtss_f32(sum);
    return (double)n * 2 * 16 * 64;
#undef STEP
}

double cr_bench_peak(enum cr_bench_unit unit)
{
    double (*const loops[CR_UNITS])(size_t n) = {NULL, fma_avx2, fma_avx512, bf16};
    if (loops[unit] == NULL) {
        return 0;
    }
    double start = cr_bench_now();
    double flops = loops[unit](28000); /* 896,000 instructions: 0.12 to 0.3 ms */
    return flops / (cr_bench_now() - start);
}

#else

double cr_bench_peak(enum cr_bench_unit unit)
{
    (void)unit;
    return 0;
}

#endif

double cr_bench_stream(void)
{
    enum { N = 16 * 1024 * 1024 };
    static float *x, *y;
    if (x == NULL) {
        x = malloc(N * sizeof *x);
        y = malloc(N * sizeof *y);
        if (x == NULL || y == NULL) {
            return 0;
        }
        memset(x, 0, N * sizeof *x);
        memset(y, 0, N * sizeof *y);
    }
    double best = 0;
    for (int round = 0; round < 2; round++) {
        double start = cr_bench_now();
        for (size_t i = 0; i < N; i++) {
            y[i] = 0.5f * y[i] + x[i];
        }
        __asm__ volatile("" : : "r"(y) : "memory");
        double rate = 12.0 * N / (cr_bench_now() - start);
        best = rate > best ? rate : best;
    }
    return best;
}
