/* amx_micro: 32 outputs by 32 tokens in four tiles, and what is done between its steps.
 *
 * Tiles 0 to 3 are sums, 4 and 5 weights, 6 and 7 tokens. A step is four loads and four products of 16 cycles each, in
 * which the vector units idle: `between` gives them a share of the sums of the last micro-tile, prefetches, and
 * pieces of the next panel.
 */
#ifndef CR_QGEMM_AMX_MICRO_H
#define CR_QGEMM_AMX_MICRO_H

#include "kernels/common/amx_tile.h"
#include "kernels/qgemm/amx_panel.h"

/* Finished sums that still have to reach y: y = (y +) (sum + bias) */
struct late {
    const float *sums; /* [2 token blocks][32 outputs][16] */
    float *y[2];
    const float *bias;
    bool add;
    size_t at, n_rows; /* outputs done, outputs */
    size_t n_tokens;   /* token blocks */
};

struct work {
    struct late late;
    size_t share;         /* rows of `late`, and of y to be fetched, in one step */
    float *y[2];          /* where this micro-tile will write: next row */
    size_t y_left;        /* rows */
    const char *ahead[2]; /* next token lines wanted in the second-level cache; NULL when there are none */
    size_t n_ahead;       /* of each block in one step */
    struct cursor *next;  /* panel being made */
    uint64_t due, rate;   /* pieces, in 2^-32 */
};

/* What one micro-tile works on: three runs of steps into the same sums. */
struct micro {
    const char *w, *x[2];
    size_t n_steps; /* whole steps */
    const char *tail;
    size_t n_tail; /* 0 or 1: zero-padded copy of the last lines */
    const char *p, *u;
    size_t n_lowrank;
    float *y[2];
    const float *bias; /* or NULL */
    bool add;
    size_t n_rows, n_tokens; /* outputs to 32, token blocks to 2 */
    bool keep_x;             /* tokens fit the first-level cache, where they serve strip after strip */
};

CR_INLINE void late_rows(struct late *l, size_t n)
{
    for (; n > 0 && l->at < l->n_rows; n--, l->at++) {
        for (size_t j = 0; j < l->n_tokens; j++) {
            const float *from = l->sums + (j * AMX_STRIP + l->at) * CR_LANES;
            float *y = l->y[j] + l->at * CR_LANES;
            for (size_t col = 0; col < CR_LANES; col += LANES_N) {
                lanes sum = lanes_load(from + col);
                if (l->bias != NULL) {
                    sum = sum + lanes_splat(l->bias[l->at]);
                }
                if (l->add) {
                    sum = lanes_load(y + col) + sum;
                }
                lanes_store(y + col, sum);
            }
        }
    }
}

CR_INLINE void between(struct work *work)
{
    late_rows(&work->late, work->share);
    for (size_t n = work->share; n > 0 && work->y_left > 0; n--, work->y_left--) {
        __builtin_prefetch(work->y[0], 1, 3);
        __builtin_prefetch(work->y[1], 1, 3);
        work->y[0] += CR_LANES;
        work->y[1] += CR_LANES;
    }
    if (work->ahead[0] != NULL) {
        for (size_t n = work->n_ahead; n > 0; n--) { /* into L1 they would drive out what the step needs */
            __builtin_prefetch(work->ahead[0], 0, 2);
            __builtin_prefetch(work->ahead[1], 0, 2);
            work->ahead[0] += 64;
            work->ahead[1] += 64;
        }
    }
    for (work->due += work->rate; work->due >> 32 != 0 && work->next->left > 0; work->due -= 1ull << 32) {
        work->next->piece(work->next);
    }
}

CR_INLINE void steps(const char *w, const char *x0, const char *x1, size_t x_next, size_t n, const int nw, const int nx,
                     const bool keep_x, struct work *work)
{
    for (; n > 0; n--) {
        amx_load_once(4, w, 64);
        if (keep_x) {
            amx_load(6, x0, 64);
        } else {
            amx_load_once(6, x0, 64);
        }
        amx_dp(0, 4, 6);
        if (nw > 1) {
            amx_load_once(5, w + AMX_TILE_BYTES, 64);
            amx_dp(1, 5, 6);
        }
        if (nx > 1) {
            if (keep_x) {
                amx_load(7, x1, 64);
            } else {
                amx_load_once(7, x1, 64);
            }
            amx_dp(2, 4, 7);
            if (nw > 1) {
                amx_dp(3, 5, 7);
            }
        }
        between(work);
        w += AMX_STEP_BYTES;
        x0 += x_next;
        x1 += x_next;
    }
}

CR_INLINE void store_sums(float *y0, float *y1, const int nw, const int nx)
{
    amx_store(0, y0, 64);
    if (nw > 1) {
        amx_store(1, y0 + 256, 64);
    }
    if (nx > 1) {
        amx_store(2, y1, 64);
        if (nw > 1) {
            amx_store(3, y1 + 256, 64);
        }
    }
}

CR_INLINE void micro_body(const struct micro *m, struct work *work, float *sums, const int nw, const int nx,
                          const bool keep_x)
{
    amx_zero(0);
    if (nw > 1) {
        amx_zero(1);
    }
    if (nx > 1) {
        amx_zero(2);
        if (nw > 1) {
            amx_zero(3);
        }
    }
    const char *w = m->w;
    steps(w, m->x[0], m->x[1], AMX_TILE_BYTES, m->n_steps, nw, nx, keep_x, work);
    w += m->n_steps * AMX_STEP_BYTES;
    steps(w, m->tail, m->tail + AMX_TILE_BYTES, AMX_STEP_BYTES, m->n_tail, nw, nx, true, work);
    steps(m->p, m->u, m->u + AMX_TILE_BYTES, AMX_STEP_BYTES, m->n_lowrank, nw, nx, true, work);
    late_rows(&work->late, AMX_STRIP);
    if (m->bias == NULL && !m->add && m->n_rows % 16 == 0) {
        store_sums(m->y[0], m->y[1], nw, nx);
        work->late.at = work->late.n_rows = 0;
        return;
    }
    store_sums(sums, sums + AMX_STRIP * CR_LANES, nw, nx);
    work->late = (struct late){sums, {m->y[0], m->y[1]}, m->bias, m->add, 0, m->n_rows, m->n_tokens};
}

/* `sums`: two rooms, used in turn, because those of the last micro-tile are still being written out. */
static void micro_run(const struct micro *m, struct work *work, float *sums)
{
    size_t n_steps = m->n_steps + m->n_tail + m->n_lowrank;
    work->share = (m->n_rows + n_steps - 1) / n_steps;
    work->y[0] = m->y[0];
    work->y[1] = m->y[m->n_tokens - 1];
    work->y_left = m->n_rows;
    float *room = work->late.sums == sums ? sums + 2 * AMX_STRIP * CR_LANES : sums;
    switch ((m->n_rows > 16 ? 4 : 0) + (m->n_tokens > 1 ? 2 : 0) + m->keep_x) {
    case 0:
        micro_body(m, work, room, 1, 1, false);
        break;
    case 1:
        micro_body(m, work, room, 1, 1, true);
        break;
    case 2:
        micro_body(m, work, room, 1, 2, false);
        break;
    case 3:
        micro_body(m, work, room, 1, 2, true);
        break;
    case 4:
        micro_body(m, work, room, 2, 1, false);
        break;
    case 5:
        micro_body(m, work, room, 2, 1, true);
        break;
    case 6:
        micro_body(m, work, room, 2, 2, false);
        break;
    default:
        micro_body(m, work, room, 2, 2, true);
        break;
    }
}

#endif
