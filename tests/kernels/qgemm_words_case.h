/* qgemm_words_case: blocks of every quantised type in which every scale meets every code. */
#ifndef CR_TESTS_QGEMM_WORDS_CASE_H
#define CR_TESTS_QGEMM_WORDS_CASE_H

#include <string.h>

#include "credence/kernels/dequant.h"
#include "kernels/common/blocks.h"

/* Halves of all sizes: zeros, the least and greatest subnormals, the least normals, the largest, and between. */
static const uint16_t words_covering[16] = {0x0001, 0x2e66, 0x83ff, 0x7bff, 0x0000, 0xae67, 0x0400, 0x57ff,
                                            0x8001, 0x3555, 0x03ff, 0xfbff, 0x8000, 0xbc01, 0x8400, 0x0155};

enum { N_FINITE_HALVES = 63488, FIRST_INFINITY = 0x7c00 };

/* per_round blocks have every scale (of types of 256 values: every sub-scale at every place) with every code (Q8_0: an
 * eighth); the rounds go through the covering halves, or pairs of them, or the eighths. d_at: bytes before the scale.
 */
struct words_kind {
    int type;
    size_t per_round, n_rounds, d_at;
};

static const struct words_kind words_kinds[] = {
    {CR_Q_Q4_0, N_FINITE_HALVES, 1, 0},
    {CR_Q_Q4_1, N_FINITE_HALVES, 16, 0},
    {CR_Q_Q5_0, N_FINITE_HALVES, 1, 0},
    {CR_Q_Q5_1, N_FINITE_HALVES, 16, 0},
    {CR_Q_Q8_0, N_FINITE_HALVES, 8, 0},
    {CR_Q_IQ4_NL, N_FINITE_HALVES, 1, 0},
    {CR_Q_Q2_K, 256, 64, 80},
    {CR_Q_Q3_K, 64, 16, 108},
    {CR_Q_Q4_K, 64, 64, 0},
    {CR_Q_Q5_K, 64, 64, 0},
    {CR_Q_Q6_K, 1024, 16, 208},
    {CR_Q_IQ4_XS, 64, 16, 0},
};
enum { N_WORDS_KINDS = sizeof words_kinds / sizeof *words_kinds };

/* The i-th of all finite halves. */
static inline uint16_t words_half(size_t i)
{
    return (uint16_t)(i % FIRST_INFINITY | i / FIRST_INFINITY << 15);
}

/* 32 codes of 4 bits in nibble order, and fifth bits: value j has code (j + turn) % 32, of which nibbles keep 4 bits.
 */
static inline uint32_t words_codes(uint8_t qs[16], size_t turn)
{
    uint32_t fifth = 0;
    for (size_t j = 0; j < 16; j++) {
        qs[j] = (uint8_t)(((j + turn) & 15) | ((j + 16 + turn) & 15) << 4);
    }
    for (size_t j = 0; j < 32; j++) {
        fifth |= (uint32_t)((j + turn) >> 4 & 1) << j;
    }
    return fifth;
}

static inline void words_simple(int type, unsigned char *block, size_t i, size_t round)
{
    uint16_t d = words_half(i), m = words_covering[(i + round) % 16];
    uint8_t qs[16];
    uint32_t fifth = words_codes(qs, i);
    bool minimum = type == CR_Q_Q4_1 || type == CR_Q_Q5_1, five = type == CR_Q_Q5_0 || type == CR_Q_Q5_1;
    memcpy(block, &d, 2);
    block += 2;
    if (type == CR_Q_Q8_0) {
        for (size_t j = 0; j < 32; j++) {
            block[j] = (uint8_t)(j + 32 * round + i);
        }
        return;
    }
    if (minimum) {
        memcpy(block, &m, 2);
        block += 2;
    }
    if (five) {
        memcpy(block, &fifth, 4);
        block += 4;
    }
    memcpy(block, qs, sizeof qs);
}

/* Scale and minimum of six bits of the sub-blocks of Q4_K and Q5_K: blocks.h, cr_k_scale_min, the other way round. */
static inline void words_six_bits(uint8_t s[12], const unsigned scale[8], const unsigned minimum[8])
{
    for (size_t j = 0; j < 4; j++) {
        s[j] = (uint8_t)(scale[j] | scale[j + 4] >> 4 << 6);
        s[j + 4] = (uint8_t)(minimum[j] | minimum[j + 4] >> 4 << 6);
        s[j + 8] = (uint8_t)((scale[j + 4] & 15) | (minimum[j + 4] & 15) << 4);
    }
}

/* Every pair of a scale and a minimum of 4 bits at each of the 16 places as i goes to 256. */
static inline void words_q2_k(struct cr_block_q2_k *b, size_t i, size_t round)
{
    b->d = words_covering[round % 16];
    b->dmin = words_covering[(round % 16 + round / 16 * 5 + 3) % 16];
    for (size_t g = 0; g < 16; g++) {
        b->scales[g] = (uint8_t)(i + 17 * g);
    }
    for (size_t k = 0; k < 64; k++) {
        b->qs[k] = (uint8_t)(0xe4e4 >> 2 * ((k + i) % 4)); /* 0 1 2 3 from any one of the four on */
    }
}

static inline void words_q3_k(struct cr_block_q3_k *b, size_t i, size_t round)
{
    b->d = words_covering[round];
    memset(b->scales, 0, sizeof b->scales);
    for (size_t g = 0; g < 16; g++) {
        unsigned scale = (unsigned)(i + 5 * g) & 63;
        b->scales[g % 8] |= (uint8_t)((scale & 15) << (g < 8 ? 0 : 4));
        b->scales[8 + g % 4] |= (uint8_t)(scale >> 4 << 2 * (g / 4));
    }
    memset(b->hmask, 0, sizeof b->hmask);
    memset(b->qs, 0, sizeof b->qs);
    for (size_t k = 0; k < 256; k++) {
        size_t sub = k / 32, l = k % 32, code = (l + sub + i) & 7;
        b->qs[32 * (sub / 4) + l] |= (uint8_t)((code & 3) << 2 * (sub % 4));
        b->hmask[l] |= (uint8_t)(code >> 2 << sub);
    }
}

/* Q4_K, or with qh Q5_K. A scale meets another minimum in every round. */
static inline void words_q45_k(uint16_t halves[2], uint8_t scales[12], uint8_t *qh, uint8_t qs[128], size_t i,
                               size_t round)
{
    unsigned scale[8], minimum[8];
    halves[0] = words_covering[round % 16];
    halves[1] = words_covering[(round % 16 + round / 16 * 5 + 3) % 16];
    for (unsigned j = 0; j < 8; j++) {
        scale[j] = (unsigned)(i + 11 * j) & 63;
        minimum[j] = (unsigned)(i + 29 * round + 5 * j) & 63;
    }
    words_six_bits(scales, scale, minimum);
    memset(qs, 0, 128);
    for (size_t k = 0; k < 256; k++) {
        size_t sub = k / 32, l = k % 32, code = (l + sub + i) & 31;
        qs[32 * (sub / 2) + l] |= (uint8_t)((code & 15) << 4 * (sub % 2));
        if (qh != NULL) {
            qh[l] |= (uint8_t)(code >> 4 << sub);
        }
    }
}

/* Every scale of 8 bits at each place in 256 blocks, four times, each time with another quarter of the codes. */
static inline void words_q6_k(struct cr_block_q6_k *b, size_t i, size_t round)
{
    b->d = words_covering[round];
    memset(b->ql, 0, sizeof b->ql);
    memset(b->qh, 0, sizeof b->qh);
    for (size_t g = 0; g < 16; g++) {
        b->scales[g] = (int8_t)(uint8_t)(i + 16 * g);
    }
    for (size_t k = 0; k < 256; k++) {
        size_t half = k / 128, quarter = k / 32 % 4, l = k % 32, code = (16 * (i / 256) + k % 16 + k / 16) & 63;
        b->ql[64 * half + 32 * (quarter & 1) + l] |= (uint8_t)((code & 15) << 4 * (quarter >> 1));
        b->qh[32 * half + l] |= (uint8_t)(code >> 4 << 2 * quarter);
    }
}

static inline void words_iq4_xs(struct cr_block_iq4_xs *b, size_t i, size_t round)
{
    b->d = words_covering[round];
    b->scales_h = 0;
    memset(b->scales_l, 0, sizeof b->scales_l);
    for (size_t j = 0; j < 8; j++) {
        unsigned scale = (unsigned)(i + 11 * j) & 63;
        b->scales_l[j / 2] |= (uint8_t)((scale & 15) << 4 * (j % 2));
        b->scales_h |= (uint16_t)(scale >> 4 << 2 * j);
        words_codes(b->qs + 16 * j, i + j);
    }
}

/* Block i of a round. */
static inline void words_block(const struct words_kind *kind, void *block, size_t i, size_t round)
{
    struct cr_block_q4_k *q4 = block;
    struct cr_block_q5_k *q5 = block;
    uint16_t halves[2];
    switch (kind->type) {
    case CR_Q_Q2_K:
        words_q2_k(block, i, round);
        break;
    case CR_Q_Q3_K:
        words_q3_k(block, i, round);
        break;
    case CR_Q_Q4_K:
        words_q45_k(halves, q4->scales, NULL, q4->qs, i, round);
        memcpy(block, halves, sizeof halves);
        break;
    case CR_Q_Q5_K:
        memset(q5->qh, 0, sizeof q5->qh);
        words_q45_k(halves, q5->scales, q5->qh, q5->qs, i, round);
        memcpy(block, halves, sizeof halves);
        break;
    case CR_Q_Q6_K:
        words_q6_k(block, i, round);
        break;
    case CR_Q_IQ4_XS:
        words_iq4_xs(block, i, round);
        break;
    default:
        words_simple(kind->type, block, i, round);
    }
}

#endif
