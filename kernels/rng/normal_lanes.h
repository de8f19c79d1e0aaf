/* normal_lanes: standard normals on lanes, the same bits as rng_ref.c on every tier. Definition and error in
 * credence/kernels/rng.h; only correctly rounded operations in a fixed order.
 *
 * Box and Muller (1958) on two words a, b of one Philox block:
 *   u = (a mod 2^31 + 1/2) 2^-31;  r = sqrt(-2 ln u), with the sign of the top bit of a
 *   t = b 2^-31, signed, in [-1, 1);  x = r cos(pi t / 2),  y = r sin(pi t / 2)
 * The signed radius turns the half circle of t into the whole one. ln: u = 2^k m, m in [sqrt 1/2, sqrt 2);
 * -2 ln m = f Q(f), f = m - 1.
 *
 * Where registers allow, the rounds of the next counters run between the steps of the polynomials: integer and
 * floating-point units are busy at the same time (Zen 4, 2026-11: 2.0 instead of 2.25 cycles a normal).
 */
#ifndef CR_RNG_NORMAL_LANES_H
#define CR_RNG_NORMAL_LANES_H

#include "credence/kernels/rng.h"
#include "kernels/rng/normal_constants.h"
#include "kernels/rng/philox_lanes.h"

/* A block of CR_RNG_BLOCK elements: this many vectors, from NORMAL_GROUPS runs of LANES_N counters. */
enum { NORMAL_GROUPS = 16 / LANES_N, NORMAL_VECTORS = 4 * NORMAL_GROUPS };

/* A pair of words on its way to two normals. */
struct normal_pair {
    lanes_u a;
    lanes k, f, t, t2, log, sine, cosine;
};

CR_INLINE void normal_begin(struct normal_pair *p, lanes_u a, lanes_u b)
{
    static const float q[9] = CR_NORMAL_LOG, s[5] = CR_NORMAL_SIN, c[6] = CR_NORMAL_COS;
    lanes u = lanes_from_i((lanes_i)(a & 0x7fffffffu)) + 0.5f; /* 2^31 times u */
    lanes_i above = (lanes_i)u - (CR_NORMAL_ROOT_HALF + (31 << 23));
    p->a = a;
    p->k = lanes_from_i(above >> 23);
    p->f = (lanes)((above & 0x7fffff) + CR_NORMAL_ROOT_HALF) - 1.0f;
    p->t = lanes_from_i((lanes_i)b) * 0x1p-31f;
    p->t2 = p->t * p->t;
    p->log = lanes_splat(q[8]);
    p->sine = lanes_splat(s[4]);
    p->cosine = lanes_splat(c[5]);
}

/* Horner steps: d from 7 down to 0. */
CR_INLINE void normal_step(struct normal_pair *p, int d)
{
    static const float q[9] = CR_NORMAL_LOG, s[5] = CR_NORMAL_SIN, c[6] = CR_NORMAL_COS;
    p->log = lanes_fused(p->log, p->f, lanes_splat(q[d]));
    if (d < 4) {
        p->sine = lanes_fused(p->sine, p->t2, lanes_splat(s[d]));
    }
    if (d >= 3) {
        p->cosine = lanes_fused(p->cosine, p->t2, lanes_splat(c[d - 3]));
    }
}

CR_INLINE void normal_end(const struct normal_pair *p, lanes *x, lanes *y)
{
    lanes square = lanes_fused(p->k, lanes_splat(CR_NORMAL_2LN2), p->f * p->log);
    lanes r = (lanes)((lanes_u)lanes_sqrt(square) ^ (p->a & 0x80000000u));
    *x = r * p->cosine;
    *y = r * p->t * p->sine;
}

/* The words of LANES_N counters from `first`. */
CR_INLINE void noise_words(const struct cr_noise *noise, uint32_t first, lanes_u word[4])
{
    lanes_u counter[4] = {lanes_iota() + first, lanes_splat_u(noise->step), lanes_splat_u(noise->sample),
                          lanes_splat_u(noise->tensor)};
    lanes_philox(counter, noise->key);
    for (int i = 0; i < 4; i++) {
        word[i] = counter[i];
    }
}

/* Words of block `block`: vector v holds those of its elements v * LANES_N and up. */
CR_INLINE void noise_words_block(const struct cr_noise *noise, uint32_t block, lanes_u out[NORMAL_VECTORS])
{
    for (int i = 0; i < NORMAL_GROUPS; i++) {
        lanes_u word[4];
        noise_words(noise, block * 16u + (uint32_t)(i * LANES_N), word);
        for (int j = 0; j < 4; j++) {
            out[j * NORMAL_GROUPS + i] = word[j];
        }
    }
}

#if LANES_N == 16

/* A stream read block by block: the words of the block that comes next. */
struct normal_stream {
    lanes_u word[4];
};

CR_INLINE void normal_stream_start(struct normal_stream *s, const struct cr_noise *noise, uint32_t block)
{
    noise_words(noise, block * 16u, s->word);
}

/* Normals of `block`, the one started with or the one after the last; vectors as above. */
CR_INLINE void normal_stream_next(struct normal_stream *s, const struct cr_noise *noise, uint32_t block,
                                  lanes out[NORMAL_VECTORS])
{
    lanes_u counter[4] = {lanes_iota() + (block + 1) * 16u, lanes_splat_u(noise->step), lanes_splat_u(noise->sample),
                          lanes_splat_u(noise->tensor)};
    struct philox_state next;
    struct normal_pair pair[2];
    lanes_philox_begin(&next, counter, noise->key);
    normal_begin(&pair[0], s->word[0], s->word[1]);
    normal_begin(&pair[1], s->word[2], s->word[3]);
    for (int d = 9; d >= 0; d--) {
        lanes_philox_round(&next);
        if (d < 8) {
            normal_step(&pair[0], d);
            normal_step(&pair[1], d);
        }
    }
    normal_end(&pair[0], &out[0], &out[1]);
    normal_end(&pair[1], &out[2], &out[3]);
    lanes_philox_end(&next, s->word);
}

#else

struct normal_stream {
    char unused;
};

CR_INLINE void normal_stream_start(struct normal_stream *s, const struct cr_noise *noise, uint32_t block)
{
    (void)noise, (void)block;
    s->unused = 0;
}

CR_INLINE void normal_stream_next(struct normal_stream *s, const struct cr_noise *noise, uint32_t block,
                                  lanes out[NORMAL_VECTORS])
{
    (void)s;
    for (int i = 0; i < NORMAL_GROUPS; i++) {
        lanes_u word[4];
        noise_words(noise, block * 16u + (uint32_t)(i * LANES_N), word);
        for (int j = 0; j < 4; j += 2) {
            struct normal_pair pair;
            normal_begin(&pair, word[j], word[j + 1]);
            for (int d = 7; d >= 0; d--) {
                normal_step(&pair, d);
            }
            normal_end(&pair, &out[j * NORMAL_GROUPS + i], &out[(j + 1) * NORMAL_GROUPS + i]);
        }
    }
}

#endif
#endif
