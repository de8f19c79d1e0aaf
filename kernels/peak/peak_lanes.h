/* peak over lanes; included once by each tier. Enough independent chains to hide every latency, all in registers;
 * the empty asm keeps the compiler from merging, moving or dropping them.
 */
#ifndef CR_PEAK_LANES_H
#define CR_PEAK_LANES_H

#include "credence/kernels/peak.h"
#include "kernels/peak/chains.h"
#include "kernels/common/lanes_math.h"
#include "kernels/common/tiers.h"

#if defined(__aarch64__)
#define KEEP(x) __asm__ volatile("" : "+w"(x))
#elif LANES_N == 16
#define KEEP(x) __asm__ volatile("" : "+v"(x))
#else
#define KEEP(x) __asm__ volatile("" : "+x"(x))
#endif

#if LANES_N == 16
#define CHAINS CR_CHAINS_16
enum { N_CHAINS = 16 };
#else
#define CHAINS CR_CHAINS_12
enum { N_CHAINS = 12 };
#endif

static double fma_loop(size_t n)
{
    lanes a = lanes_splat(0.999f), b = lanes_splat(1e-3f);
#define DECLARE(i) lanes c##i = lanes_splat((float)i);
#define STEP(i) c##i = lanes_fma(c##i, a, b);
#define HOLD(i) KEEP(c##i);
    CHAINS(DECLARE)
    for (size_t k = 0; k < n; k++) {
        CHAINS(STEP)
        CHAINS(STEP)
        CHAINS(HOLD)
    }
#undef DECLARE
#undef STEP
#undef HOLD
    return (double)n * 2 * N_CHAINS * 2 * LANES_N;
}

static double exp_loop(size_t n)
{
#define DECLARE(i) lanes x##i = lanes_splat(-0.7f * (float)i);
#define HOLD(i) KEEP(x##i);
#define STEP(i) lanes y##i = lanes_exp(x##i);
#define HOLD_RESULT(i) KEEP(y##i);
    CR_CHAINS_4(DECLARE)
    for (size_t k = 0; k < n; k++) {
        CR_CHAINS_4(HOLD)
        CR_CHAINS_4(STEP)
        CR_CHAINS_4(HOLD_RESULT)
    }
#undef DECLARE
#undef HOLD
#undef STEP
#undef HOLD_RESULT
    return (double)n * 4 * LANES_N;
}

#if LANES_N == 4
static double mul_loop(size_t n)
{
#define DECLARE(i) uint64_t x##i = i + 3;
#define STEP(i)                                                                                                        \
    {                                                                                                                  \
        uint64_t y = (uint32_t)x##i * (uint64_t)0xd2511f53u;                                                           \
        __asm__ volatile("" : "+r"(x##i), "+r"(y));                                                                    \
    }
    CR_CHAINS_8(DECLARE)
    for (size_t k = 0; k < n; k++) {
        CR_CHAINS_8(STEP)
    }
#undef DECLARE
#undef STEP
    return (double)n * 8;
}
#else
static double mul_loop(size_t n)
{
    lanes_u by = lanes_splat_u(0xd2511f53u);
#if LANES_N == 16
#define PRODUCT(x) (lanes_u) _mm512_mul_epu32((__m512i)(x), (__m512i)by)
#else
#define PRODUCT(x) (lanes_u) _mm256_mul_epu32((__m256i)(x), (__m256i)by)
#endif
#define DECLARE(i) lanes_u x##i = lanes_splat_u(i + 3);
#define STEP(i) x##i = PRODUCT(x##i);
#define HOLD(i) KEEP(x##i);
    CR_CHAINS_8(DECLARE)
    for (size_t k = 0; k < n; k++) {
        CR_CHAINS_8(STEP)
        CR_CHAINS_8(HOLD)
    }
#undef DECLARE
#undef STEP
#undef HOLD
    return (double)n * 8 * (LANES_N / 2);
}
#endif

static void triad(float *y, const float *x, size_t n)
{
    lanes a = lanes_splat(0.5f);
    for (size_t i = 0; i < n; i += 4 * LANES_N) {
#pragma GCC unroll 4
        for (size_t j = 0; j < 4 * LANES_N; j += LANES_N) {
            lanes_store(y + i + j, a * lanes_load(y + i + j) + lanes_load(x + i + j));
        }
    }
    __asm__ volatile("" : : "r"(y) : "memory");
}

static void triad4(float *y, const float *x, size_t n, size_t apart)
{
    lanes a = lanes_splat(0.5f);
    for (size_t i = 0; i < n; i += 64) {
        for (size_t part = 0; part < 4; part++) {
#pragma GCC unroll 4
            for (size_t j = i; j < i + 64; j += LANES_N) {
                float *at = y + part * apart + j;
                lanes_store(at, a * lanes_load(at) + lanes_load(x + part * apart + j));
            }
        }
    }
    __asm__ volatile("" : : "r"(y) : "memory");
}

static void fill(struct cr_peak_ops *ops)
{
    static const struct cr_peak_ops table = {
        .fma = fma_loop, .exp = exp_loop, .mul = mul_loop, .triad = triad, .triad4 = triad4};
    *ops = table;
}

#endif
