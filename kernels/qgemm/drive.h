/* drive: the loop around the micro-tile, shared by the vector tiers. Included by a tier file after it has defined
 *
 *   ELEMENT_BYTES    of a panel weight: 4 (f32) or 2 (bf16)
 *   SLAB_MAX         most lines of three token blocks that stay in the cache while the strips of a panel pass; n * 16
 *   tile_run(t, nb, dx)                                  one strip of 8 outputs, nb token blocks, t->n_steps lines
 *   pack_fwd(w, out, n_out, panel, strip_bytes, rows)    panel of the rows [out, out + n_out); the missing rows of the
 *                                                        last strip are zero
 *   pack_dx(w, out, n_out, panel, strip_bytes, rows)     panel of the columns [out, out + n_out), a multiple of 32
 *   pack_tokens(t, nb, to)   only with PACK_TOKENS: copies t->n_steps lines of the token blocks, points t->x there
 */
#ifndef CR_QGEMM_DRIVE_H
#define CR_QGEMM_DRIVE_H

#include <assert.h>
#include <stdbool.h>
#include <string.h>

#include "kernels/qgemm/members.h"
#include "kernels/qgemm/plan.h"
#include "kernels/qgemm/tile.h"

/* [strip][rank][8 outputs]; outputs that are missing in the last strip are zero. */
static void pack_lowrank(const struct cr_qgemm_member *m, size_t out, size_t n_out, float *lowrank)
{
    for (size_t s = 0; s < n_out; s += CR_QGEMM_STRIP, lowrank += m->rank * CR_QGEMM_STRIP) {
        const float *p = m->p + (out + s) * m->p_os;
        size_t n = n_out - s < CR_QGEMM_STRIP ? n_out - s : CR_QGEMM_STRIP;
        if (n < CR_QGEMM_STRIP) {
            memset(lowrank, 0, m->rank * CR_QGEMM_STRIP * sizeof *lowrank);
        }
        if (m->p_os == 1 && n == CR_QGEMM_STRIP) {
            for (size_t i = 0; i < m->rank; i++) {
                memcpy(lowrank + i * CR_QGEMM_STRIP, p + i * m->p_rs, CR_QGEMM_STRIP * sizeof *lowrank);
            }
            continue;
        }
        for (size_t r = 0; r < n; r++) {
            for (size_t i = 0; i < m->rank; i++) {
                lowrank[i * CR_QGEMM_STRIP + r] = p[r * m->p_os + i * m->p_rs];
            }
        }
    }
}

/* Where the next slab of tokens lies, of the same group, else of the next one; lines for each strip to fetch. */
static size_t plan_ahead(struct tile *t, const struct cr_qgemm_args *a, const struct cr_qgemm_plan *plan, size_t block,
                         int nb, size_t at, size_t slab, size_t n_strips)
{
    size_t next = t->last ? 0 : at + t->n_steps, first = t->last ? block + (size_t)nb : block;
    size_t n_lines = plan->n_steps - next < slab ? plan->n_steps - next : slab;
    size_t n_chunks = t->n_steps / 16;
    t->n_ahead = 0;
    if (first >= a->n_blocks || n_chunks == 0) {
        return 0;
    }
    size_t n_each = (n_lines + n_strips - 1) / n_strips;
    t->n_ahead = (n_each + n_chunks - 1) / n_chunks;
    for (size_t j = 0; j < CR_QGEMM_GROUP; j++) {
        size_t b = first + j < a->n_blocks ? first + j : a->n_blocks - 1;
        t->ahead[j] = (const char *)a->x + b * a->x_stride + next * 64;
    }
    return n_each;
}

/* One slab of nb token blocks past all strips of the panel. t is set but for what differs between strips. */
static void strips(struct tile *t, const struct cr_qgemm_plan *plan, size_t n_out, size_t n_each, int nb, bool dx)
{
    for (size_t s = 0; s < n_out; s += CR_QGEMM_STRIP) {
        t->n_rows = n_out - s < CR_QGEMM_STRIP ? n_out - s : CR_QGEMM_STRIP;
        tile_run(t, nb, dx);
        t->panel += plan->strip_bytes;
        t->partial += CR_QGEMM_STRIP * CR_QGEMM_GROUP * CR_LANES;
        t->lowrank += t->rank * CR_QGEMM_STRIP;
        t->bias = t->bias != NULL ? t->bias + CR_QGEMM_STRIP : NULL;
        for (int j = 0; j < nb; j++) {
            t->y[j] += CR_QGEMM_STRIP * CR_LANES;
        }
        for (int j = 0; j < CR_QGEMM_GROUP && t->n_ahead > 0; j++) {
            t->ahead[j] += n_each * 64;
        }
    }
}

/* nb token blocks of one member from `block` on, past a finished panel of n_out outputs from `out` on. */
static void group(const struct cr_qgemm_args *a, const struct cr_qgemm_plan *plan, char *scratch, size_t rank,
                  size_t out, size_t n_out, size_t block, int nb, bool dx)
{
    struct tile t = {.accumulate = a->accumulate != 0, .rank = rank};
    size_t slab = cr_qgemm_slab_steps(plan->n_steps, SLAB_MAX);
    for (size_t at = 0; at < plan->n_steps; at += slab) {
        size_t left = plan->n_steps - at;
        t.n_steps = left < slab ? left : slab;
        t.first = at == 0;
        t.last = left <= slab;
        t.panel = scratch + at * 32;
        t.partial = (float *)(void *)(scratch + plan->tile_at);
        t.lowrank = (const float *)(void *)(scratch + plan->lowrank_at);
        t.bias = a->bias != NULL ? a->bias + out : NULL;
        for (int j = 0; j < nb; j++) {
            t.x[j] = (const char *)a->x + (block + (size_t)j) * a->x_stride + at * 64;
            t.u[j] = rank > 0 ? a->u + (block + (size_t)j) * a->u_stride : NULL;
            t.y[j] = a->y + (block + (size_t)j) * a->y_stride + out * CR_LANES;
        }
#ifdef PACK_TOKENS
        pack_tokens(&t, nb, scratch + plan->tokens_at);
#endif
        size_t n_strips = (n_out + CR_QGEMM_STRIP - 1) / CR_QGEMM_STRIP;
        size_t n_each = plan_ahead(&t, a, plan, block, nb, at, slab, n_strips);
        strips(&t, plan, n_out, n_each, nb, dx);
    }
}

/* All tokens past a finished panel. */
static void tokens(const struct cr_qgemm_args *a, const struct cr_qgemm_plan *plan, char *scratch, size_t out,
                   size_t n_out, bool dx)
{
    struct cr_qgemm_member m;
    for (size_t begin = 0; begin < a->n_blocks; begin = m.end) {
        m = cr_qgemm_member_at(a, begin);
        if (m.rank > 0) {
            pack_lowrank(&m, out, n_out, (float *)(void *)(scratch + plan->lowrank_at));
        }
        for (size_t block = begin; block < m.end;) {
            size_t left = m.end - block;
            int nb = left == 4 ? 2 : left < CR_QGEMM_GROUP ? (int)left : CR_QGEMM_GROUP; /* 2 + 2 beats 3 + 1 */
            group(a, plan, scratch, m.rank, out, n_out, block, nb, dx);
            block += (size_t)nb;
        }
    }
}

static void drive(const struct cr_qgemm_args *a, size_t begin, size_t end, void *scratch, bool dx)
{
    size_t n_reduce = dx ? a->w.n_rows : a->w.n_cols;
    assert(begin % CR_QGEMM_STEP == 0 && end <= (dx ? a->w.n_cols : a->w.n_rows));
    assert((uintptr_t)scratch % 64 == 0 && (a->bias == NULL || !dx));
    struct cr_qgemm_plan plan = cr_qgemm_plan_make(n_reduce, cr_qgemm_max_rank(a), ELEMENT_BYTES);
    char *panel = scratch;
    if (a->n_blocks == 0) {
        return;
    }
    for (size_t out = begin; out < end; out += plan.n_block) {
        size_t n_out = end - out < plan.n_block ? end - out : plan.n_block;
        float *rows = (float *)(void *)(panel + plan.rows_at);
        if (dx) {
            pack_dx(&a->w, out, n_out, panel, plan.strip_bytes, rows);
        } else {
            pack_fwd(&a->w, out, n_out, panel, plan.strip_bytes, rows);
        }
        tokens(a, &plan, panel, out, n_out, dx);
    }
}

#endif
