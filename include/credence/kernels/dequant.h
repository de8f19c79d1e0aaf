/* dequant: the value of every GGUF block type, as one function of the stored block.
 *
 * v(block, i) is the exact real number of the type's formula, rounded once to f32 (to nearest even). For all types
 * served every product inside the formula is exact in f32, so one rounding at the end is what plain f32 gives.
 * Blocks are not checked: a scale or minimum that is infinite or NaN makes infinities and NaN of the values it enters,
 * and with them of the products of the rows they lie in.
 * No aliasing: out overlaps no block that the call reads.
 */
#ifndef CREDENCE_KERNELS_DEQUANT_H
#define CREDENCE_KERNELS_DEQUANT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "credence/cpu.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ggml type ids */
enum cr_qtype {
    CR_Q_F32 = 0,
    CR_Q_F16 = 1,
    CR_Q_Q4_0 = 2,
    CR_Q_Q4_1 = 3,
    CR_Q_Q5_0 = 6,
    CR_Q_Q5_1 = 7,
    CR_Q_Q8_0 = 8,
    CR_Q_Q2_K = 10,
    CR_Q_Q3_K = 11,
    CR_Q_Q4_K = 12,
    CR_Q_Q5_K = 13,
    CR_Q_Q6_K = 14,
    CR_Q_IQ4_NL = 20,
    CR_Q_IQ4_XS = 23,
    CR_Q_BF16 = 30
};

struct cr_qtype_info {
    const char *name; /* "Q4_K" */
    int type;
    size_t block_values; /* 1, 32 or 256 for types that compute; others also 64 or 128; 0 for removed ones */
    size_t block_bytes;
    bool computes; /* this library multiplies with it */
    bool removed;  /* an id that the format has withdrawn */
};

/* NULL for an id that is no ggml type. Types known but not served have computes = false and the right sizes. */
CR_API const struct cr_qtype_info *cr_qtype_info(int type);

/* Values [first, first + n) of a row into out as f32. first and n are multiples of 32; types with one-value blocks too.
 */
typedef void cr_dequant_fn(const void *row, size_t first, size_t n, float *out);

/* The function of `tier` for a served type; NULL for a type that does not compute. */
CR_API cr_dequant_fn *cr_dequant_fn_for(int type, enum cr_tier tier);

/* Checked entry: cr_dequant_fn_for and the call when the arguments are sound, else CR_E_USAGE, a message and nothing
 * touched. */
CR_API cr_status cr_dequant_checked(int type, enum cr_tier tier, const void *row, size_t first, size_t n, float *out,
                                    struct cr_error *err);

#ifdef __cplusplus
}
#endif
#endif
