/* amx_model: the tile instructions as C on a register file in memory. Exact: the same bits as the hardware.
 *
 * Source: Intel SDM volume 2, the operation sections of LDTILECFG, TILELOADD, TILESTORED, TILEZERO and TDPBF16PS.
 * Where the hardware faults (an unusable configuration, a tile that is not configured, shapes that do not fit), the
 * model traps, so a kernel that runs on it also keeps the rules. NaN payloads are not modelled.
 *
 * TDPBF16PS: for every row of a and column of b, the products of the even elements and those of the odd elements form
 * two chains of fused multiply-adds that start from zero; their sum is then added to c. Every step rounds to nearest
 * even, takes subnormal inputs for zero and flushes subnormal results, with the sign kept.
 */
#ifndef CR_COMMON_AMX_MODEL_H
#define CR_COMMON_AMX_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "kernels/common/half.h"

struct amx_config;

struct amx_model {
    bool configured;
    size_t rows[8], row_bytes[8];
    uint8_t data[8][16][64];
};

static inline void amx_model_need(bool holds)
{
    if (!holds) {
        __builtin_trap();
    }
}

static inline bool amx_model_usable(const struct amx_model *m, int t)
{
    return m->configured && t >= 0 && t < 8 && m->rows[t] > 0 && m->row_bytes[t] > 0;
}

static inline void amx_model_config(struct amx_model *m, const struct amx_config *config)
{
    uint8_t bytes[64];
    memcpy(bytes, config, sizeof bytes);
    amx_model_need(bytes[0] == 1 && bytes[1] == 0);
    for (int i = 2; i < 16; i++) {
        amx_model_need(bytes[i] == 0);
    }
    memset(m, 0, sizeof *m);
    for (int t = 0; t < 16; t++) {
        size_t row_bytes = bytes[16 + 2 * t] | (size_t)bytes[17 + 2 * t] << 8, rows = bytes[48 + t];
        amx_model_need(row_bytes <= 64 && rows <= 16 && (rows == 0) == (row_bytes == 0));
        amx_model_need(t < 8 || rows == 0);
        if (t < 8) {
            m->rows[t] = rows;
            m->row_bytes[t] = row_bytes;
        }
    }
    m->configured = true;
}

static inline void amx_model_release(struct amx_model *m)
{
    memset(m, 0, sizeof *m);
}

static inline void amx_model_zero(struct amx_model *m, int t)
{
    amx_model_need(amx_model_usable(m, t));
    memset(m->data[t], 0, sizeof m->data[t]);
}

/* Bytes and rows outside the configuration become zero. */
static inline void amx_model_load(struct amx_model *m, int t, const void *p, size_t stride)
{
    amx_model_zero(m, t);
    for (size_t r = 0; r < m->rows[t]; r++) {
        memcpy(m->data[t][r], (const char *)p + r * stride, m->row_bytes[t]);
    }
}

static inline void amx_model_store(const struct amx_model *m, int t, void *p, size_t stride)
{
    amx_model_need(amx_model_usable(m, t));
    for (size_t r = 0; r < m->rows[t]; r++) {
        memcpy((char *)p + r * stride, m->data[t][r], m->row_bytes[t]);
    }
}

static inline float amx_model_input(float x)
{
    uint32_t bits = cr_f32_bits(x);
    return (bits & 0x7f800000u) == 0 ? cr_f32_from_bits(bits & 0x80000000u) : x;
}

/* One rounding of an exact sum held in a double. Tiny is decided after rounding to 24 bits, as everywhere on x86: the
 * bound lies half a unit of those below 2^-126. */
static inline float amx_model_round(double x)
{
    double magnitude = __builtin_fabs(x);
    return magnitude < 0x1.ffffffp-127 ? (float)__builtin_copysign(0.0, x) : (float)x;
}

/* x + a b with one rounding. The product of two bf16 numbers is exact in a double. The sum may not be, but then the
 * smaller of its terms lies more than 29 bits below the larger one, which has at most 24 bits: the double is no
 * half-way case of f32 unless the exact sum is one, and the second rounding gives what one would. */
static inline float amx_model_fma(float x, double a, double b)
{
    return amx_model_round((double)x + a * b);
}

static inline void amx_model_dp(struct amx_model *m, int c, int a, int b)
{
    amx_model_need(amx_model_usable(m, a) && amx_model_usable(m, b) && amx_model_usable(m, c));
    amx_model_need(a != b && a != c && b != c);
    size_t n_rows = m->rows[c], n_pairs = m->row_bytes[a] / 4, n_columns = m->row_bytes[c] / 4;
    amx_model_need(m->row_bytes[a] % 4 == 0 && m->row_bytes[b] % 4 == 0 && m->row_bytes[c] % 4 == 0);
    amx_model_need(m->rows[a] == n_rows && m->rows[b] == n_pairs && m->row_bytes[b] == m->row_bytes[c]);
    double columns[2][16][16];
    for (size_t k = 0; k < n_pairs; k++) {
        for (size_t n = 0; n < 16; n++) {
            uint16_t pair[2];
            memcpy(pair, m->data[b][k] + 4 * n, 4);
            columns[0][k][n] = (double)amx_model_input(cr_bf16_to_f32(pair[0]));
            columns[1][k][n] = (double)amx_model_input(cr_bf16_to_f32(pair[1]));
        }
    }
    for (size_t r = 0; r < n_rows; r++) {
        float chain[2][16] = {{0}};
        for (size_t k = 0; k < n_pairs; k++) {
            for (size_t odd = 0; odd < 2; odd++) {
                uint16_t half;
                memcpy(&half, m->data[a][r] + 4 * k + 2 * odd, 2);
                double value = (double)amx_model_input(cr_bf16_to_f32(half));
                for (size_t n = 0; n < 16; n++) {
                    chain[odd][n] = amx_model_fma(chain[odd][n], value, columns[odd][k][n]);
                }
            }
        }
        for (size_t n = 0; n < n_columns; n++) {
            float sum;
            memcpy(&sum, m->data[c][r] + 4 * n, 4);
            float dot = amx_model_round((double)chain[0][n] + (double)chain[1][n]);
            sum = amx_model_round((double)amx_model_input(sum) + (double)dot);
            memcpy(m->data[c][r] + 4 * n, &sum, 4);
        }
    }
}

#endif
