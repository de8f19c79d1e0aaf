/* philox_case: the Philox blocks of one vector width against the scalar function. The including file has set the
 * target, so that lanes.h is of that width; the check itself is compiled for that target and called only where the
 * CPU has it. */
#ifndef CR_TESTS_PHILOX_CASE_H
#define CR_TESTS_PHILOX_CASE_H

#include "kernels/rng/philox_lanes.h"

/* One run of LANES_N blocks: counter word w of lane i is in[w * LANES_N + i], out likewise. */
static void blocks_at_once(const uint32_t *in, uint32_t *out, const uint32_t key[2])
{
    lanes_u c[4];
    for (size_t w = 0; w < 4; w++) {
        c[w] = lanes_loadu_u(in + w * LANES_N);
    }
    lanes_philox(c, key);
    for (size_t w = 0; w < 4; w++) {
        lanes_storeu_u(out + w * LANES_N, c[w]);
    }
}

#endif
