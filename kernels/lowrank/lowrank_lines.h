/* lowrank, private: lines of X as f32 for one vector width, and the masks of dropout on lines.
 *
 * A mask is a function of token and feature alone (lora.h), so down, up and grad meet the same one.
 */
#ifndef CR_LOWRANK_LINES_H
#define CR_LOWRANK_LINES_H

#include "kernels/common/lanes.h"
#include "kernels/lowrank/lowrank_scratch.h"
#include "kernels/rng/philox_lanes.h"

#include <string.h>

static inline size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

static inline int dropping(const struct cr_lowrank_args *args)
{
    return args->dropout.keep16 < 65536;
}

/* What a kept number is multiplied by. */
static inline float kept_factor(const struct cr_dropout *dropout)
{
    return 65536.0f / (float)dropout->keep16;
}

/* Draws of features [8 group, 8 group + 8) of the tokens from `token` on, one token a lane; even ones in low halves. */
CR_INLINE void draws(const struct cr_dropout *dropout, size_t token, size_t group, lanes_u word[4])
{
    word[0] = lanes_splat_u((uint32_t)group);
    word[1] = lanes_loadu_u(dropout->position + token);
    word[2] = lanes_loadu_u(dropout->example + token);
    word[3] = lanes_splat_u(dropout->step);
    lanes_philox(word, dropout->key);
}

/* The masks they make. */
CR_INLINE void masks(const struct cr_dropout *dropout, size_t token, size_t group, lanes mask[8])
{
    lanes_u kept = lanes_bits(lanes_splat(kept_factor(dropout)));
    lanes_i bound = lanes_splat_i((int32_t)dropout->keep16);
    lanes_u word[4];
    draws(dropout, token, group, word);
    for (int i = 0; i < 4; i++) {
        mask[2 * i] = lanes_from_bits(kept & (lanes_u)lanes_greater_i(bound, (lanes_i)(word[i] & 0xffffu)));
        mask[2 * i + 1] = lanes_from_bits(kept & (lanes_u)lanes_greater_i(bound, (lanes_i)(word[i] >> 16)));
    }
}

/* line[f] *= mask of feature first + f, f in [0, n), for one token block. */
static void drop(const struct cr_dropout *dropout, size_t block, size_t first, size_t n, float *line)
{
    for (size_t f = 0; f < n; f += 8) {
        for (size_t col = 0; col < CR_LANES; col += LANES_N) {
            lanes mask[8];
            masks(dropout, block * CR_LANES + col, (first + f) / 8, mask);
            for (size_t i = 0; i < least(8, n - f); i++) {
                float *at = line + (f + i) * CR_LANES + col;
                lanes_store(at, lanes_load(at) * mask[i]);
            }
        }
    }
}

/* out[f] = m X[first + f] of one token block as f32, f in [0, n); first is a multiple of eight. */
static void expand(const struct cr_lowrank_args *args, size_t block, size_t first, size_t n, float *out)
{
    const char *x = (const char *)args->x + block * args->x_stride;
    if (args->x_type == CR_X_F32) {
        memcpy(out, x + first * CR_LANES * sizeof(float), n * CR_LANES * sizeof(float));
    } else {
        const uint32_t *in = (const uint32_t *)(const void *)x + first / 2 * CR_LANES;
        for (size_t f = 0; f < n; f += 2) {
            for (size_t col = 0; col < CR_LANES; col += LANES_N) {
                lanes_u pair = lanes_load_u(in + f / 2 * CR_LANES + col);
                lanes_store(out + f * CR_LANES + col, lanes_bf16_even(pair));
                lanes_store(out + (f + 1) * CR_LANES + col, lanes_bf16_odd(pair));
            }
        }
    }
    if (dropping(args)) {
        drop(&args->dropout, block, first, n, out);
    }
}

#endif
