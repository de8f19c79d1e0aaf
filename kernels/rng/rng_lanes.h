/* rng: the template of the vector tiers. Whole blocks go straight to the output, the two ends through a copy. */
#ifndef CR_RNG_LANES_H
#define CR_RNG_LANES_H

#include <string.h>

#include "kernels/common/tiers.h"
#include "kernels/rng/normal_lanes.h"

/* End of the part of [at, end) that lies in the block of `at`. */
static size_t part_end(size_t at, size_t end)
{
    size_t next = (at / CR_RNG_BLOCK + 1) * CR_RNG_BLOCK;
    return next < end ? next : end;
}

CR_INLINE void normals_of(struct normal_stream *stream, const struct cr_noise *noise, size_t block, float *out)
{
    lanes z[NORMAL_VECTORS];
    normal_stream_next(stream, noise, (uint32_t)block, z);
    for (size_t v = 0; v < NORMAL_VECTORS; v++) {
        lanes_storeu(out + v * LANES_N, z[v]);
    }
}

static void normals(const struct cr_noise *noise, float *out, size_t begin, size_t end)
{
    struct cr_noise own = *noise; /* the stores cannot change it */
    struct normal_stream stream;
    normal_stream_start(&stream, &own, (uint32_t)(begin / CR_RNG_BLOCK));
    for (size_t at = begin; at < end;) {
        for (; at % CR_RNG_BLOCK == 0 && end - at >= CR_RNG_BLOCK; at += CR_RNG_BLOCK) {
            normals_of(&stream, &own, at / CR_RNG_BLOCK, out + at);
        }
        if (at < end) {
            float part[CR_RNG_BLOCK];
            size_t stop = part_end(at, end);
            normals_of(&stream, &own, at / CR_RNG_BLOCK, part);
            memcpy(out + at, part + at % CR_RNG_BLOCK, (stop - at) * sizeof *part);
            at = stop;
        }
    }
}

CR_INLINE void words_of(const struct cr_noise *noise, size_t block, uint32_t *out)
{
    lanes_u word[NORMAL_VECTORS];
    noise_words_block(noise, (uint32_t)block, word);
    for (size_t v = 0; v < NORMAL_VECTORS; v++) {
        lanes_storeu_u(out + v * LANES_N, word[v]);
    }
}

static void words(const struct cr_noise *noise, uint32_t *out, size_t begin, size_t end)
{
    struct cr_noise own = *noise;
    for (size_t at = begin; at < end;) {
        for (; at % CR_RNG_BLOCK == 0 && end - at >= CR_RNG_BLOCK; at += CR_RNG_BLOCK) {
            words_of(&own, at / CR_RNG_BLOCK, out + at);
        }
        if (at < end) {
            uint32_t part[CR_RNG_BLOCK];
            size_t stop = part_end(at, end);
            words_of(&own, at / CR_RNG_BLOCK, part);
            memcpy(out + at, part + at % CR_RNG_BLOCK, (stop - at) * sizeof *part);
            at = stop;
        }
    }
}

static void fill(struct cr_rng_ops *ops)
{
    static const struct cr_rng_ops table = {.normals = normals, .words = words};
    *ops = table;
}

#endif
