/* amx_lowrank: the low-rank term as further steps of the tile product, with the accuracy of f32.
 *
 * Of the nine products of the parts of two floats (lanes_split.h), six count: the other three are together below 2^-24
 * of the whole, what one rounding may take. They stand in six groups of features, small products first, so that the
 * roundings that matter are those of the last group, one a rank:
 *
 *   of p      low   high  middle  middle  high    high
 *   of u      high  low   middle  high    middle  high
 *
 * Sixteen ranks make three steps, where f32 arithmetic would take 1024 vector operations a strip and pair of blocks.
 */
#ifndef CR_QGEMM_AMX_LOWRANK_H
#define CR_QGEMM_AMX_LOWRANK_H

#include <string.h>

#include "credence/kernels/qgemm.h"
#include "kernels/common/amx_tile.h"
#include "kernels/common/lanes.h"
#include "kernels/common/lanes_split.h"
#include "kernels/qgemm/amx_plan.h"
#include "kernels/qgemm/members.h"

typedef uint16_t lane_words __attribute__((vector_size(2 * LANES_N), may_alias));
typedef uint16_t lane_words_unaligned __attribute__((vector_size(2 * LANES_N), may_alias, aligned(2)));

/* Rows [out, out + n_out) of the low-rank matrix as strips of tiles. `row` is room for one of them. */
static void pack_p(const struct cr_qgemm_member *m, size_t out, size_t n_out, char *to, char *row)
{
    static const int part_of[AMX_PARTS] = {2, 0, 1, 1, 0, 0};
    size_t even = (m->rank + 1) / 2 * 2, padded = (m->rank + LANES_N - 1) / LANES_N * LANES_N;
    size_t n_steps = amx_lowrank_steps(m->rank);
    float *values = (float *)(void *)row;
    uint16_t *parts = (uint16_t *)(void *)(values + even + 32), *words = parts + 3 * (even + 32);
    memset(values, 0, padded * sizeof *values);
    for (size_t o = 0; o < (n_out + 15) / 16 * 16; o++) {
        for (size_t i = 0; i < m->rank; i++) {
            values[i] = o < n_out ? m->p[(out + o) * m->p_os + i * m->p_rs] : 0;
        }
        for (size_t i = 0; i < padded; i += LANES_N) {
            lanes_u part[3];
            split3(lanes_loadu(values + i), part);
            for (size_t k = 0; k < 3; k++) {
                *(lane_words_unaligned *)(parts + k * (even + 32) + i) =
                    __builtin_convertvector(part[k] >> 16, lane_words);
            }
        }
        for (size_t g = 0; g < AMX_PARTS; g++) { /* the zeros behind a group are overwritten by the next */
            for (size_t i = 0; i < even; i += LANES_N) {
                const uint16_t *from = parts + (size_t)part_of[g] * (even + 32) + i;
                *(lane_words_unaligned *)(words + g * even + i) = *(const lane_words_unaligned *)from;
            }
        }
        char *tile = to + o / AMX_STRIP * n_steps * AMX_STEP_BYTES + o % AMX_STRIP * 64;
        for (size_t f = 0; f < n_steps * AMX_STEP; f += AMX_STEP) {
            size_t n = AMX_PARTS * even - f < AMX_STEP ? AMX_PARTS * even - f : AMX_STEP;
            memset(tile + f / AMX_STEP * AMX_STEP_BYTES, 0, 64);
            memcpy(tile + f / AMX_STEP * AMX_STEP_BYTES, words + f, 2 * n);
        }
    }
}

/* Token blocks u[0] .. u[n_tokens - 1] as tiles of lines. */
static void pack_u(const float *const u[2], size_t n_tokens, size_t rank, char *to)
{
    static const int part_of[AMX_PARTS] = {0, 2, 1, 0, 1, 0};
    size_t n_pairs = (rank + 1) / 2, n_lines = amx_lowrank_steps(rank) * AMX_ROWS;
    for (size_t j = 0; j < n_tokens; j++) {
#define CR_LINE(line) (to + (line) / AMX_ROWS * AMX_STEP_BYTES + j * AMX_TILE_BYTES + (line) % AMX_ROWS * 64)
        for (size_t i = 0; i < n_pairs; i++) {
            for (size_t col = 0; col < CR_LANES; col += LANES_N) {
                lanes_u even[3], odd[3];
                split3(lanes_load(u[j] + 2 * i * CR_LANES + col), even);
                split3(2 * i + 1 < rank ? lanes_load(u[j] + (2 * i + 1) * CR_LANES + col) : lanes_zero(), odd);
                for (size_t g = 0; g < AMX_PARTS; g++) {
                    lanes_u words = even[part_of[g]] >> 16 | odd[part_of[g]];
                    lanes_store_u((uint32_t *)(void *)CR_LINE(g * n_pairs + i) + col, words);
                }
            }
        }
        for (size_t line = AMX_PARTS * n_pairs; line < n_lines; line++) {
            memset(CR_LINE(line), 0, 64);
        }
#undef CR_LINE
    }
}

#endif
