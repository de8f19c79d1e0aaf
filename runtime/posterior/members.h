/* members: M low-rank adapters trained side by side on the same batches, as plain arrays.
 *
 *   h_m = W x + B_m (A_m x), no alpha / r;   loss = mean over members and examples of CE(z_m, y)
 * Source: Muehlematter et al. 2024 (arXiv 2405.14438) and the settings of its experiments: members differ by A_m,
 * B_m = 0.
 *
 * No memory of our own, nothing fails. Probabilities and logits in double, adapters in f32.
 */
#ifndef CR_POSTERIOR_MEMBERS_H
#define CR_POSTERIOR_MEMBERS_H

#include <stddef.h>
#include <stdint.h>

#include "credence/kernels/rng.h"

/* Seed of a member: member 0 has the run's own, and no two of 2^32 members have the same one. A member is the adapter
 * that a run of its own with this seed would start from. */
uint64_t cr_members_seed(uint64_t seed, uint32_t member);

enum cr_members_init {
    CR_MEMBERS_PEFT,   /* uniform in +-1 / sqrt(n_in), bit for bit the adapter of a single run; gain not used */
    CR_MEMBERS_XAVIER, /* uniform in +-gain sqrt(6 / (n_in + rank)); the paper: gain 10 */
    CR_MEMBERS_NORMAL  /* normal with standard deviation gain; the paper's alternative: 0.02 */
};

/* Bound of the uniform ones, standard deviation of NORMAL. */
double cr_members_spread(enum cr_members_init init, double gain, size_t n_in, size_t rank);

/* A (rank x n_in) of one member and tensor; member_seed from cr_members_seed. */
void cr_members_start(const struct cr_rng_ops *ops, enum cr_members_init init, double gain, uint64_t member_seed,
                      uint32_t tensor, size_t rank, size_t n_in, float *a);

/* out = base + spread * normal of each element of `noise`: heads that start near one another, tasks near their mean.
 * out is not base. */
void cr_members_near(const struct cr_rng_ops *ops, const struct cr_noise *noise, const float *base, double spread,
                     size_t n, float *out);

/* The same with `share` of the root mean square of base as spread. */
void cr_members_near_rows(const struct cr_rng_ops *ops, const struct cr_noise *noise, const float *base, double share,
                          size_t n, float *out);

#endif
