/* qgemm on 128-bit f32 FMA (FMLA by lane), 8 x 12 micro-tile. Same chain of operations as avx2, so the same bits.
 *
 * 24 accumulators, 3 token vectors, 2 weight vectors. A step is 24 FMLA and at least 4 loads (the weights one LDP), 28
 * instructions for 96 products; objdump of the main loop of tile_three (gcc 12.2, -O3, 16 steps with the prefetch
 * test): 484, which is 30.25 a step, 1.08 times that.
 */
#ifndef CR_NEON
#error "build with the flags of the neon tier"
#endif

#include <arm_neon.h>

#include "kernels/qgemm/variants.h"
#include "kernels/qgemm/tile_neon.h"

/* Pointers by value: an array of them would be kept in memory. */
INLINE void step(float32x4_t acc[8][TILE_VECTORS], const char *w, const char *x0, const char *x1, const char *x2,
                 const int n)
{
    float32x4_t weights0 = vld1q_f32(floats(w)), weights1 = vld1q_f32(floats(w + 16));
    float32x4_t tokens[TILE_VECTORS] = {vld1q_f32(floats(x0)), vld1q_f32(floats(x1))};
    if (n == 3) {
        tokens[2] = vld1q_f32(floats(x2));
    }
    TILE_ROWS(weights0, weights1)
}

INLINE void tile(const struct tile *t, const int first, const int n)
{
    float32x4_t acc[8][TILE_VECTORS];
    float *partial = t->partial + first * 4;
#pragma GCC unroll 8
    for (int r = 0; r < 8; r++) {
        for (int j = 0; j < n; j++) {
            acc[r][j] = t->first ? vdupq_n_f32(0) : vld1q_f32(partial + r * CR_QGEMM_GROUP * CR_LANES + j * 4);
        }
    }
    const int second = first + 1, third = n == 3 ? first + 2 : first;
    const char *w = t->panel;
    const char *x0 = t->x[first / LINE_VECTORS] + first % LINE_VECTORS * 16;
    const char *x1 = t->x[second / LINE_VECTORS] + second % LINE_VECTORS * 16;
    const char *x2 = t->x[third / LINE_VECTORS] + third % LINE_VECTORS * 16;
    size_t n_steps = t->n_steps, ahead = 0;
    for (; n_steps >= 16; n_steps -= 16) {
        if (first == 0) { /* one of the bodies of a strip */
            fetch_ahead(t, &ahead);
        }
        for (int quarter = 0; quarter < 4; quarter++) {
            for (size_t s = 0; s < 4; s++) {
                step(acc, w + 32 * s, x0 + 64 * s, x1 + 64 * s, x2 + 64 * s, n);
                __asm__("" : : : "memory"); /* the loads of the next step, drawn in here, would need more registers */
            }
            w += 128;
            x0 += 256;
            x1 += 256;
            x2 += 256;
        }
    }
    for (size_t s = 0; s < n_steps; s++) {
        step(acc, w + 32 * s, x0 + 64 * s, x1 + 64 * s, x2 + 64 * s, n);
    }
    if (t->last) {
        finish(acc, t, first, n);
        return;
    }
#pragma GCC unroll 8
    for (int r = 0; r < 8; r++) {
        for (int j = 0; j < n; j++) {
            vst1q_f32(partial + r * CR_QGEMM_GROUP * CR_LANES + j * 4, acc[r][j]);
        }
    }
}

/* Panel: [step][8 outputs], forward ones transposed on the way. */
enum { PACK_STEP = 1, PACK_MULTIPLE = 1 };
#include "kernels/qgemm/pack_neon.h"

static inline void transpose4(float32x4_t v[4])
{
    float32x4_t a = vtrn1q_f32(v[0], v[1]), b = vtrn2q_f32(v[0], v[1]);
    float32x4_t c = vtrn1q_f32(v[2], v[3]), d = vtrn2q_f32(v[2], v[3]);
    v[0] = vreinterpretq_f32_f64(vtrn1q_f64(vreinterpretq_f64_f32(a), vreinterpretq_f64_f32(c)));
    v[1] = vreinterpretq_f32_f64(vtrn1q_f64(vreinterpretq_f64_f32(b), vreinterpretq_f64_f32(d)));
    v[2] = vreinterpretq_f32_f64(vtrn2q_f64(vreinterpretq_f64_f32(a), vreinterpretq_f64_f32(c)));
    v[3] = vreinterpretq_f32_f64(vtrn2q_f64(vreinterpretq_f64_f32(b), vreinterpretq_f64_f32(d)));
}

static void pack_steps(const float *rows, char *to)
{
    for (size_t half = 0; half < CR_QGEMM_STRIP; half += 4) {
        float32x4_t v[4];
        for (size_t r = 0; r < 4; r++) {
            v[r] = vld1q_f32(rows + (half + r) * PACK_COLUMNS);
        }
        transpose4(v);
        for (size_t s = 0; s < 4; s++) {
            vst1q_f32(words(to) + s * CR_QGEMM_STRIP + half, v[s]);
        }
    }
}

static void pack_step(const float *rows, char *strip, size_t step)
{
    vst1q_f32(words(strip) + step * CR_QGEMM_STRIP, vld1q_f32(rows));
    vst1q_f32(words(strip) + step * CR_QGEMM_STRIP + 4, vld1q_f32(rows + 4));
}

/* 24 KiB of tokens and 4 KiB of a strip's weights: the smallest first-level cache of the family is 32 KiB. */
enum { ELEMENT_BYTES = 4, SLAB_MAX = 128 };
#include "kernels/qgemm/drive.h"

void cr_qgemm_fwd_neon(const struct cr_qgemm_args *args, size_t begin, size_t end, void *scratch)
{
    drive(args, begin, end, scratch, false);
}

void cr_qgemm_dx_neon(const struct cr_qgemm_args *args, size_t begin, size_t end, void *scratch)
{
    drive(args, begin, end, scratch, true);
}
