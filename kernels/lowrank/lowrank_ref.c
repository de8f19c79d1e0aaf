/* lowrank, the definition: one feature and one token at a time. */
#include "credence/kernels/lowrank.h"

#include "kernels/common/half.h"
#include "kernels/common/tiers.h"
#include "credence/kernels/rng.h"

#include <string.h>

/* Feature k of sixteen tokens. */
static void load_x(const struct cr_lowrank_args *args, size_t block, size_t k, float line[CR_LANES])
{
    const unsigned char *base = (const unsigned char *)args->x + block * args->x_stride;
    if (args->x_type == CR_X_F32) {
        memcpy(line, base + k * CR_LANES * sizeof(float), CR_LANES * sizeof(float));
        return;
    }
    for (size_t lane = 0; lane < CR_LANES; lane++) {
        uint16_t bits;
        memcpy(&bits, base + 2 * cr_tl16_bf16(k, lane), sizeof bits);
        line[lane] = cr_bf16_to_f32(bits);
    }
}

/* Multiplies line by the mask of feature k. The stream's draws come in blocks of eight features. */
static void drop(const struct cr_dropout *dropout, size_t block, size_t k, float line[CR_LANES])
{
    if (dropout->keep16 >= 65536) {
        return;
    }
    float kept = 65536.0f / (float)dropout->keep16;
    for (size_t lane = 0; lane < CR_LANES; lane++) {
        size_t token = block * CR_LANES + lane;
        uint32_t counter[4] = {(uint32_t)(k / 8), dropout->position[token], dropout->example[token], dropout->step};
        uint32_t word[4];
        cr_philox4x32(counter, dropout->key, word);
        uint32_t draw = word[(k % 8) / 2] >> (k % 2 ? 16 : 0) & 0xffff;
        line[lane] *= draw < dropout->keep16 ? kept : 0.0f;
    }
}

static void lowrank_down(const struct cr_lowrank_args *args, size_t begin, size_t end, void *scratch)
{
    (void)scratch;
    for (size_t block = begin; block < end; block++) {
        float *u = args->u + block * args->u_stride;
        memset(u, 0, args->rank * CR_LANES * sizeof(float));
        for (size_t k = 0; k < args->n_features; k++) {
            float x[CR_LANES];
            load_x(args, block, k, x);
            drop(&args->dropout, block, k, x);
            for (size_t i = 0; i < args->rank; i++) {
                float p = args->p[i * args->p_rs + k * args->p_ks];
                for (size_t lane = 0; lane < CR_LANES; lane++) {
                    u[i * CR_LANES + lane] += p * x[lane];
                }
            }
        }
        for (size_t n = 0; n < args->rank * CR_LANES; n++) {
            u[n] *= args->scale;
        }
    }
}

static void lowrank_up(const struct cr_lowrank_args *args, size_t begin, size_t end, void *scratch)
{
    (void)scratch;
    for (size_t block = begin; block < end; block++) {
        const float *u = args->u + block * args->u_stride;
        float *y = args->y + block * args->y_stride;
        for (size_t k = 0; k < args->n_features; k++) {
            float sum[CR_LANES] = {0};
            for (size_t i = 0; i < args->rank; i++) {
                float p = args->p[i * args->p_rs + k * args->p_ks];
                for (size_t lane = 0; lane < CR_LANES; lane++) {
                    sum[lane] += p * u[i * CR_LANES + lane];
                }
            }
            drop(&args->dropout, block, k, sum);
            for (size_t lane = 0; lane < CR_LANES; lane++) {
                y[k * CR_LANES + lane] += sum[lane];
            }
        }
    }
}

/* Halves are added until one lane is left: the order every variant keeps. */
static float lane_sum(float line[CR_LANES])
{
    for (size_t half = CR_LANES / 2; half > 0; half /= 2) {
        for (size_t lane = 0; lane < half; lane++) {
            line[lane] += line[lane + half];
        }
    }
    return line[0];
}

static void lowrank_grad(const struct cr_lowrank_args *args, size_t begin, size_t end, void *scratch)
{
    float *sum = scratch; /* [rank][16] */
    for (size_t k = begin; k < end; k++) {
        memset(sum, 0, args->rank * CR_LANES * sizeof(float));
        for (size_t block = 0; block < args->n_blocks; block++) {
            const float *u = args->u + block * args->u_stride;
            float x[CR_LANES];
            load_x(args, block, k, x);
            drop(&args->dropout, block, k, x);
            for (size_t i = 0; i < args->rank; i++) {
                for (size_t lane = 0; lane < CR_LANES; lane++) {
                    sum[i * CR_LANES + lane] += u[i * CR_LANES + lane] * x[lane];
                }
            }
        }
        for (size_t i = 0; i < args->rank; i++) {
            args->g[i * args->g_rs + k * args->g_ks] += lane_sum(sum + i * CR_LANES);
        }
    }
}

static void fill(struct cr_lowrank_ops *ops)
{
    static const struct cr_lowrank_ops table = {lowrank_down, lowrank_up, lowrank_grad};
    *ops = table;
}

CR_TIER_VARIANT(lowrank, ref)
