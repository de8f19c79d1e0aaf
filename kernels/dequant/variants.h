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

/* name_row: a row from `name`, which expands one run of 32 values: name(block, number of the run in it, out). */
#define CR_DEQUANT_ROW(name, block, values)                                                                            \
    static void name##_row(const void *row, size_t first, size_t n, float *out)                                        \
    {                                                                                                                  \
        const struct block *blocks = row;                                                                              \
        for (size_t i = first; i < first + n; i += 32) {                                                               \
            name(blocks + i / (values), i % (values) / 32, out + (i - first));                                         \
        }                                                                                                              \
    }

#endif
