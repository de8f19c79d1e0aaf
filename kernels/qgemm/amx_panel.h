/* amx_panel: quantised weights to bf16 tiles, in pieces of about a hundred vector operations, so that the next panel
 * can be made between the tile products of this one.
 *
 * A cursor walks one panel of one slab. Forward, a piece is up to eight blocks of 32 weights of one row. For dX, six
 * pieces make a square of 32 x 32 weights: four decode eight rows each into a square of words, two transpose half of
 * it.
 */
#ifndef CR_QGEMM_AMX_PANEL_H
#define CR_QGEMM_AMX_PANEL_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include "credence/kernels/dequant.h"
#include "credence/kernels/qgemm.h"
#include "kernels/common/lanes.h"
#include "kernels/qgemm/amx_plan.h"
#include "kernels/qgemm/columns.h"

enum { PIECE_BLOCKS = 8, PIECE_ROWS = 8, SQUARE_PIECES = 6 };

struct cursor;
typedef void piece_fn(struct cursor *c);

struct cursor {
    const struct cr_qmat *w;
    cr_dequant_fn *dequant;
    piece_fn *piece;
    char *panel;
    uint16_t *square;         /* [32 reduced rows][32 outputs] */
    char *scales;             /* room for the decoded scales of 32 rows */
    size_t strip_bytes;       /* of the panel */
    size_t out, n_out;        /* outputs of the panel */
    size_t first, n_steps;    /* steps of the slab */
    size_t strip, step, part; /* dX: where the cursor stands; forward: part is the row, step its block */
    size_t left;              /* pieces */
};

/* `n` runs of 32 weights of a row from number `run` on, each to 64 bytes at to + i * stride. `scales` is room for the
 * decoded scales of a block of 256; it holds those of the block of `run` unless `fresh`. */
struct runs {
    const char *row;
    size_t run, n;
    char *to;
    size_t stride;
    char *scales;
    bool fresh;
};
typedef void emit_fn(const struct cursor *c, const struct runs *r);

CR_INLINE void forward_piece(struct cursor *c, emit_fn *const emit)
{
    size_t n = c->n_steps - c->step < PIECE_BLOCKS ? c->n_steps - c->step : PIECE_BLOCKS;
    char *to = c->panel + c->part / AMX_STRIP * c->strip_bytes + c->step * AMX_STEP_BYTES + c->part % AMX_STRIP * 64;
    if (c->part < c->n_out) {
        const char *row = (const char *)c->w->data + (c->out + c->part) * c->w->row_bytes;
        const struct runs runs = {row, c->first + c->step, n, to, AMX_STEP_BYTES, c->scales, true};
        emit(c, &runs);
    } else {
        for (size_t i = 0; i < n; i++) {
            memset(to + i * AMX_STEP_BYTES, 0, 64);
        }
    }
    c->step += n;
    if (c->step == c->n_steps) {
        c->step = 0;
        c->part++;
    }
    c->left--;
}

/* Tile row of output 8 l + i, i < 4 (or 4 <= i < 8 with `high`): 32 words down column 8 l + i of the square. */
#if LANES_N == 16
CR_INLINE void transpose(const uint16_t *square, char *to, const bool high)
{
    __m512i q[16], t[16];
    for (int p = 0; p < 16; p++) {
        __m512i even = _mm512_load_si512(square + 64 * p), odd = _mm512_load_si512(square + 64 * p + 32);
        q[p] = high ? _mm512_unpackhi_epi16(even, odd) : _mm512_unpacklo_epi16(even, odd);
    }
    for (int p = 0; p < 16; p += 2) { /* lane l: columns 0 and 1, then 2 and 3 */
        t[p] = _mm512_unpacklo_epi32(q[p], q[p + 1]);
        t[p + 1] = _mm512_unpackhi_epi32(q[p], q[p + 1]);
    }
    for (int p = 0; p < 16; p += 4) { /* q[p + i], lane l: eight words of column i */
        q[p] = _mm512_unpacklo_epi64(t[p], t[p + 2]);
        q[p + 1] = _mm512_unpackhi_epi64(t[p], t[p + 2]);
        q[p + 2] = _mm512_unpacklo_epi64(t[p + 1], t[p + 3]);
        q[p + 3] = _mm512_unpackhi_epi64(t[p + 1], t[p + 3]);
    }
    for (int i = 0; i < 4; i++) {
        __m512i a = _mm512_shuffle_i64x2(q[i], q[4 + i], 0x44), b = _mm512_shuffle_i64x2(q[i], q[4 + i], 0xee);
        __m512i c = _mm512_shuffle_i64x2(q[8 + i], q[12 + i], 0x44),
                d = _mm512_shuffle_i64x2(q[8 + i], q[12 + i], 0xee);
        char *row = to + 64 * (i + (high ? 4 : 0));
        _mm512_store_si512(row, _mm512_shuffle_i64x2(a, c, 0x88));
        _mm512_store_si512(row + 8 * 64, _mm512_shuffle_i64x2(a, c, 0xdd));
        _mm512_store_si512(row + 16 * 64, _mm512_shuffle_i64x2(b, d, 0x88));
        _mm512_store_si512(row + 24 * 64, _mm512_shuffle_i64x2(b, d, 0xdd));
    }
}
#else
CR_INLINE void transpose(const uint16_t *square, char *to, const bool high)
{
    for (size_t column = high ? 4 : 0; column < 32; column += column % 4 == 3 ? 5 : 1) {
        uint16_t row[32];
        for (size_t n = 0; n < 32; n++) {
            row[n] = square[32 * n + column];
        }
        memcpy(to + 64 * column, row, 64);
    }
}
#endif

CR_INLINE void dx_decode(struct cursor *c, emit_fn *const emit)
{
    size_t run = c->out / 32 + c->strip;
    const struct cr_qgemm_columns columns = cr_qgemm_columns(c->w, run * 32, run * 32 + 32);
    size_t n = 32 * (c->first + c->step) + PIECE_ROWS * c->part;
    bool fresh = c->strip == 0 || run % 8 == 0; /* strips pass before steps */
    for (size_t i = PIECE_ROWS * c->part; i < PIECE_ROWS * (c->part + 1); i++, n++) {
        uint16_t *words = c->square + 32 * i;
        if (n >= c->w->n_rows) {
            memset(words, 0, 64);
            continue;
        }
        const char *row = (const char *)c->w->data + n * c->w->row_bytes;
        cr_qgemm_fetch_row(c->w, n, &columns);
        const struct runs runs = {row, run, 1, (char *)words, 0, c->scales + i * AMX_SCALES_BYTES, fresh};
        emit(c, &runs);
    }
}

CR_INLINE void dx_piece(struct cursor *c, emit_fn *const emit)
{
    char *to = c->panel + c->strip * c->strip_bytes + c->step * AMX_STEP_BYTES;
    if (c->part < 4) {
        dx_decode(c, emit);
    } else {
        transpose(c->square, to, c->part == 5);
    }
    if (++c->part == SQUARE_PIECES) {
        c->part = 0;
        if (++c->strip == c->n_out / AMX_STRIP) {
            c->strip = 0;
            c->step++;
        }
    }
    c->left--;
}

/* Types without a function of their own go through f32, rounded to nearest even. */
static void emit_any(const struct cursor *c, const struct runs *r)
{
    float values[32 * PIECE_BLOCKS] __attribute__((aligned(64)));
    c->dequant(r->row, 32 * r->run, 32 * r->n, values);
    for (size_t i = 0; i < r->n; i++) {
        uint16_t words[32];
        for (size_t k = 0; k < 32; k += LANES_N) {
            lanes_u half = lanes_to_bf16(lanes_load(values + 32 * i + k));
            for (size_t l = 0; l < LANES_N; l++) {
                words[k + l] = (uint16_t)half[l];
            }
        }
        memcpy(r->to + i * r->stride, words, 64);
    }
}

static void forward_any(struct cursor *c)
{
    forward_piece(c, emit_any);
}

static void dx_any(struct cursor *c)
{
    dx_piece(c, emit_any);
}

#ifdef __AVX512BF16__
#include "kernels/qgemm/amx_words.h"
#else
static piece_fn *special_piece(int type, bool dx)
{
    (void)type;
    (void)dx;
    return NULL;
}
#endif

/* Sets the pieces of a cursor that knows its panel. */
static void cursor_start(struct cursor *c, bool dx)
{
    piece_fn *special = special_piece(c->w->type, dx);
    c->piece = special != NULL ? special : dx ? dx_any : forward_any;
    c->dequant = cr_dequant_fn_for(c->w->type, LANES_N == 16 ? CR_TIER_AVX512 : CR_TIER_SCALAR);
    c->strip = c->step = c->part = 0;
    size_t n_rows = (c->n_out + 15) / 16 * 16;
    c->left = dx ? c->n_steps * (c->n_out / AMX_STRIP) * SQUARE_PIECES
                 : n_rows * ((c->n_steps + PIECE_BLOCKS - 1) / PIECE_BLOCKS);
}

#endif
