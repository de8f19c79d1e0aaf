/* rng: counter-based random numbers. Any element's draw is recomputed anywhere, in any order.
 *
 * Philox4x32-10 (Salmon et al. 2011). Known answers: counter 0, key 0 gives 6627e8d5 e169c58d bc57ac4c 9b00dbd8.
 */
#ifndef CREDENCE_KERNELS_RNG_H
#define CREDENCE_KERNELS_RNG_H

#include <stddef.h>
#include <stdint.h>

#include "credence/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* One block: four words for (counter, key). */
CR_API void cr_philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

/* out[i] = low + (high - low) * (u + 0.5) / 2^24, u the top 24 bits of word i % 4 of counter (i / 4, 0, 0, 0);
 * in double, rounded once (so `high` itself can occur). */
CR_API void cr_uniform_f32(const uint32_t key[2], float low, float high, float *out, size_t n);

/* Permutation of 0 ... n-1 (n <= 2^32) by Fisher-Yates with unbiased draws from (key, epoch). Its counters have a last
 * word other than 0: the key may serve cr_uniform_f32 too. */
CR_API void cr_permutation(const uint32_t key[2], uint32_t epoch, uint32_t *out, size_t n);

#ifdef __cplusplus
}
#endif
#endif
