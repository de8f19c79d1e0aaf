/* tile: what one micro-tile call works on. */
#ifndef CR_QGEMM_TILE_H
#define CR_QGEMM_TILE_H

#include <stdbool.h>
#include <stddef.h>

#include "kernels/qgemm/plan.h"

/* Step s of output r lies at panel + (s / 16) * 512 + r * CR_TILE_ROW(dx) + (s % 16) * CR_TILE_STEP(dx). */
#define CR_TILE_ROW(dx) ((dx) ? 4 : 64)
#define CR_TILE_STEP(dx) ((dx) ? 32 : 4)

struct tile {
    const char *panel;             /* at the first step of this slab */
    const char *x[CR_QGEMM_GROUP]; /* token blocks at the first line of this slab */
    size_t n_steps;
    bool first, last; /* slab: start from zero, finish into y; else through `partial` */
    float *partial;   /* [8][48] */
    size_t rank;
    const float *lowrank; /* [rank][8] */
    const float *u[CR_QGEMM_GROUP];
    size_t n_rows;     /* outputs of this strip that exist */
    const float *bias; /* of these outputs, or NULL */
    bool accumulate;
    float *y[CR_QGEMM_GROUP];          /* at the first output of this strip */
    const char *ahead[CR_QGEMM_GROUP]; /* token lines wanted next: n_ahead of each go to L2 every 16 steps */
    size_t n_ahead;
};

/* Spread thin over the steps: a burst would stall the tile. */
static inline __attribute__((always_inline)) void fetch_ahead(const struct tile *t, size_t *at)
{
    for (size_t i = 0; i < t->n_ahead; i++) {
        for (int j = 0; j < CR_QGEMM_GROUP; j++) {
            __builtin_prefetch(t->ahead[j] + *at, 0, 2);
        }
        *at += 64;
    }
}

/* Two lines a call of where the tile's outputs go, so that they are at hand when the sums are ready. */
static inline __attribute__((always_inline)) void fetch_outputs(const struct tile *t, size_t *at, const int nb)
{
    for (int i = 0; i < 2 && *at < (size_t)nb * CR_QGEMM_STRIP; i++, ++*at) {
        __builtin_prefetch(t->y[*at / CR_QGEMM_STRIP] + *at % CR_QGEMM_STRIP * 16, 1, 3);
    }
}

#endif
