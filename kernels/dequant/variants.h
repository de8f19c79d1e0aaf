/* variants: the tier files of dequant. Each is a table of functions by type, NULL where it has none. */
#ifndef CR_DEQUANT_VARIANTS_H
#define CR_DEQUANT_VARIANTS_H

#include "credence/kernels/dequant.h"

/* Ids of served types are below this. */
enum { CR_DEQUANT_TYPES = CR_Q_BF16 + 1 };

extern cr_dequant_fn *const cr_dequant_ref[CR_DEQUANT_TYPES];
extern cr_dequant_fn *const cr_dequant_avx2[CR_DEQUANT_TYPES];
extern cr_dequant_fn *const cr_dequant_avx512[CR_DEQUANT_TYPES];
extern cr_dequant_fn *const cr_dequant_neon[CR_DEQUANT_TYPES];

/* Types stored in blocks, as X(function, type id, block, values): those that every tier expands, and all. */
#define CR_DEQUANT_COMMON(X)                                                                                           \
    X(q4_0, Q4_0, cr_block_q4_0, 32)                                                                                   \
    X(q4_1, Q4_1, cr_block_q4_1, 32)                                                                                   \
    X(q5_0, Q5_0, cr_block_q5_0, 32)                                                                                   \
    X(q5_1, Q5_1, cr_block_q5_1, 32)                                                                                   \
    X(q8_0, Q8_0, cr_block_q8_0, 32)                                                                                   \
    X(iq4_nl, IQ4_NL, cr_block_q4_0, 32)                                                                               \
    X(q4_k, Q4_K, cr_block_q4_k, 256)                                                                                  \
    X(q5_k, Q5_K, cr_block_q5_k, 256)                                                                                  \
    X(q6_k, Q6_K, cr_block_q6_k, 256)
#define CR_DEQUANT_BLOCKS(X)                                                                                           \
    CR_DEQUANT_COMMON(X)                                                                                               \
    X(q2_k, Q2_K, cr_block_q2_k, 256)                                                                                  \
    X(q3_k, Q3_K, cr_block_q3_k, 256)                                                                                  \
    X(iq4_xs, IQ4_XS, cr_block_iq4_xs, 256)

/* name_row: a row from `name`, which expands one run of 32 values: name(block, number of the run in it, out). */
#define CR_DEQUANT_ROW(name, id, block, values)                                                                        \
    static void name##_row(const void *row, size_t first, size_t n, float *out)                                        \
    {                                                                                                                  \
        const struct block *blocks = row;                                                                              \
        for (size_t i = first; i < first + n; i += 32) {                                                               \
            name(blocks + i / (values), i % (values) / 32, out + (i - first));                                         \
        }                                                                                                              \
    }

/* Its place in a tier's table. */
#define CR_DEQUANT_ENTRY(name, id, block, values) [CR_Q_##id] = name##_row,

#endif
