/* lanes_transpose: sixteen lines of sixteen lanes, turned. Bits move, nothing is computed. */
#ifndef CR_COMMON_LANES_TRANSPOSE_H
#define CR_COMMON_LANES_TRANSPOSE_H

#include "credence/kernels/tl16.h"
#include "kernels/common/lanes.h"

/* Exchanges, between lines i and i + h, the lanes whose index differs in bit h; done for every h it transposes. */
#define CR_EXCHANGE(h, low, high)                                                                                      \
    for (int i = 0; i < LANES_N; i++) {                                                                                \
        if ((i & (h)) == 0) {                                                                                          \
            lanes a = v[i], b = v[i + (h)];                                                                            \
            v[i] = __builtin_shufflevector(a, b, low);                                                                 \
            v[i + (h)] = __builtin_shufflevector(a, b, high);                                                          \
        }                                                                                                              \
    }
#if LANES_N == 16
#define CR_LOW_8 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23
#define CR_HIGH_8 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31
#define CR_LOW_4 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27
#define CR_HIGH_4 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31
#define CR_LOW_2 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29
#define CR_HIGH_2 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31
#define CR_LOW_1 0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30
#define CR_HIGH_1 1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31
#elif LANES_N == 8
#define CR_LOW_4 0, 1, 2, 3, 8, 9, 10, 11
#define CR_HIGH_4 4, 5, 6, 7, 12, 13, 14, 15
#define CR_LOW_2 0, 1, 8, 9, 4, 5, 12, 13
#define CR_HIGH_2 2, 3, 10, 11, 6, 7, 14, 15
#define CR_LOW_1 0, 8, 2, 10, 4, 12, 6, 14
#define CR_HIGH_1 1, 9, 3, 11, 5, 13, 7, 15
#else
#define CR_LOW_2 0, 1, 4, 5
#define CR_HIGH_2 2, 3, 6, 7
#define CR_LOW_1 0, 4, 2, 6
#define CR_HIGH_1 1, 5, 3, 7
#endif

/* out[i][j] = in[j][i] for a square of LANES_N lanes inside lines of sixteen. */
CR_INLINE void transpose_square(const float *in, float *out)
{
    lanes v[LANES_N];
#pragma GCC unroll 16
    for (int i = 0; i < LANES_N; i++) {
        v[i] = lanes_load(in + i * CR_LANES);
    }
#if LANES_N == 16
#pragma GCC unroll 16
    CR_EXCHANGE(8, CR_LOW_8, CR_HIGH_8)
#endif
#if LANES_N >= 8
#pragma GCC unroll 16
    CR_EXCHANGE(4, CR_LOW_4, CR_HIGH_4)
#endif
#pragma GCC unroll 16
    CR_EXCHANGE(2, CR_LOW_2, CR_HIGH_2)
#pragma GCC unroll 16
    CR_EXCHANGE(1, CR_LOW_1, CR_HIGH_1)
#pragma GCC unroll 16
    for (int i = 0; i < LANES_N; i++) {
        lanes_store(out + i * CR_LANES, v[i]);
    }
}

/* out = in transposed, both sixteen lines of sixteen lanes. */
static void transpose_tile(const float *in, float *out)
{
    for (int row = 0; row < CR_LANES; row += LANES_N) {
        for (int column = 0; column < CR_LANES; column += LANES_N) {
            transpose_square(in + row * CR_LANES + column, out + column * CR_LANES + row);
        }
    }
}

#endif
