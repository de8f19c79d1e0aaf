/* Encoders of the two-level types. Each sub-block's scale comes from its range; the super-block scale is the largest
 * of them over the largest scale code; codes are then chosen against the scales as stored, so rounding of the scales
 * costs nothing twice. Layouts: see kernels/dequant. */
#include <math.h>
#include <string.h>

#include "kernels/common/blocks.h"
#include "kernels/common/half.h"
#include "runtime/io/quantize_private.h"

/* What the half that is stored for `value` gives back. */
static float stored(float value)
{
    return cr_f16_to_f32(cr_f32_to_f16(value));
}

/* round(value / step) into min...max; 0 steps give `zero`. */
static int nearest(float value, float step, int min, int max, int zero)
{
    if (step == 0) {
        return zero;
    }
    float quotient = roundf(value / step);
    return quotient >= (float)max ? max : quotient > (float)min ? (int)quotient : min;
}

/* Scales and minima of n_sub sub-blocks of `size` values for codes 0...max_code: x = d*sc*q - dmin*mn. */
struct affine {
    float d, dmin;
    int scale[16], min[16];
};

static void fit_affine(const float *x, int n_sub, int size, int max_code, int max_scale, struct affine *fit)
{
    float scales[16], mins[16];
    float top_scale = 0, top_min = 0;
    for (int j = 0; j < n_sub; j++) {
        float low = 0, high = 0; /* zero is always a level, so that minima are never negative */
        for (int i = 0; i < size; i++) {
            float value = x[j * size + i];
            low = value < low ? value : low;
            high = value > high ? value : high;
        }
        scales[j] = (high - low) / (float)max_code;
        mins[j] = -low;
        top_scale = scales[j] > top_scale ? scales[j] : top_scale;
        top_min = mins[j] > top_min ? mins[j] : top_min;
    }
    fit->d = stored(top_scale / (float)max_scale);
    fit->dmin = stored(top_min / (float)max_scale);
    for (int j = 0; j < n_sub; j++) {
        fit->scale[j] = nearest(scales[j], fit->d, 0, max_scale, 0);
        fit->min[j] = nearest(mins[j], fit->dmin, 0, max_scale, 0);
    }
}

static int affine_code(const struct affine *fit, int j, float value, int max_code)
{
    float offset = fit->dmin * (float)fit->min[j];
    return nearest(value + offset, fit->d * (float)fit->scale[j], 0, max_code, 0);
}

void cr_quantize_q2_k(const float *x, uint8_t *out)
{
    struct affine fit;
    fit_affine(x, 16, 16, 3, 15, &fit);
    memset(out, 0, 84);
    for (int j = 0; j < 16; j++) {
        out[j] = (uint8_t)(fit.scale[j] | fit.min[j] << 4);
    }
    for (int i = 0; i < 256; i++) {
        int n = i / 128, k = i % 128 / 32, l = i % 32;
        out[16 + 32 * n + l] |= (uint8_t)(affine_code(&fit, i / 16, x[i], 3) << 2 * k);
    }
    cr_quantize_put_half(out + 80, fit.d);
    cr_quantize_put_half(out + 82, fit.dmin);
}

/* The twelve bytes that hold eight 6-bit scales and eight 6-bit minima of Q4_K and Q5_K. */
static void put_six_bits(const struct affine *fit, uint8_t *out)
{
    for (int j = 0; j < 4; j++) {
        out[j] = (uint8_t)(fit->scale[j] | fit->scale[j + 4] >> 4 << 6);
        out[j + 4] = (uint8_t)(fit->min[j] | fit->min[j + 4] >> 4 << 6);
        out[j + 8] = (uint8_t)((fit->scale[j + 4] & 15) | (fit->min[j + 4] & 15) << 4);
    }
}

/* qs starts behind d, dmin, the scales and, for Q5_K, the 32 bytes of fifth bits at 16. */
static void put_q4_or_q5(const float *x, int max_code, uint8_t *out)
{
    struct affine fit;
    uint8_t *high = out + 16;
    uint8_t *qs = max_code == 31 ? out + 48 : out + 16;
    fit_affine(x, 8, 32, max_code, 63, &fit);
    memset(out, 0, max_code == 31 ? 176 : 144);
    cr_quantize_put_half(out, fit.d);
    cr_quantize_put_half(out + 2, fit.dmin);
    put_six_bits(&fit, out + 4);
    for (int i = 0; i < 256; i++) {
        int c = i / 64, h = i % 64 / 32, l = i % 32;
        int code = affine_code(&fit, 2 * c + h, x[i], max_code);
        qs[32 * c + l] |= (uint8_t)((code & 15) << 4 * h);
        if (max_code == 31) {
            high[l] |= (uint8_t)(code >> 4 << (2 * c + h));
        }
    }
}

void cr_quantize_q4_k(const float *x, uint8_t *out)
{
    put_q4_or_q5(x, 15, out);
}

void cr_quantize_q5_k(const float *x, uint8_t *out)
{
    put_q4_or_q5(x, 31, out);
}

/* Signed scales of n_sub sub-blocks such that the value of largest magnitude meets `edge` (the level of largest
 * magnitude): scale codes in -most-1...most, returned d stands for one step of them. */
static float fit_signed(const float *x, int n_sub, int size, float edge, int most, int *codes)
{
    float scales[16];
    float top = 0;
    for (int j = 0; j < n_sub; j++) {
        scales[j] = cr_quantize_largest(x + j * size, (size_t)size) / edge;
        top = fabsf(scales[j]) > top ? fabsf(scales[j]) : top;
    }
    float d = stored(top / (float)most);
    for (int j = 0; j < n_sub; j++) {
        codes[j] = nearest(scales[j], d, -most - 1, most, 0);
    }
    return d;
}

void cr_quantize_q3_k(const float *x, uint8_t *out)
{
    int scale[16];
    float d = fit_signed(x, 16, 16, -4.0f, 31, scale);
    uint8_t *qs = out + 32, *packed = out + 96;
    memset(out, 0, 110);
    for (int s = 0; s < 16; s++) {
        int code = scale[s] + 32;
        packed[s % 8] |= (uint8_t)((code & 15) << (s < 8 ? 0 : 4));
        packed[8 + s % 4] |= (uint8_t)(code >> 4 << 2 * (s / 4));
    }
    for (int i = 0; i < 256; i++) {
        int n = i / 128, k = i % 128 / 32, l = i % 32;
        int code = nearest(x[i], d * (float)scale[i / 16], -4, 3, 0) + 4;
        qs[32 * n + l] |= (uint8_t)((code & 3) << 2 * k);
        out[l] |= (uint8_t)(code >> 2 << (4 * n + k));
    }
    cr_quantize_put_half(out + 108, d);
}

void cr_quantize_q6_k(const float *x, uint8_t *out)
{
    int scale[16];
    float d = fit_signed(x, 16, 16, -32.0f, 127, scale);
    uint8_t *high = out + 128;
    memset(out, 0, 210);
    for (int i = 0; i < 256; i++) {
        int n = i / 128, k = i % 128 / 32, l = i % 32;
        int code = nearest(x[i], d * (float)scale[i / 16], -32, 31, 0) + 32;
        out[64 * n + 32 * (k & 1) + l] |= (uint8_t)((code & 15) << 4 * (k >> 1));
        high[32 * n + l] |= (uint8_t)(code >> 4 << 2 * k);
    }
    for (int j = 0; j < 16; j++) {
        out[192 + j] = (uint8_t)(int8_t)scale[j];
    }
    cr_quantize_put_half(out + 208, d);
}

static const int8_t iq4_levels[16] = CR_IQ4_VALUES; /* ascending */

static int iq4_code(float value, float step)
{
    float target = step != 0 ? value / step : 0;
    int best = 0;
    for (int q = 1; q < 16; q++) {
        float distance = fabsf(target - (float)iq4_levels[q]);
        best = distance < fabsf(target - (float)iq4_levels[best]) ? q : best;
    }
    return best;
}

static void put_iq4(const float *x, float step, uint8_t *qs)
{
    for (int i = 0; i < 16; i++) {
        qs[i] = (uint8_t)(iq4_code(x[i], step) | iq4_code(x[i + 16], step) << 4);
    }
}

void cr_quantize_iq4_nl(const float *x, uint8_t *out)
{
    float d = stored(cr_quantize_largest(x, 32) / -127.0f);
    cr_quantize_put_half(out, d);
    put_iq4(x, d, out + 2);
}

void cr_quantize_iq4_xs(const float *x, uint8_t *out)
{
    int scale[8];
    float d = fit_signed(x, 8, 32, -127.0f, 31, scale);
    int high = 0;
    memset(out, 0, 136);
    cr_quantize_put_half(out, d);
    for (int b = 0; b < 8; b++) {
        int code = scale[b] + 32;
        out[4 + b / 2] |= (uint8_t)((code & 15) << 4 * (b % 2));
        high |= code >> 4 << 2 * b;
        put_iq4(x + 32 * b, d * (float)scale[b], out + 8 + 16 * b);
    }
    out[2] = (uint8_t)high;
    out[3] = (uint8_t)(high >> 8);
}
