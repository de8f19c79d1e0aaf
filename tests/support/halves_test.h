/* halves_test: the scale and the minimum of a block of a quantised type. Their places are written down here apart from
 * kernels/common/halves.h, which the tests judge. */
#ifndef CR_TESTS_HALVES_TEST_H
#define CR_TESTS_HALVES_TEST_H

#include <stdint.h>
#include <string.h>

#include "credence/kernels/dequant.h"

/* The first into the scale; the second into the minimum, of types that have one. */
static inline void cr_put_halves(int type, unsigned char *block, const uint16_t halves[2])
{
    switch (type) {
    case CR_Q_Q2_K:
        memcpy(block + 80, halves, 4);
        break;
    case CR_Q_Q3_K:
        memcpy(block + 108, halves, 2);
        break;
    case CR_Q_Q6_K:
        memcpy(block + 208, halves, 2);
        break;
    case CR_Q_Q4_1:
    case CR_Q_Q5_1:
    case CR_Q_Q4_K:
    case CR_Q_Q5_K:
        memcpy(block, halves, 4);
        break;
    default:
        memcpy(block, halves, 2);
        break;
    }
}

#endif
