/* qgemm on 512-bit f32 FMA, 8 x 48 micro-tile. Same chain of operations as avx2, so the same bits. */
#ifndef __AVX512VL__
#error "compile with the flags of the avx512 tier"
#endif

#include <immintrin.h>

#include "kernels/qgemm/variants.h"

static inline __attribute__((always_inline)) __m512 product(__m512 acc, __m512 w, __m512 x)
{
    return _mm512_fmadd_ps(w, x, acc);
}

#include "kernels/qgemm/tile512.h"

#define DEQUANT_TIER CR_TIER_AVX512
#include "kernels/qgemm/pack_f32.h"

enum { ELEMENT_BYTES = 4, SLAB_MAX = SLAB512_MAX };
#include "kernels/qgemm/drive.h"

void cr_qgemm_fwd_avx512(const struct cr_qgemm_args *args, size_t begin, size_t end, void *scratch)
{
    drive(args, begin, end, scratch, false);
}

void cr_qgemm_dx_avx512(const struct cr_qgemm_args *args, size_t begin, size_t end, void *scratch)
{
    drive(args, begin, end, scratch, true);
}
