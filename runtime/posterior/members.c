#include "runtime/posterior/members.h"

#include <math.h>

#include "credence/kernels/math.h"

/* Purpose of the normals in the key; odd step between seeds (2^32 / golden ratio), which no small difference meets. */
enum { NORMAL_STREAM = 0x6d656d62 };
#define SEED_STEP 0x9e3779b9u

uint64_t cr_members_seed(uint64_t seed, uint32_t member)
{
    uint32_t low = (uint32_t)seed + member * SEED_STEP;
    return (seed & ~UINT64_C(0xffffffff)) | low;
}

double cr_members_spread(enum cr_members_init init, double gain, size_t n_in, size_t rank)
{
    if (init == CR_MEMBERS_NORMAL) {
        return gain;
    }
    /* The plain adapter's bound is made in f32: so is this one. */
    return init == CR_MEMBERS_PEFT ? (double)(1.0f / sqrtf((float)n_in)) : gain * sqrt(6 / (double)(n_in + rank));
}

void cr_members_start(const struct cr_rng_ops *ops, enum cr_members_init init, double gain, uint64_t member_seed,
                      uint32_t tensor, size_t rank, size_t n_in, float *a)
{
    float spread = (float)cr_members_spread(init, gain, n_in, rank);
    uint32_t low = (uint32_t)member_seed, high = (uint32_t)(member_seed >> 32);
    if (init != CR_MEMBERS_NORMAL) {
        cr_uniform_f32((const uint32_t[2]){low, tensor ^ high}, -spread, spread, a, rank * n_in);
        return;
    }
    struct cr_noise noise = {.key = {low, high ^ (uint32_t)NORMAL_STREAM}, .tensor = tensor};
    ops->normals(&noise, a, 0, rank * n_in);
    for (size_t i = 0; i < rank * n_in; i++) {
        a[i] *= spread;
    }
}

void cr_members_near(const struct cr_rng_ops *ops, const struct cr_noise *noise, const float *base, double spread,
                     size_t n, float *out)
{
    ops->normals(noise, out, 0, n);
    for (size_t i = 0; i < n; i++) {
        out[i] = (float)((double)base[i] + spread * (double)out[i]);
    }
}

void cr_members_near_rows(const struct cr_rng_ops *ops, const struct cr_noise *noise, const float *base, double share,
                          size_t n, float *out)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        sum += (double)base[i] * (double)base[i];
    }
    cr_members_near(ops, noise, base, n > 0 ? share * sqrt(sum / (double)n) : 0, n, out);
}
