/* cast: the template of all tiers. */
#ifndef CR_CAST_LANES_H
#define CR_CAST_LANES_H

#include "credence/kernels/cast.h"
#include "kernels/common/lanes.h"
#include "kernels/common/tiers.h"

static void to_bf16(const struct cr_cast_args *args, size_t begin, size_t end)
{
    size_t n_words = args->n_features / 2 * CR_LANES;
    for (size_t block = begin; block < end; block++) {
        const float *x = args->f32 + block * args->f32_stride;
        uint32_t *out = (uint32_t *)(void *)((char *)args->bf16 + block * args->bf16_stride);
        for (size_t i = 0; i < n_words; i += CR_LANES) {
            for (size_t col = 0; col < CR_LANES; col += LANES_N) {
                lanes even = lanes_load(x + 2 * i + col);
                lanes odd = lanes_load(x + 2 * i + CR_LANES + col);
                lanes_store_u(out + i + col, lanes_pack_bf16(even, odd));
            }
        }
    }
}

/* A signalling NaN of the source becomes quiet, as in every other conversion. */
CR_INLINE lanes quiet(lanes x)
{
    lanes_i nan = lanes_greater_i((lanes_i)(lanes_bits(x) & 0x7fffffffu), lanes_splat_i(0x7f800000));
    return lanes_from_bits(lanes_bits(x) | ((lanes_u)nan & 0x400000u));
}

static void from_bf16(const struct cr_cast_args *args, size_t begin, size_t end)
{
    size_t n_words = args->n_features / 2 * CR_LANES;
    for (size_t block = begin; block < end; block++) {
        float *out = args->f32 + block * args->f32_stride;
        const uint32_t *x = (const uint32_t *)(const void *)((const char *)args->bf16 + block * args->bf16_stride);
        for (size_t i = 0; i < n_words; i += CR_LANES) {
            for (size_t col = 0; col < CR_LANES; col += LANES_N) {
                lanes_u pair = lanes_load_u(x + i + col);
                lanes_store(out + 2 * i + col, quiet(lanes_bf16_even(pair)));
                lanes_store(out + 2 * i + CR_LANES + col, quiet(lanes_bf16_odd(pair)));
            }
        }
    }
}

static void fill(struct cr_cast_ops *ops)
{
    static const struct cr_cast_ops table = {.to_bf16 = to_bf16, .from_bf16 = from_bf16};
    *ops = table;
}

#endif
