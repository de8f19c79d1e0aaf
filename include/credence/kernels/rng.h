/* rng: counter-based random numbers. Any element's draw is recomputed anywhere, in any order.
 *
 * Philox4x32-10 (Salmon et al. 2011). Known answers: counter 0, key 0 gives 6627e8d5 e169c58d bc57ac4c 9b00dbd8.
 *
 * Element streams (cr_rng_ops): element e of a struct cr_noise owns one word, word (e / 16) % 4 of the block whose
 * counter is (e / 64 * 16 + e % 16, step, sample, tensor). Sixteen counters give 64 elements, so lanes are counters and
 * nothing is moved between lanes. e < 2^34.
 *
 *   words    out[e] = that word
 *   normals  Box and Muller (1958): elements e and e + 16 with (e / 16) % 2 == 0 share a pair of words (a, b),
 *              r = sqrt(-2 ln u), u = (a mod 2^31 + 1/2) 2^-31;  theta = pi b / 2^32, b signed;  minus if a >= 2^31
 *              out[e] = +-r cos(theta),  out[e + 16] = +-r sin(theta)
 *            in f32 with fused multiply-add, square root and polynomials only, each correctly rounded and in a fixed
 *            order: the same bits on every tier and in portable C. Finite, below 6.67.
 *            |out - exact| <= 2^-22 |r| + min(2^-12, 2^-24 / |r|); the second part is u in f32, where u > 1/2.
 *
 * Range: elements [begin, end), any bounds: out[e] for e in the range is written and nothing else. Same bits for any
 * split. out is indexed by element, any alignment.
 */
#ifndef CREDENCE_KERNELS_RNG_H
#define CREDENCE_KERNELS_RNG_H

#include <stddef.h>
#include <stdint.h>

#include "credence/cpu.h"

#ifdef __cplusplus
extern "C" {
#endif

/* One block: four words for (counter, key). */
CR_API void cr_philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

/* out[i] = low + (high - low) * (u + 0.5) / 2^24, u the top 24 bits of word i % 4 of counter (i / 4, 0, 0, 0);
 * in double, rounded once (so `high` itself can occur). n <= 2^34, not checked: beyond that the numbers repeat. */
CR_API void cr_uniform_f32(const uint32_t key[2], float low, float high, float *out, size_t n);

/* Permutation of 0 ... n-1 by Fisher-Yates with unbiased draws from (key, epoch). n < 2^32, not checked: out would be
 * no permutation. Its counters have a last word other than 0: the key may serve cr_uniform_f32 too. */
CR_API void cr_permutation(const uint32_t key[2], uint32_t epoch, uint32_t *out, size_t n);

enum { CR_RNG_BLOCK = 64 };

/* One stream of numbers: (seed, purpose) in the key; optimiser step, posterior sample and tensor in the counter.
 * cr_uniform_f32 and cr_permutation use counters (i, 0, 0, 0) and (i, i, epoch, "perm") of their keys: give streams a
 * key of their own. */
struct cr_noise {
    uint32_t key[2], step, sample, tensor;
};

/* Normal of element e, one by one: the definition. */
CR_API float cr_normal_at(const struct cr_noise *noise, size_t e);

typedef void cr_rng_normals_fn(const struct cr_noise *noise, float *out, size_t begin, size_t end);
typedef void cr_rng_words_fn(const struct cr_noise *noise, uint32_t *out, size_t begin, size_t end);

struct cr_rng_ops {
    cr_rng_normals_fn *normals;
    cr_rng_words_fn *words;
};

CR_API cr_status cr_rng_ops_init(struct cr_rng_ops *ops, enum cr_tier tier);

/* Checked entries: the call when the arguments are sound, else CR_E_USAGE, a message and nothing touched. */
CR_API cr_status cr_rng_normals_checked(const struct cr_rng_ops *ops, const struct cr_noise *noise, float *out,
                                        size_t begin, size_t end, struct cr_error *err);
CR_API cr_status cr_rng_words_checked(const struct cr_rng_ops *ops, const struct cr_noise *noise, uint32_t *out,
                                      size_t begin, size_t end, struct cr_error *err);

#ifdef __cplusplus
}
#endif
#endif
