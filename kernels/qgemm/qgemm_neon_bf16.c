/* qgemm on BFMMLA: weights and tokens as bf16, 8 x 12 micro-tile.
 *
 * A 128-bit BFMMLA is 2 outputs x 2 tokens x 4 features, sixteen products; BFDOT does eight, FMLA and BFMLALB four. All
 * of them issue on every vector pipe of the Neoverse V1 (LLVM's scheduling model, after Arm's software optimization
 * guide). Its operand, four features of two tokens, is two TL16 lines zipped: a slab of tokens is zipped once for all
 * strips that it passes.
 *
 * Arithmetic: BFMMLA equals two BFDOT one after the other (Arm Architecture Reference Manual, BFMatMulAdd): each
 * multiplies exactly, adds its two products and then the accumulator, rounds both sums to odd and flushes denormals,
 * whatever the control register says; the extended mode of FEAT_EBF16 is off on Linux. Rounding to odd errs by less
 * than 2^-23 of the sum, twice the unit of nearest, but a chain of K features has K / 2 such additions and the sums of
 * pairs one each: (K / 2 + 1) 2^-23 sum |terms| = (K + 2) 2^-24 sum |terms|, the bound of qgemm.h, whose first addition
 * (to zero) is exact.
 *
 * 24 accumulators, the 4 weight vectors of a pair of steps, 2 vectors of tokens at a time. A pair of steps is 24 BFMMLA
 * and at least 5 loads (LDP), 29 instructions for 384 products; objdump of the main loop of tile_three (gcc 12.2, -O3,
 * 16 steps with the prefetch test): 264, which is 33 a pair, 1.14 times that.
 */
#ifndef __ARM_FEATURE_BF16_VECTOR_ARITHMETIC
#error "build with the flags of the neon_bf16 tier"
#endif

#include <arm_neon.h>

#include "kernels/qgemm/variants.h"
#include "kernels/qgemm/tile_neon.h"

enum { PAIR = CR_QGEMM_STRIP / 2, PAIR_BYTES = 64, TOKEN_PAIR_BYTES = 128 }; /* pairs of outputs; of steps */

INLINE float32x4_t zip_low(float32x4_t a, float32x4_t b)
{
    return vreinterpretq_f32_f64(vtrn1q_f64(vreinterpretq_f64_f32(a), vreinterpretq_f64_f32(b)));
}

INLINE float32x4_t zip_high(float32x4_t a, float32x4_t b)
{
    return vreinterpretq_f32_f64(vtrn2q_f64(vreinterpretq_f64_f32(a), vreinterpretq_f64_f32(b)));
}

/* One token vector of two steps against all outputs: acc[p][i] is outputs 2p, 2p + 1 of tokens 2i, 2i + 1. */
INLINE void two_tokens(float32x4_t acc[PAIR][2 * TILE_VECTORS], const bfloat16x8_t weights[PAIR], const char *x,
                       const int i)
{
    bfloat16x8_t tokens0 = vreinterpretq_bf16_f32(vld1q_f32(floats(x)));
    bfloat16x8_t tokens1 = vreinterpretq_bf16_f32(vld1q_f32(floats(x + 16)));
#pragma GCC unroll 4
    for (int p = 0; p < PAIR; p++) {
        acc[p][i] = vbfmmlaq_f32(acc[p][i], weights[p], tokens0);
        acc[p][i + 1] = vbfmmlaq_f32(acc[p][i + 1], weights[p], tokens1);
    }
    __asm__("" : : : "memory"); /* the next loads, drawn in here, would need more registers */
}

/* Pointers by value: an array of them would be kept in memory. */
INLINE void two_steps(float32x4_t acc[PAIR][2 * TILE_VECTORS], const char *w, const char *x0, const char *x1,
                      const char *x2, const int n)
{
    bfloat16x8_t weights[PAIR];
#pragma GCC unroll 4
    for (int p = 0; p < PAIR; p++) {
        weights[p] = vreinterpretq_bf16_f32(vld1q_f32(floats(w + 16 * p)));
    }
    two_tokens(acc, weights, x0, 0);
    two_tokens(acc, weights, x1, 2);
    if (n == 3) {
        two_tokens(acc, weights, x2, 4);
    }
}

INLINE void tile(const struct tile *t, const int first, const int n)
{
    float32x4_t acc[PAIR][2 * TILE_VECTORS], rows[8][TILE_VECTORS];
    float *partial = t->partial + first * 32; /* as they are: 8 outputs of the tokens before */
#pragma GCC unroll 4
    for (int p = 0; p < PAIR; p++) {
#pragma GCC unroll 6
        for (int i = 0; i < 2 * n; i++) {
            acc[p][i] = t->first ? vdupq_n_f32(0) : vld1q_f32(partial + (2 * n * p + i) * 4);
        }
    }
    const int second = first + 1, third = n == 3 ? first + 2 : first;
    const char *w = t->panel;
    const char *x0 = t->x[first / LINE_VECTORS] + first % LINE_VECTORS * 32;
    const char *x1 = t->x[second / LINE_VECTORS] + second % LINE_VECTORS * 32;
    const char *x2 = t->x[third / LINE_VECTORS] + third % LINE_VECTORS * 32;
    size_t n_pairs = (t->n_steps + 1) / 2, ahead = 0;
    for (; n_pairs >= 8; n_pairs -= 8) {
        if (first == 0) { /* one of the bodies of a strip */
            fetch_ahead(t, &ahead);
        }
        for (int half = 0; half < 2; half++) {
            for (size_t s = 0; s < 4; s++) {
                const size_t at = s * TOKEN_PAIR_BYTES;
                two_steps(acc, w + s * PAIR_BYTES, x0 + at, x1 + at, x2 + at, n);
            }
            w += 4 * PAIR_BYTES;
            x0 += 4 * TOKEN_PAIR_BYTES;
            x1 += 4 * TOKEN_PAIR_BYTES;
            x2 += 4 * TOKEN_PAIR_BYTES;
        }
    }
    for (; n_pairs > 0; n_pairs--) {
        two_steps(acc, w, x0, x1, x2, n);
        w += PAIR_BYTES;
        x0 += TOKEN_PAIR_BYTES;
        x1 += TOKEN_PAIR_BYTES;
        x2 += TOKEN_PAIR_BYTES;
    }
    if (!t->last) {
#pragma GCC unroll 4
        for (int p = 0; p < PAIR; p++) {
#pragma GCC unroll 6
            for (int i = 0; i < 2 * n; i++) {
                vst1q_f32(partial + (2 * n * p + i) * 4, acc[p][i]);
            }
        }
        return;
    }
#pragma GCC unroll 4
    for (int p = 0; p < PAIR; p++) {
#pragma GCC unroll 3
        for (int j = 0; j < n; j++) {
            rows[2 * p][j] = zip_low(acc[p][2 * j], acc[p][2 * j + 1]);
            rows[2 * p + 1][j] = zip_high(acc[p][2 * j], acc[p][2 * j + 1]);
        }
    }
    finish(rows, t, first, n);
}

/* Panel: [pair of steps][pair of outputs][output][4 weights]. */
enum { PACK_STEP = 2, PACK_MULTIPLE = 2 };
#include "kernels/qgemm/pack_neon.h"

static void pack_steps(const float *rows, char *to)
{
    for (size_t p = 0; p < PAIR; p++) {
        float32x4_t v[2];
        for (size_t r = 0; r < 2; r++) {
            const float *row = rows + (2 * p + r) * PACK_COLUMNS;
            bfloat16x8_t low = vcvtq_low_bf16_f32(vld1q_f32(row));
            v[r] = vreinterpretq_f32_bf16(vcvtq_high_bf16_f32(low, vld1q_f32(row + 4)));
        }
        vst1q_f32(words(to) + p * 4, zip_low(v[0], v[1]));
        vst1q_f32(words(to + PAIR_BYTES) + p * 4, zip_high(v[0], v[1]));
    }
}

/* Words of four outputs in one step, low and high half. Shifted together: clang 14 cannot zip bf16. */
INLINE float32x4_t column_words(const float *rows)
{
    uint16x4_t even = vreinterpret_u16_bf16(vcvt_bf16_f32(vld1q_f32(rows)));
    uint16x4_t odd = vreinterpret_u16_bf16(vcvt_bf16_f32(vld1q_f32(rows + CR_QGEMM_ROWS)));
    return vreinterpretq_f32_u32(vorrq_u32(vmovl_u16(even), vshll_n_u16(odd, 16)));
}

/* The first step of a pair waits in the place of both. */
static void pack_step(const float *rows, char *strip, size_t step)
{
    float *to = words(strip + step / 2 * PAIR_BYTES);
    float32x4_t own[2] = {column_words(rows), column_words(rows + 4)};
    if (step % 2 == 0) {
        vst1q_f32(to, own[0]);
        vst1q_f32(to + 4, own[1]);
        return;
    }
    float32x4_t before[2] = {vld1q_f32(to), vld1q_f32(to + 4)};
    for (size_t half = 0; half < 2; half++) {
        vst1q_f32(to + 8 * half, vzip1q_f32(before[half], own[half]));
        vst1q_f32(to + 8 * half + 4, vzip2q_f32(before[half], own[half]));
    }
}

/* A slab of nb token blocks, lines zipped in pairs, the missing half of the last pair zero. */
#define PACK_TOKENS 1
static void pack_tokens(struct tile *t, int nb, char *to)
{
    for (int j = 0; j < nb; j++) {
        const char *from = t->x[j];
        t->x[j] = to;
        for (size_t s = 0; s < t->n_steps; s += 2, from += 128, to += TOKEN_PAIR_BYTES) {
            for (size_t v = 0; v < LINE_VECTORS; v++) {
                float32x4_t a = vld1q_f32(floats(from + 16 * v));
                float32x4_t b = s + 1 < t->n_steps ? vld1q_f32(floats(from + 64 + 16 * v)) : vdupq_n_f32(0);
                vst1q_f32(words(to + 32 * v), vzip1q_f32(a, b));
                vst1q_f32(words(to + 32 * v + 16), vzip2q_f32(a, b));
            }
        }
    }
}

/* As in neon: a line is as many bytes. */
enum { ELEMENT_BYTES = 2, SLAB_MAX = CR_QGEMM_PACKED_STEPS };
#include "kernels/qgemm/drive.h"

void cr_qgemm_fwd_neon_bf16(const struct cr_qgemm_args *args, size_t begin, size_t end, void *scratch)
{
    drive(args, begin, end, scratch, false);
}

void cr_qgemm_dx_neon_bf16(const struct cr_qgemm_args *args, size_t begin, size_t end, void *scratch)
{
    drive(args, begin, end, scratch, true);
}
