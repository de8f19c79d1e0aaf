/* The adapter of one projection, as the model consumes it: y += scale * B (A drop(x)). Plain pointers, all borrowed. */
#ifndef CR_LORA_H
#define CR_LORA_H

#include "credence/kernels/qgemm.h"

struct cr_lora {
    float *a, *b;              /* A [rank][n_in], B [n_out][rank], row-major; rows of B in the model file's order */
    float *grad_a, *grad_b;    /* same shapes, added to; NULL when not training */
    float *noise, *grad_noise; /* [rank][n_in] beside A with signs of every token's own (flipout); NULL = none */
    uint32_t rank;             /* 0 = this projection is not adapted */
    uint32_t n_in, n_out;
    uint32_t tensor_id; /* layer * 7 + projection: stream of its random draws */
    float scale;        /* alpha / rank */
};

/* One adapter of several whose tokens share a pass over the frozen matrix: an ensemble, tasks, posterior samples. Token
 * blocks [begin, end) of the batch are its own; a member begins on a block of its own. U and V of all members lie in
 * one buffer, strided for the largest rank. Per pass over W one call of qgemm serves all (cr_lora_terms gives its
 * members); the products of kernels/lowrank take one call for each member, with their pointers moved to its first
 * block.
 */
struct cr_lora_member {
    struct cr_lora lora;
    size_t begin, end;
};

/* The terms B U (forward) or A^T V (backward) of n members, for cr_qgemm_args. A member of rank 0 has none. */
static inline void cr_lora_terms(const struct cr_lora_member *members, size_t n, int backward,
                                 struct cr_qgemm_member *terms)
{
    for (size_t i = 0; i < n; i++) {
        const struct cr_lora *lora = &members[i].lora;
        const float *p = backward ? lora->a : lora->b;
        terms[i] = (struct cr_qgemm_member){.begin = members[i].begin,
                                            .end = members[i].end,
                                            .p = lora->rank > 0 ? p : NULL,
                                            .p_os = backward ? 1 : lora->rank,
                                            .p_rs = backward ? lora->n_in : 1,
                                            .rank = lora->rank};
    }
}

#endif
