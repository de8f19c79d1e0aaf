/* The adapter of one projection, as the model consumes it: y += scale * B (A drop(x)). Plain pointers, all borrowed. */
#ifndef CR_LORA_H
#define CR_LORA_H

#include <stdint.h>

struct cr_lora {
    float *a, *b;           /* A [rank][n_in], B [n_out][rank], row-major; rows of B in the model file's order */
    float *grad_a, *grad_b; /* same shapes, added to; NULL when not training */
    uint32_t rank;          /* 0 = this projection is not adapted */
    uint32_t n_in, n_out;
    uint32_t tensor_id;     /* layer * 7 + projection: stream of its random draws */
    float scale;            /* alpha / rank */
};

#endif
