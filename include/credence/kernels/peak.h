/* peak: loops of nothing but one unit's own instruction, or of one plain pass over memory: what a kernel's speed is
 * measured against. They are for reports; no variant is ever chosen by a timing.
 *
 *   fma   f32 multiply-adds in as many independent chains as hide their latency, all in registers
 *   exp   exponentials as the kernels compute them
 *   mul   products of two 32-bit integers with all 64 bits
 *   dot   VDPBF16PS on 512 bits; NULL on tiers without it
 *   tile  TDPBF16PS on tiles of 16 x 16 x 32; NULL on tiers without it
 * Each goes round n times and returns the operations done: a multiply-add is two, a VDPBF16PS 64, a TDPBF16PS 16,384, the
 * others one a lane.
 *
 *   triad   y = a y + x over n floats, n a multiple of 64, both 64-byte aligned
 *   triad4  the same at 0, apart, 2 apart, 3 apart, a few lines of each in turn: prefetchers stop at the end of a page
 */
#ifndef CREDENCE_KERNELS_PEAK_H
#define CREDENCE_KERNELS_PEAK_H

#include <stddef.h>

#include "credence/cpu.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef double cr_peak_fn(size_t n);
typedef void cr_peak_triad_fn(float *y, const float *x, size_t n);
typedef void cr_peak_triad4_fn(float *y, const float *x, size_t n, size_t apart);

struct cr_peak_ops {
    cr_peak_fn *fma, *exp, *mul, *dot, *tile;
    cr_peak_triad_fn *triad;
    cr_peak_triad4_fn *triad4;
};

CR_API cr_status cr_peak_ops_init(struct cr_peak_ops *ops, enum cr_tier tier);

#ifdef __cplusplus
}
#endif
#endif
