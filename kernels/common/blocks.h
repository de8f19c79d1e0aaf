/* blocks: the packed structures of the GGUF tensor types, as they lie in the file (little-endian, no alignment).
 *
 * Halves are kept as their bits. "Nibble order": value i < 16 is the low nibble of qs[i], value i >= 16 the high nibble
 * of qs[i - 16]. The formula of each type is at its case in kernels/dequant/dequant_ref.c.
 */
#ifndef CR_COMMON_BLOCKS_H
#define CR_COMMON_BLOCKS_H

#include <stdint.h>

#define CR_PACKED __attribute__((packed))

struct CR_PACKED cr_block_q4_0 { /* also IQ4_NL */
    uint16_t d;
    uint8_t qs[16];
};

struct CR_PACKED cr_block_q4_1 {
    uint16_t d, m;
    uint8_t qs[16];
};

struct CR_PACKED cr_block_q5_0 {
    uint16_t d;
    uint32_t qh;
    uint8_t qs[16];
};

struct CR_PACKED cr_block_q5_1 {
    uint16_t d, m;
    uint32_t qh;
    uint8_t qs[16];
};

struct CR_PACKED cr_block_q8_0 {
    uint16_t d;
    int8_t qs[32];
};

struct CR_PACKED cr_block_q2_k {
    uint8_t scales[16];
    uint8_t qs[64];
    uint16_t d, dmin;
};

struct CR_PACKED cr_block_q3_k {
    uint8_t hmask[32];
    uint8_t qs[64];
    uint8_t scales[12];
    uint16_t d;
};

struct CR_PACKED cr_block_q4_k {
    uint16_t d, dmin;
    uint8_t scales[12];
    uint8_t qs[128];
};

struct CR_PACKED cr_block_q5_k {
    uint16_t d, dmin;
    uint8_t scales[12];
    uint8_t qh[32];
    uint8_t qs[128];
};

struct CR_PACKED cr_block_q6_k {
    uint8_t ql[128];
    uint8_t qh[64];
    int8_t scales[16];
    uint16_t d;
};

struct CR_PACKED cr_block_iq4_xs {
    uint16_t d;
    uint16_t scales_h;
    uint8_t scales_l[4];
    uint8_t qs[128];
};

_Static_assert(sizeof(struct cr_block_q4_0) == 18, "Q4_0 takes 18 bytes");
_Static_assert(sizeof(struct cr_block_q4_1) == 20, "Q4_1 takes 20 bytes");
_Static_assert(sizeof(struct cr_block_q5_0) == 22, "Q5_0 takes 22 bytes");
_Static_assert(sizeof(struct cr_block_q5_1) == 24, "Q5_1 takes 24 bytes");
_Static_assert(sizeof(struct cr_block_q8_0) == 34, "Q8_0 takes 34 bytes");
_Static_assert(sizeof(struct cr_block_q2_k) == 84, "Q2_K takes 84 bytes");
_Static_assert(sizeof(struct cr_block_q3_k) == 110, "Q3_K takes 110 bytes");
_Static_assert(sizeof(struct cr_block_q4_k) == 144, "Q4_K takes 144 bytes");
_Static_assert(sizeof(struct cr_block_q5_k) == 176, "Q5_K takes 176 bytes");
_Static_assert(sizeof(struct cr_block_q6_k) == 210, "Q6_K takes 210 bytes");
_Static_assert(sizeof(struct cr_block_iq4_xs) == 136, "IQ4_XS takes 136 bytes");

/* Scale and minimum of the 32-value sub-block j of Q4_K and Q5_K: eight 6-bit pairs in 12 bytes. */
static inline void cr_k_scale_min(const uint8_t s[12], unsigned j, unsigned *scale, unsigned *minimum)
{
    if (j < 4) {
        *scale = s[j] & 63u;
        *minimum = s[j + 4] & 63u;
    } else {
        *scale = (s[j + 4] & 15u) | (unsigned)(s[j - 4] >> 6) << 4;
        *minimum = (unsigned)(s[j + 4] >> 4) | (unsigned)(s[j] >> 6) << 4;
    }
}

/* Scale of the group j of 16 values of Q3_K: sixteen of 6 bits in 12 bytes, less 32. */
static inline int cr_q3_k_scale(const uint8_t s[12], unsigned j)
{
    int low = j < 8 ? s[j] & 15 : s[j - 8] >> 4;
    return (low | (s[8 + j % 4] >> (2 * (j / 4)) & 3) << 4) - 32;
}

/* Scale of the run j of 32 values of IQ4_XS: eight of 6 bits, less 32. */
static inline int cr_iq4_xs_scale(const struct cr_block_iq4_xs *b, unsigned j)
{
    return ((b->scales_l[j / 2] >> (4 * (j % 2)) & 15) | (b->scales_h >> (2 * j) & 3) << 4) - 32;
}

/* Code book of IQ4_NL and IQ4_XS. */
#define CR_IQ4_VALUES                                                                                                  \
    {                                                                                                                  \
        -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113                                       \
    }

#endif
