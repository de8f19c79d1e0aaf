/* halves: where the half-precision scales stand in a block of each quantised type. */
#ifndef CR_COMMON_HALVES_H
#define CR_COMMON_HALVES_H

#include <stddef.h>

#include "credence/kernels/dequant.h"
#include "kernels/common/blocks.h"

struct cr_qtype_halves {
    unsigned at, n; /* byte of the first; how many, one behind the other: the scale, and of some types the minimum */
};

/* n = 0 for types whose blocks are single values, and for those that do not compute. */
static inline struct cr_qtype_halves cr_qtype_halves(int type)
{
    switch (type) {
    case CR_Q_Q4_0:
    case CR_Q_IQ4_NL:
        return (struct cr_qtype_halves){offsetof(struct cr_block_q4_0, d), 1};
    case CR_Q_Q4_1:
        return (struct cr_qtype_halves){offsetof(struct cr_block_q4_1, d), 2};
    case CR_Q_Q5_0:
        return (struct cr_qtype_halves){offsetof(struct cr_block_q5_0, d), 1};
    case CR_Q_Q5_1:
        return (struct cr_qtype_halves){offsetof(struct cr_block_q5_1, d), 2};
    case CR_Q_Q8_0:
        return (struct cr_qtype_halves){offsetof(struct cr_block_q8_0, d), 1};
    case CR_Q_Q2_K:
        return (struct cr_qtype_halves){offsetof(struct cr_block_q2_k, d), 2};
    case CR_Q_Q3_K:
        return (struct cr_qtype_halves){offsetof(struct cr_block_q3_k, d), 1};
    case CR_Q_Q4_K:
        return (struct cr_qtype_halves){offsetof(struct cr_block_q4_k, d), 2};
    case CR_Q_Q5_K:
        return (struct cr_qtype_halves){offsetof(struct cr_block_q5_k, d), 2};
    case CR_Q_Q6_K:
        return (struct cr_qtype_halves){offsetof(struct cr_block_q6_k, d), 1};
    case CR_Q_IQ4_XS:
        return (struct cr_qtype_halves){offsetof(struct cr_block_iq4_xs, d), 1};
    default:
        return (struct cr_qtype_halves){0, 0};
    }
}

#endif
