/* philox_lanes: LANES_N Philox4x32-10 blocks at once, one counter a lane and one key for all (Salmon et al. 2011,
 * section 3.3: multipliers and key increments of the 4x32 variant). Same words as cr_philox4x32, lane by lane.
 *
 * Even and odd lanes travel apart, each word in the low half of 64 bits: the widening multiply reads only low halves,
 * so the product itself is the next low word and one shift gives the high one. What fills the upper halves is never
 * read.
 */
#ifndef CR_RNG_PHILOX_LANES_H
#define CR_RNG_PHILOX_LANES_H

#include "kernels/common/lanes.h"

enum { CR_PHILOX_ROUNDS = 10 };

#define CR_PHILOX_M0 0xd2511f53u
#define CR_PHILOX_M1 0xcd9e8d57u
#define CR_PHILOX_W0 0x9e3779b9u
#define CR_PHILOX_W1 0xbb67ae85u

typedef uint64_t lanes_w __attribute__((vector_size(4 * LANES_N), may_alias)); /* LANES_N / 2 of them */

/* Low half of each lane times m, all 64 bits. */
CR_INLINE lanes_w lanes_mul_wide(lanes_w a, uint32_t m)
{
#if LANES_N == 16
    return (lanes_w)_mm512_mul_epu32((__m512i)a, _mm512_set1_epi64((int64_t)m));
#elif LANES_N == 8
    return (lanes_w)_mm256_mul_epu32((__m256i)a, _mm256_set1_epi64x((int64_t)m));
#elif defined(CR_NEON)
    return (lanes_w)vmull_n_u32(vmovn_u64((uint64x2_t)a), m);
#else
    return (a & 0xffffffffu) * (uint64_t)m;
#endif
}

/* Low halves of `even` and `odd` side by side again. */
CR_INLINE lanes_u lanes_join(lanes_w even, lanes_w odd)
{
#if LANES_N == 16
    return (lanes_u)_mm512_mask_moveldup_ps((__m512)even, 0xaaaa, (__m512)odd);
#elif LANES_N == 8
    return (lanes_u)_mm256_blend_ps((__m256)even, _mm256_moveldup_ps((__m256)odd), 0xaa);
#elif defined(CR_NEON)
    return (lanes_u)vtrn1q_u32((uint32x4_t)even, (uint32x4_t)odd);
#else
    return (lanes_u)((even & 0xffffffffu) | odd << 32);
#endif
}

/* LANES_N blocks between two rounds: w[0] even lanes, w[1] odd ones. */
struct philox_state {
    lanes_w w[2][4];
    uint32_t key[2];
};

CR_INLINE void lanes_philox_begin(struct philox_state *s, const lanes_u c[4], const uint32_t key[2])
{
    for (int i = 0; i < 4; i++) {
        s->w[0][i] = (lanes_w)c[i];
        s->w[1][i] = (lanes_w)c[i] >> 32;
    }
    s->key[0] = key[0];
    s->key[1] = key[1];
}

CR_INLINE void lanes_philox_round(struct philox_state *s)
{
    for (int half = 0; half < 2; half++) {
        lanes_w *w = s->w[half];
        lanes_w p0 = lanes_mul_wide(w[0], CR_PHILOX_M0);
        lanes_w p1 = lanes_mul_wide(w[2], CR_PHILOX_M1);
        w[0] = (p1 >> 32) ^ w[1] ^ (lanes_w)lanes_splat_u(s->key[0]);
        w[1] = p1;
        w[2] = (p0 >> 32) ^ w[3] ^ (lanes_w)lanes_splat_u(s->key[1]);
        w[3] = p0;
    }
    s->key[0] += CR_PHILOX_W0;
    s->key[1] += CR_PHILOX_W1;
}

CR_INLINE void lanes_philox_end(const struct philox_state *s, lanes_u out[4])
{
    for (int i = 0; i < 4; i++) {
        out[i] = lanes_join(s->w[0][i], s->w[1][i]);
    }
}

/* c: the four counter words of LANES_N blocks, replaced by the blocks' four output words. */
CR_INLINE void lanes_philox(lanes_u c[4], const uint32_t key[2])
{
    struct philox_state state;
    lanes_philox_begin(&state, c, key);
    for (int round = 0; round < CR_PHILOX_ROUNDS; round++) {
        lanes_philox_round(&state);
    }
    lanes_philox_end(&state, c);
}

#endif
