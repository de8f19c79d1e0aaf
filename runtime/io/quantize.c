/* The types whose encoder is defined bit for bit, and the dispatch. */
#include "runtime/io/quantize.h"

#include <math.h>
#include <stdint.h>

#include "kernels/common/half.h"
#include "credence/kernels/dequant.h"
#include "runtime/io/quantize_private.h"

int cr_quantize_code(float value, int max)
{
    if (!(value > 0)) {
        return 0;
    }
    return value < (float)max ? (int)value : max;
}

void cr_quantize_put_half(uint8_t *out, float value)
{
    uint16_t half = cr_f32_to_f16(value);
    out[0] = (uint8_t)half;
    out[1] = (uint8_t)(half >> 8);
}

float cr_quantize_largest(const float *x, size_t n)
{
    float largest = 0;
    for (size_t i = 0; i < n; i++) {
        largest = fabsf(x[i]) > fabsf(largest) ? x[i] : largest;
    }
    return largest;
}

static float inverse(float d)
{
    return d != 0 ? 1.0f / d : 0;
}

/* Element i < 16 in the low nibble of qs[i], i + 16 in the high one; bit 4 of the code into bit i of qh. */
static uint32_t put_codes(uint8_t *qs, size_t i, int low, int high)
{
    qs[i] = (uint8_t)((low & 15) | (high & 15) << 4);
    return (uint32_t)(low >> 4 & 1) << i | (uint32_t)(high >> 4 & 1) << (i + 16);
}

static void put_u32(uint8_t *out, uint32_t value)
{
    for (int i = 0; i < 4; i++) {
        out[i] = (uint8_t)(value >> 8 * i);
    }
}

/* Q4_0 (half_levels 8) and Q5_0 (16): symmetric around a zero code. */
static void block_symmetric(const float *x, int half_levels, uint8_t *out)
{
    float d = cr_quantize_largest(x, 32) / (float)-half_levels;
    float id = inverse(d);
    float shift = (float)half_levels + 0.5f;
    uint8_t *qs = out + (half_levels == 8 ? 2 : 6);
    uint32_t fifth = 0;
    cr_quantize_put_half(out, d);
    for (size_t i = 0; i < 16; i++) {
        fifth |= put_codes(qs, i, cr_quantize_code(x[i] * id + shift, 2 * half_levels - 1),
                           cr_quantize_code(x[i + 16] * id + shift, 2 * half_levels - 1));
    }
    if (half_levels == 16) {
        put_u32(out + 2, fifth);
    }
}

/* Q4_1 (max_code 15) and Q5_1 (31): from the smallest value up. */
static void block_offset(const float *x, int max_code, uint8_t *out)
{
    float min = x[0], max = x[0];
    for (size_t i = 1; i < 32; i++) {
        min = x[i] < min ? x[i] : min;
        max = x[i] > max ? x[i] : max;
    }
    float d = (max - min) / (float)max_code;
    float id = inverse(d);
    uint8_t *qs = out + (max_code == 15 ? 4 : 8);
    uint32_t fifth = 0;
    cr_quantize_put_half(out, d);
    cr_quantize_put_half(out + 2, min);
    for (size_t i = 0; i < 16; i++) {
        fifth |= put_codes(qs, i, cr_quantize_code((x[i] - min) * id + 0.5f, max_code),
                           cr_quantize_code((x[i + 16] - min) * id + 0.5f, max_code));
    }
    if (max_code == 31) {
        put_u32(out + 4, fifth);
    }
}

static void block_q4_0(const float *x, uint8_t *out)
{
    block_symmetric(x, 8, out);
}

static void block_q5_0(const float *x, uint8_t *out)
{
    block_symmetric(x, 16, out);
}

static void block_q4_1(const float *x, uint8_t *out)
{
    block_offset(x, 15, out);
}

static void block_q5_1(const float *x, uint8_t *out)
{
    block_offset(x, 31, out);
}

static void block_q8_0(const float *x, uint8_t *out)
{
    float d = fabsf(cr_quantize_largest(x, 32)) / 127.0f;
    float id = inverse(d);
    cr_quantize_put_half(out, d);
    for (size_t i = 0; i < 32; i++) {
        float code = roundf(x[i] * id);
        out[2 + i] = (uint8_t)(int8_t)(code >= -127.0f && code <= 127.0f ? code : 0);
    }
}

static void value_f32(const float *x, uint8_t *out)
{
    put_u32(out, cr_f32_bits(*x));
}

static void value_f16(const float *x, uint8_t *out)
{
    cr_quantize_put_half(out, *x);
}

static void value_bf16(const float *x, uint8_t *out)
{
    uint16_t bits = cr_f32_to_bf16(*x);
    out[0] = (uint8_t)bits;
    out[1] = (uint8_t)(bits >> 8);
}

static const struct {
    int type;
    cr_quantize_block_fn *encode;
} encoders[] = {
    {CR_Q_F32, value_f32},         {CR_Q_F16, value_f16},         {CR_Q_BF16, value_bf16},
    {CR_Q_Q4_0, block_q4_0},       {CR_Q_Q4_1, block_q4_1},       {CR_Q_Q5_0, block_q5_0},
    {CR_Q_Q5_1, block_q5_1},       {CR_Q_Q8_0, block_q8_0},       {CR_Q_IQ4_NL, cr_quantize_iq4_nl},
    {CR_Q_Q2_K, cr_quantize_q2_k}, {CR_Q_Q3_K, cr_quantize_q3_k}, {CR_Q_Q4_K, cr_quantize_q4_k},
    {CR_Q_Q5_K, cr_quantize_q5_k}, {CR_Q_Q6_K, cr_quantize_q6_k}, {CR_Q_IQ4_XS, cr_quantize_iq4_xs},
};

bool cr_quantize_row(int type, const float *x, size_t n, void *out)
{
    const struct cr_qtype_info *info = cr_qtype_info(type);
    uint8_t *bytes = out;
    for (size_t e = 0; e < sizeof encoders / sizeof encoders[0]; e++) {
        if (encoders[e].type != type) {
            continue;
        }
        if (n % info->block_values != 0) {
            return false;
        }
        for (size_t i = 0; i < n / info->block_values; i++) {
            encoders[e].encode(x + i * info->block_values, bytes + i * info->block_bytes);
        }
        return true;
    }
    return false;
}
