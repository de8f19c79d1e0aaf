/* material: random inputs in the layouts of the kernels, and comparison of single numbers. */
#ifndef CR_BENCH_MATERIAL_H
#define CR_BENCH_MATERIAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "credence/kernels/tl16.h"
#include "credence/kernels/qgemm.h"

/* One stream of numbers for all entries: an entry's own do not depend on which ones ran before it, because
 * cr_bench_reseed stands at the start of every open. */
void cr_bench_reseed(void);
uint64_t cr_bench_bits(void);
size_t cr_bench_below(size_t n);
float cr_bench_uniform(float low, float high);

/* Filled memory of cr_bench_memory. */
float *cr_bench_floats(size_t n, float low, float high);
/* A TL16 operand of so many features and token blocks, blocks one behind the other, values in [-1, 1]. */
void *cr_bench_operand(enum cr_xtype type, size_t n_features, size_t n_blocks);
/* A matrix of GGUF blocks of `type`: random codes, moderate scales. */
struct cr_qmat cr_bench_qmat(int type, size_t n_rows, size_t n_cols);
/* Bytes of so many values of a type. */
size_t cr_bench_qbytes(int type, size_t n_values);
/* Its name in small letters, as entries spell it. */
void cr_bench_qname(int type, char name[16]);

/* (feature, lane) of a token block of an operand as cr_bench_operand lays it out. */
double cr_bench_operand_at(const void *operand, enum cr_xtype type, size_t n_features, size_t block, size_t feature,
                           size_t lane);
/* "f32" or "bf16" */
const char *cr_bench_xname(enum cr_xtype type);

/* What rounding to a type may add, relative. */
double cr_bench_unit_of(enum cr_xtype type);

/* True when |got - want| <= bound; else a line in message. NaN is never near. */
bool cr_bench_near(const char *what, size_t at, double got, double want, double bound, char *message,
                   size_t message_bytes);

#endif
