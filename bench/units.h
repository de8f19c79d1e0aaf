/* units: what a kernel is measured against. One burst of some tenths of a millisecond of nothing but a unit's own
 * instruction, or of one plain loop over memory of a given level, on every thread in use.
 *
 *   FMA   f32 multiply-adds, two operations each; on CPUs without the instruction a product and a sum
 *   BF16  VDPBF16PS on 512 bits: 64 operations each
 *   TILE  TDPBF16PS: 16,384 operations each
 *   EXP   kernels/common/lanes_math.h: one operation an exponential
 *   NORMAL  normals of credence/kernels/rng.h: one operation each
 *   MUL   products of two 32-bit integers with all 64 bits: one operation each
 *   L1, L2, L3, DRAM   bytes of y = a y + x, two reads and a write, in the widest vectors of this CPU. Arrays of half
 *         of the first and second level and of a quarter of the third (shares of it with several threads); DRAM walks
 *         on through arrays four times the third level, so that no burst finds what an earlier one left
 *   CLOCK cycles, by a chain of integer products of three cycles each
 */
#ifndef CR_BENCH_UNITS_H
#define CR_BENCH_UNITS_H

#include <stddef.h>

#include "credence/cpu.h"

#ifdef __cplusplus
extern "C" {
#endif

enum cr_bench_unit {
    CR_UNIT_NONE,
    CR_UNIT_FMA_SCALAR, /* of the portable build: 128 bits */
    CR_UNIT_FMA_AVX2,
    CR_UNIT_FMA_AVX512,
    CR_UNIT_FMA_NEON,
    CR_UNIT_BF16,
    CR_UNIT_TILE,
    CR_UNIT_EXP_SCALAR,
    CR_UNIT_EXP_AVX2,
    CR_UNIT_EXP_AVX512,
    CR_UNIT_EXP_NEON,
    CR_UNIT_MUL_SCALAR,
    CR_UNIT_MUL_AVX2,
    CR_UNIT_MUL_AVX512,
    CR_UNIT_MUL_NEON,
    CR_UNIT_NORMAL_SCALAR,
    CR_UNIT_NORMAL_AVX2,
    CR_UNIT_NORMAL_AVX512,
    CR_UNIT_NORMAL_NEON,
    CR_UNIT_L1,
    CR_UNIT_L2,
    CR_UNIT_L3,
    CR_UNIT_DRAM,
    CR_UNIT_CLOCK,
    CR_UNITS
};

/* What multiplies bf16 on a tier. CR_UNIT_NONE on Arm: no loop here reaches the peak of BFMMLA. */
enum cr_bench_unit cr_bench_bf16(enum cr_tier tier);

/* The unit of a tier's lanes; of every NEON tier the 128-bit one. */
enum cr_bench_unit cr_bench_fma(enum cr_tier tier);
enum cr_bench_unit cr_bench_exp(enum cr_tier tier);
enum cr_bench_unit cr_bench_mul(enum cr_tier tier);
enum cr_bench_unit cr_bench_normals(enum cr_tier tier);

/* The level that holds so many bytes together with what else a caller keeps there. */
enum cr_bench_unit cr_bench_level(double n_bytes);

/* Operations a second of one burst, all threads together. 0 for CR_UNIT_NONE and units that this CPU lacks. Every
 * burst is remembered for cr_bench_typical. */
double cr_bench_peak(enum cr_bench_unit unit);

/* Median of the bursts so far; makes some when there are none. */
double cr_bench_typical(enum cr_bench_unit unit);

/* The value below which a share of n values lies; they are sorted in place. 0 when there are none. */
double cr_bench_quantile(double *values, size_t n, double share);

/* "f32 FMA, AVX-512", ... Static storage. */
const char *cr_bench_unit_name(enum cr_bench_unit unit);

/* Seconds: processor time of this thread while one thread runs everything, since neighbours' time is not its own; the
 * clock on the wall with several. */
double cr_bench_now(void);

/* Before any of the above: sizes of caches and tiers to use. */
void cr_bench_units_init(const struct cr_cpu *cpu);

#ifdef __cplusplus
}
#endif
#endif
