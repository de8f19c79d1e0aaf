/* units_loops: the calibration loops of one tier. Private to units*.c. */
#ifndef CR_BENCH_UNITS_LOOPS_H
#define CR_BENCH_UNITS_LOOPS_H

#include <stddef.h>

struct cr_bench_loops {
    double (*fma)(size_t n), (*exp)(size_t n), (*mul)(size_t n); /* n times round; return the operations done */
    void (*triad)(float *y, const float *x, size_t n);           /* y = a y + x; n a multiple of 64, 64-byte aligned */
    /* The same at 0, apart, 2 apart, 3 apart, a few lines of each in turn. */
    void (*triad4)(float *y, const float *x, size_t n, size_t apart);
};

const struct cr_bench_loops *cr_bench_loops_scalar(void);
const struct cr_bench_loops *cr_bench_loops_avx2(void);
const struct cr_bench_loops *cr_bench_loops_avx512(void);
double cr_bench_loop_bf16(size_t n);

/* F(0) F(1) ...: chains as separate variables, because compilers leave arrays of vectors in memory. */
#define CR_CHAINS_4(F) F(0) F(1) F(2) F(3)
#define CR_CHAINS_8(F) CR_CHAINS_4(F) F(4) F(5) F(6) F(7)
#define CR_CHAINS_12(F) CR_CHAINS_8(F) F(8) F(9) F(10) F(11)
#define CR_CHAINS_16(F) CR_CHAINS_12(F) F(12) F(13) F(14) F(15)

#endif
