/* material: splitmix64, blocks with sane scales, and the reading of layouts. */
#include "bench/material.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "bench/cr_bench.h"
#include "kernels/common/half.h"
#include "kernels/common/halves.h"
#include "credence/kernels/dequant.h"

static uint64_t state;

void cr_bench_reseed(void)
{
    state = 1;
}

/* splitmix64 (Steele et al. 2014) */
uint64_t cr_bench_bits(void)
{
    uint64_t z = state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

size_t cr_bench_below(size_t n)
{
    return (size_t)(cr_bench_bits() % n);
}

float cr_bench_uniform(float low, float high)
{
    return low + (high - low) * ((float)(cr_bench_bits() >> 40) * 0x1p-24f);
}

float *cr_bench_floats(size_t n, float low, float high)
{
    float *x = cr_bench_memory(n * sizeof *x);
    for (size_t i = 0; i < n; i++) {
        x[i] = cr_bench_uniform(low, high);
    }
    return x;
}

void *cr_bench_operand(enum cr_xtype type, size_t n_features, size_t n_blocks)
{
    size_t n = n_features * CR_LANES * n_blocks;
    if (type == CR_X_F32) {
        return cr_bench_floats(n, -1, 1);
    }
    uint16_t *x = cr_bench_memory(n * sizeof *x);
    for (size_t i = 0; i < n; i++) {
        x[i] = cr_f32_to_bf16(cr_bench_uniform(-1, 1));
    }
    return x;
}

size_t cr_bench_qbytes(int type, size_t n_values)
{
    const struct cr_qtype_info *info = cr_qtype_info(type);
    return n_values / info->block_values * info->block_bytes;
}

void cr_bench_qname(int type, char name[16])
{
    const char *from = cr_qtype_info(type)->name;
    size_t i = 0;
    for (; i < 15 && from[i] != '\0'; i++) {
        name[i] = from[i] >= 'A' && from[i] <= 'Z' ? (char)(from[i] + 32) : from[i];
    }
    name[i] = '\0';
}

/* A block of one value, or the scale and the minimum of a larger one. */
static void set_scales(unsigned char *block, const struct cr_qtype_info *info)
{
    int type = info->type;
    float value = cr_bench_uniform(-1, 1);
    if (type == CR_Q_F32) {
        memcpy(block, &value, sizeof value);
        return;
    }
    if (info->block_values == 1) {
        uint16_t half = type == CR_Q_F16 ? cr_f32_to_f16(value) : cr_f32_to_bf16(value);
        memcpy(block, &half, sizeof half);
        return;
    }
    uint16_t halves[2] = {cr_f32_to_f16(value * 0x1p-6f), cr_f32_to_f16(cr_bench_uniform(-1, 1) * 0x1p-6f)};
    struct cr_qtype_halves place = cr_qtype_halves(type);
    memcpy(block + place.at, halves, place.n * sizeof *halves);
}

struct cr_qmat cr_bench_qmat(int type, size_t n_rows, size_t n_cols)
{
    const struct cr_qtype_info *info = cr_qtype_info(type);
    size_t row_bytes = cr_bench_qbytes(type, n_cols), n_bytes = row_bytes * n_rows;
    unsigned char *data = cr_bench_memory(n_bytes + 8);
    for (size_t i = 0; i < n_bytes; i += 8) {
        uint64_t bits = cr_bench_bits();
        memcpy(data + i, &bits, 8);
    }
    for (size_t b = 0; b < n_bytes / info->block_bytes; b++) {
        set_scales(data + b * info->block_bytes, info);
    }
    return (struct cr_qmat){data, row_bytes, n_rows, n_cols, type};
}

double cr_bench_operand_at(const void *operand, enum cr_xtype type, size_t n_features, size_t block, size_t feature,
                           size_t lane)
{
    const char *base = (const char *)operand + block * cr_tl16_bytes(type, n_features);
    if (type == CR_X_BF16) {
        return (double)cr_bf16_to_f32(((const uint16_t *)(const void *)base)[cr_tl16_bf16(feature, lane)]);
    }
    return (double)((const float *)(const void *)base)[cr_tl16_f32(feature, lane)];
}

const char *cr_bench_xname(enum cr_xtype type)
{
    return type == CR_X_BF16 ? "bf16" : "f32";
}

double cr_bench_unit_of(enum cr_xtype type)
{
    return type == CR_X_BF16 ? 0x1p-8 : 0x1p-24;
}

bool cr_bench_near(const char *what, size_t at, double got, double want, double bound, char *message,
                   size_t message_bytes)
{
    if (fabs(got - want) <= bound) {
        return true;
    }
    snprintf(message, message_bytes, "%s at %zu: %.9g, expected %.9g, bound %.3g", what, at, got, want, bound);
    return false;
}
