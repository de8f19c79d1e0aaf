/* rng: the definition, element by element. */
#include <string.h>

#include "credence/kernels/rng.h"
#include "kernels/common/tiers.h"
#include "kernels/rng/normal_constants.h"

/* The four words of the block that element e shares. */
static void block_words(const struct cr_noise *noise, size_t e, uint32_t out[4])
{
    uint32_t counter[4] = {(uint32_t)(e / CR_RNG_BLOCK * 16 + e % 16), noise->step, noise->sample, noise->tensor};
    cr_philox4x32(counter, noise->key, out);
}

static float poly(const float *c, int degree, float x)
{
    float sum = c[degree];
    for (int i = degree - 1; i >= 0; i--) {
        sum = __builtin_fmaf(sum, x, c[i]);
    }
    return sum;
}

/* Signed radius of word a. */
static float radius(uint32_t a)
{
    static const float q[9] = CR_NORMAL_LOG;
    float u = (float)(int32_t)(a & 0x7fffffffu) + 0.5f, m; /* 2^31 times u */
    int32_t bits;
    memcpy(&bits, &u, sizeof bits);
    bits -= CR_NORMAL_ROOT_HALF + (31 << 23);
    float k = (float)(bits >> 23);
    bits = (bits & 0x7fffff) + CR_NORMAL_ROOT_HALF;
    memcpy(&m, &bits, sizeof m);
    float f = m - 1.0f;
    float r = __builtin_sqrtf(__builtin_fmaf(k, CR_NORMAL_2LN2, f * poly(q, 8, f)));
    return a >> 31 ? -r : r;
}

float cr_normal_at(const struct cr_noise *noise, size_t e)
{
    static const float s[5] = CR_NORMAL_SIN, c[6] = CR_NORMAL_COS;
    uint32_t word[4];
    block_words(noise, e, word);
    unsigned which = (unsigned)(e / 16 % 4);
    float r = radius(word[which & 2u]);
    float t = (float)(int32_t)word[which | 1u] * 0x1p-31f;
    return which & 1u ? r * t * poly(s, 4, t * t) : r * poly(c, 5, t * t);
}

static void normals(const struct cr_noise *noise, float *out, size_t begin, size_t end)
{
    for (size_t e = begin; e < end; e++) {
        out[e] = cr_normal_at(noise, e);
    }
}

static void words(const struct cr_noise *noise, uint32_t *out, size_t begin, size_t end)
{
    for (size_t e = begin; e < end; e++) {
        uint32_t word[4];
        block_words(noise, e, word);
        out[e] = word[e / 16 % 4];
    }
}

static void fill(struct cr_rng_ops *ops)
{
    static const struct cr_rng_ops table = {.normals = normals, .words = words};
    *ops = table;
}

CR_TIER_VARIANT(rng, ref)
