/* peak for VDPBF16PS: sixteen independent chains. */
#include <immintrin.h>

#include "kernels/peak/chains.h"
#include "kernels/peak/variants.h"

double cr_peak_dot_avx512_bf16(size_t n)
{
    __m512bh a = (__m512bh)_mm512_set1_epi32(0x3f003f00), b = (__m512bh)_mm512_set1_epi32((int)0xbf003f00u);
#define DECLARE(i) __m512 c##i = _mm512_set1_ps((float)i);
#define STEP(i) c##i = _mm512_dpbf16_ps(c##i, a, b);
#define HOLD(i) __asm__ volatile("" : "+v"(c##i));
    CR_CHAINS_16(DECLARE)
    for (size_t k = 0; k < n; k++) {
        CR_CHAINS_16(STEP)
        CR_CHAINS_16(STEP)
        CR_CHAINS_16(HOLD)
    }
#undef DECLARE
#undef STEP
#undef HOLD
    return (double)n * 2 * 16 * 64;
}
