/* tl16_test: single numbers of TL16 buffers of either operand type, and the double precision unit of their rounding. */
#ifndef CR_TESTS_TL16_TEST_H
#define CR_TESTS_TL16_TEST_H

#include "kernels/common/half.h"
#include "credence/kernels/tl16.h"
#include "tests/support/kernel_test.h"

/* Unit roundoff of f32 and of bf16. */
#define CR_U32 0x1p-24
#define CR_UBF16 0x1p-8

static inline double cr_unit_of(enum cr_xtype type)
{
    return type == CR_X_BF16 ? CR_UBF16 : 0;
}

static inline float cr_tl16_get(const void *buffer, enum cr_xtype type, size_t stride_bytes, size_t block,
                                size_t feature, size_t lane)
{
    const char *base = (const char *)buffer + block * stride_bytes;
    if (type == CR_X_BF16) {
        return cr_bf16_to_f32(((const uint16_t *)(const void *)base)[cr_tl16_bf16(feature, lane)]);
    }
    return ((const float *)(const void *)base)[cr_tl16_f32(feature, lane)];
}

static inline void cr_tl16_put(void *buffer, enum cr_xtype type, size_t stride_bytes, size_t block, size_t feature,
                               size_t lane, float value)
{
    char *base = (char *)buffer + block * stride_bytes;
    if (type == CR_X_BF16) {
        ((uint16_t *)(void *)base)[cr_tl16_bf16(feature, lane)] = cr_f32_to_bf16(value);
    } else {
        ((float *)(void *)base)[cr_tl16_f32(feature, lane)] = value;
    }
}

/* A guarded f32 TL16 buffer with random numbers in [low, high) everywhere. */
static inline float *cr_tl16_random(struct cr_rng *rng, size_t n_blocks, size_t n_features, float low, float high)
{
    size_t n = n_blocks * n_features * CR_LANES;
    float *x = cr_guard_alloc(n * sizeof *x, 64, CR_AT_END);
    cr_fill_f32(rng, x, n, low, high);
    return x;
}

#endif
