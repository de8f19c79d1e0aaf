/* Shared by the encoders of quantize.c and quantize_k.c. */
#ifndef CR_IO_QUANTIZE_PRIVATE_H
#define CR_IO_QUANTIZE_PRIVATE_H

#include <stddef.h>
#include <stdint.h>

/* One block of values into its bytes. */
typedef void cr_quantize_block_fn(const float *x, uint8_t *out);

cr_quantize_block_fn cr_quantize_iq4_nl, cr_quantize_iq4_xs, cr_quantize_q2_k, cr_quantize_q3_k, cr_quantize_q4_k,
    cr_quantize_q5_k, cr_quantize_q6_k;

/* min(max, trunc(value)), 0 for negative values and NaN. */
int cr_quantize_code(float value, int max);

void cr_quantize_put_half(uint8_t *out, float value);

/* The value of largest magnitude, with its sign; the first of equals. */
float cr_quantize_largest(const float *x, size_t n);

#endif
