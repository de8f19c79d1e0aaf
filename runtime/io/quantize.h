/* f32 rows to GGUF blocks, for tests and merged models. The inverse is kernels/dequant.
 *
 * Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 F16 BF16 F32 follow the ggml reference formulas bit for bit:
 *   Q4_0  d = (value of largest magnitude, signed) / -8    code = min(15, trunc(x/d + 8.5))
 *   Q5_0  d = (the same) / -16                             code = min(31, trunc(x/d + 16.5))
 *   Q4_1  d = (max - min)/15, m = min                      code = min(15, trunc((x - min)/d + 0.5))
 *   Q5_1  d = (max - min)/31, m = min                      code = trunc((x - min)/d + 0.5)
 *   Q8_0  d = max|x|/127                                   code = x/d rounded, halves away from zero
 * with the f32 d in the quotient (as product with 1/d), stored as half. Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS have
 * no bit-exact definition: here every sub-block scale comes from its range and every code is the nearest level.
 * Magnitudes that a half cannot hold become infinite scales: callers keep weights below 65504 * levels.
 * NaN in gives unspecified codes, never an access outside the buffers.
 */
#ifndef CR_IO_QUANTIZE_H
#define CR_IO_QUANTIZE_H

#include <stdbool.h>
#include <stddef.h>

/* x: n floats, n a multiple of the type's block; out: n / block_values * block_bytes bytes, any alignment.
 * False (nothing written) for a type without an encoder or a wrong n. */
bool cr_quantize_row(int type, const float *x, size_t n, void *out);

#endif
