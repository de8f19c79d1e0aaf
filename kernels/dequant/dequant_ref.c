/* The definition of every served type: one function for 32 consecutive values of a block, `sub` counts them. */
#include <string.h>

#include "kernels/common/blocks.h"
#include "kernels/common/half.h"
#include "kernels/dequant/variants.h"

static const int8_t iq4_values[16] = CR_IQ4_VALUES;

static void q4_0(const struct cr_block_q4_0 *b, size_t sub, float out[32])
{
    (void)sub;
    float d = cr_f16_to_f32(b->d);
    for (int i = 0; i < 16; i++) {
        out[i] = d * (float)((b->qs[i] & 15) - 8);
        out[i + 16] = d * (float)((b->qs[i] >> 4) - 8);
    }
}

static void q4_1(const struct cr_block_q4_1 *b, size_t sub, float out[32])
{
    (void)sub;
    float d = cr_f16_to_f32(b->d), m = cr_f16_to_f32(b->m);
    for (int i = 0; i < 16; i++) {
        out[i] = d * (float)(b->qs[i] & 15) + m;
        out[i + 16] = d * (float)(b->qs[i] >> 4) + m;
    }
}

static void q5_0(const struct cr_block_q5_0 *b, size_t sub, float out[32])
{
    (void)sub;
    float d = cr_f16_to_f32(b->d);
    for (int i = 0; i < 16; i++) {
        int low = (b->qs[i] & 15) | (int)(b->qh >> i & 1u) << 4;
        int high = (b->qs[i] >> 4) | (int)(b->qh >> (i + 16) & 1u) << 4;
        out[i] = d * (float)(low - 16);
        out[i + 16] = d * (float)(high - 16);
    }
}

static void q5_1(const struct cr_block_q5_1 *b, size_t sub, float out[32])
{
    (void)sub;
    float d = cr_f16_to_f32(b->d), m = cr_f16_to_f32(b->m);
    for (int i = 0; i < 16; i++) {
        int low = (b->qs[i] & 15) | (int)(b->qh >> i & 1u) << 4;
        int high = (b->qs[i] >> 4) | (int)(b->qh >> (i + 16) & 1u) << 4;
        out[i] = d * (float)low + m;
        out[i + 16] = d * (float)high + m;
    }
}

static void q8_0(const struct cr_block_q8_0 *b, size_t sub, float out[32])
{
    (void)sub;
    float d = cr_f16_to_f32(b->d);
    for (int i = 0; i < 32; i++) {
        out[i] = d * (float)b->qs[i];
    }
}

static void iq4_nl(const struct cr_block_q4_0 *b, size_t sub, float out[32])
{
    (void)sub;
    float d = cr_f16_to_f32(b->d);
    for (int i = 0; i < 16; i++) {
        out[i] = d * (float)iq4_values[b->qs[i] & 15];
        out[i + 16] = d * (float)iq4_values[b->qs[i] >> 4];
    }
}

static void q2_k(const struct cr_block_q2_k *b, size_t sub, float out[32])
{
    float d = cr_f16_to_f32(b->d), dmin = cr_f16_to_f32(b->dmin);
    const uint8_t *qs = b->qs + 32 * (sub / 4);
    for (size_t l = 0; l < 32; l++) {
        unsigned s = b->scales[2 * sub + l / 16];
        float level = (float)(qs[l] >> (2 * (sub % 4)) & 3);
        out[l] = d * (float)(s & 15u) * level - dmin * (float)(s >> 4);
    }
}

static void q3_k(const struct cr_block_q3_k *b, size_t sub, float out[32])
{
    float d = cr_f16_to_f32(b->d);
    const uint8_t *qs = b->qs + 32 * (sub / 4);
    for (size_t l = 0; l < 32; l++) {
        int scale = cr_q3_k_scale(b->scales, (unsigned)(2 * sub + l / 16));
        int level = (qs[l] >> (2 * (sub % 4)) & 3) - (b->hmask[l] >> sub & 1 ? 0 : 4);
        out[l] = d * (float)scale * (float)level;
    }
}

static void q4_k(const struct cr_block_q4_k *b, size_t sub, float out[32])
{
    unsigned scale, minimum;
    cr_k_scale_min(b->scales, (unsigned)sub, &scale, &minimum);
    float d = cr_f16_to_f32(b->d) * (float)scale, m = cr_f16_to_f32(b->dmin) * (float)minimum;
    const uint8_t *qs = b->qs + 32 * (sub / 2);
    for (int l = 0; l < 32; l++) {
        out[l] = d * (float)(qs[l] >> (4 * (sub & 1)) & 15) - m;
    }
}

static void q5_k(const struct cr_block_q5_k *b, size_t sub, float out[32])
{
    unsigned scale, minimum;
    cr_k_scale_min(b->scales, (unsigned)sub, &scale, &minimum);
    float d = cr_f16_to_f32(b->d) * (float)scale, m = cr_f16_to_f32(b->dmin) * (float)minimum;
    const uint8_t *qs = b->qs + 32 * (sub / 2);
    for (int l = 0; l < 32; l++) {
        int level = (qs[l] >> (4 * (sub & 1)) & 15) | (b->qh[l] >> sub & 1) << 4;
        out[l] = d * (float)level - m;
    }
}

static void q6_k(const struct cr_block_q6_k *b, size_t sub, float out[32])
{
    float d = cr_f16_to_f32(b->d);
    size_t n = sub / 4, k = sub % 4;
    const uint8_t *ql = b->ql + 64 * n + 32 * (k & 1);
    const uint8_t *qh = b->qh + 32 * n;
    for (size_t l = 0; l < 32; l++) {
        int level = (ql[l] >> (4 * (k >> 1)) & 15) | (qh[l] >> (2 * k) & 3) << 4;
        out[l] = d * (float)b->scales[2 * sub + l / 16] * (float)(level - 32);
    }
}

static void iq4_xs(const struct cr_block_iq4_xs *b, size_t sub, float out[32])
{
    float d = cr_f16_to_f32(b->d) * (float)cr_iq4_xs_scale(b, (unsigned)sub);
    const uint8_t *qs = b->qs + 16 * sub;
    for (int l = 0; l < 16; l++) {
        out[l] = d * (float)iq4_values[qs[l] & 15];
        out[l + 16] = d * (float)iq4_values[qs[l] >> 4];
    }
}

CR_DEQUANT_BLOCKS(CR_DEQUANT_ROW)

static void f32_row(const void *row, size_t first, size_t n, float *out)
{
    memcpy(out, (const char *)row + 4 * first, 4 * n);
}

static void f16_row(const void *row, size_t first, size_t n, float *out)
{
    for (size_t i = 0; i < n; i++) {
        uint16_t half;
        memcpy(&half, (const char *)row + 2 * (first + i), 2);
        out[i] = cr_f16_to_f32(half);
    }
}

static void bf16_row(const void *row, size_t first, size_t n, float *out)
{
    for (size_t i = 0; i < n; i++) {
        uint16_t half;
        memcpy(&half, (const char *)row + 2 * (first + i), 2);
        out[i] = cr_bf16_to_f32(half);
    }
}

cr_dequant_fn *const cr_dequant_ref[CR_DEQUANT_TYPES] = {
    [CR_Q_F32] = f32_row, [CR_Q_F16] = f16_row, [CR_Q_BF16] = bf16_row, CR_DEQUANT_BLOCKS(CR_DEQUANT_ENTRY)};
