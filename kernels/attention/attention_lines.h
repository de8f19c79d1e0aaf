/* attention, private: one head of a sequence that starts at any lane, to and from aligned scratch.
 *
 * Sixteen consecutive tokens of a sequence ("aligned lanes") lie in at most two token blocks: lanes [shift, 16) of the
 * first and [0, shift) of the second. A window moves such a line between the packed buffer and aligned scratch. Only
 * the sequence's own lanes are touched: the others may be written by another worker at the same time.
 */
#ifndef CR_ATTENTION_LINES_H
#define CR_ATTENTION_LINES_H

#include "credence/kernels/attention.h"
#include "kernels/common/lanes.h"
#include "kernels/common/lanes_transpose.h"

#if LANES_N == 16

struct window {
    __mmask16 first, second; /* own lanes of the two packed lines */
    __m512i in, out;         /* rotation to and from aligned lanes */
};

static inline struct window window_at(size_t shift, size_t n_valid)
{
    uint32_t own = (uint32_t)((1u << n_valid) - 1) << shift;
    __m512i iota = (__m512i)lanes_iota();
    __m512i by = _mm512_set1_epi32((int)shift);
    __m512i in = _mm512_add_epi32(iota, by), out = _mm512_sub_epi32(iota, by);
    return (struct window){(__mmask16)own, (__mmask16)(own >> 16), in, out};
}

/* Packed lanes in aligned order; lanes without a token are zero. `second` is not read where the window does not reach
 * it. */
CR_INLINE __m512 window_line(const struct window *w, const float *first, const float *second)
{
    __m512 line = _mm512_maskz_load_ps(w->first, first);
    if (w->second != 0) {
        line = _mm512_mask_load_ps(line, w->second, second);
    }
    return _mm512_permutexvar_ps(w->in, line);
}

CR_INLINE void window_store_line(const struct window *w, float *first, float *second, __m512 aligned)
{
    __m512 line = _mm512_permutexvar_ps(w->out, aligned);
    _mm512_mask_store_ps(first, w->first, line);
    if (w->second != 0) {
        _mm512_mask_store_ps(second, w->second, line);
    }
}

CR_INLINE void window_load(const struct window *w, const float *first, const float *second, float *aligned)
{
    _mm512_store_ps(aligned, window_line(w, first, second));
}

CR_INLINE void window_store(const struct window *w, float *first, float *second, const float *aligned)
{
    window_store_line(w, first, second, _mm512_load_ps(aligned));
}

#elif LANES_N == 8

struct window {
    lanes_i first[2], second[2]; /* own lanes in aligned order */
    size_t shift;
};

static inline struct window window_at(size_t shift, size_t n_valid)
{
    struct window w = {.shift = shift};
    size_t split = CR_LANES - shift;
    for (size_t lane = 0; lane < CR_LANES; lane++) {
        w.first[lane / LANES_N][lane % LANES_N] = lane < split && lane < n_valid ? -1 : 0;
        w.second[lane / LANES_N][lane % LANES_N] = lane >= split && lane < n_valid ? -1 : 0;
    }
    return w;
}

/* aligned = packed lanes; lanes without a token are zero. `second` is not read where the window does not reach it. */
CR_INLINE void window_load(const struct window *w, const float *first, const float *second, float *aligned)
{
    for (int i = 0; i < 2; i++) {
        __m256 a = _mm256_maskload_ps(first + w->shift + i * LANES_N, (__m256i)w->first[i]);
        __m256 b = _mm256_maskload_ps(second + w->shift + i * LANES_N - CR_LANES, (__m256i)w->second[i]);
        _mm256_store_ps(aligned + i * LANES_N, _mm256_or_ps(a, b));
    }
}

CR_INLINE void window_store(const struct window *w, float *first, float *second, const float *aligned)
{
    for (int i = 0; i < 2; i++) {
        __m256 line = _mm256_load_ps(aligned + i * LANES_N);
        _mm256_maskstore_ps(first + w->shift + i * LANES_N, (__m256i)w->first[i], line);
        _mm256_maskstore_ps(second + w->shift + i * LANES_N - CR_LANES, (__m256i)w->second[i], line);
    }
}

#else

struct window {
    size_t shift, n_first, n_second; /* own lanes of the two packed lines */
};

static inline struct window window_at(size_t shift, size_t n_valid)
{
    size_t split = CR_LANES - shift;
    size_t n_first = n_valid < split ? n_valid : split;
    return (struct window){shift, n_first, n_valid - n_first};
}

/* aligned = packed lanes; lanes without a token are zero. `second` is not read where the window does not reach it. */
CR_INLINE void window_load(const struct window *w, const float *first, const float *second, float *aligned)
{
    for (size_t lane = 0; lane < w->n_first; lane++) {
        aligned[lane] = first[w->shift + lane];
    }
    for (size_t lane = 0; lane < w->n_second; lane++) {
        aligned[w->n_first + lane] = second[lane];
    }
    for (size_t lane = w->n_first + w->n_second; lane < CR_LANES; lane++) {
        aligned[lane] = 0;
    }
}

CR_INLINE void window_store(const struct window *w, float *first, float *second, const float *aligned)
{
    for (size_t lane = 0; lane < w->n_first; lane++) {
        first[w->shift + lane] = aligned[lane];
    }
    for (size_t lane = 0; lane < w->n_second; lane++) {
        second[lane] = aligned[w->n_first + lane];
    }
}

#endif

/* One head of one sequence, and the prefix it sees. */
struct item {
    size_t first, len, n_blocks; /* tokens; aligned blocks */
    size_t seg, head, kv_head;
    size_t dim, block;           /* head_dim; floats of one aligned block */
    size_t prefix_rows, prefix_blocks;
    const float *prefix_k, *prefix_v; /* of the kv head, prefix_stride floats between blocks */
    float *prefix_dk, *prefix_dv;     /* partials of the head, one after another */
    size_t prefix_stride;
};

static struct item item_at(const struct cr_attention_args *args, size_t index)
{
    size_t seg = index / args->n_heads;
    size_t head = index % args->n_heads;
    size_t len = args->seg[seg + 1] - args->seg[seg];
    struct item item = {
        .first = args->seg[seg],
        .len = len,
        .n_blocks = cr_tl16_blocks(len),
        .seg = seg,
        .head = head,
        .kv_head = head / (args->n_heads / args->n_kv),
        .dim = args->head_dim,
        .block = args->head_dim * CR_LANES,
    };
    const struct cr_attention_prefix *p = args->prefix;
    if (p != NULL && p->of_seg[seg] != CR_ATTENTION_NO_PREFIX) {
        size_t at = p->of_seg[seg] * p->stride + item.kv_head * item.block;
        item.prefix_rows = p->n_rows;
        item.prefix_blocks = cr_tl16_blocks(p->n_rows);
        item.prefix_k = p->k + at;
        item.prefix_v = p->v + at;
        item.prefix_stride = args->n_kv * item.block;
        if (p->dk_part != NULL) {
            item.prefix_dk = p->dk_part + index * item.prefix_blocks * item.block;
            item.prefix_dv = p->dv_part + index * item.prefix_blocks * item.block;
        }
    }
    return item;
}

/* The rows of the prefix as a sequence of their own. */
static struct item prefix_of(const struct item *item)
{
    return (struct item){.len = item->prefix_rows, .n_blocks = item->prefix_blocks, .dim = item->dim,
                         .block = item->block};
}

static inline size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

static struct window item_window(const struct item *item, size_t block)
{
    return window_at(item->first % CR_LANES, least(CR_LANES, item->len - block * CR_LANES));
}

/* aligned[n_blocks][n_lines][16] = lines of the item's tokens; packed points at the first line of token block 0. */
static inline void gather(const struct item *item, const float *packed, size_t stride, size_t n_lines, float *aligned)
{
    for (size_t block = 0; block < item->n_blocks; block++) {
        struct window w = item_window(item, block);
        const float *in = packed + (item->first / CR_LANES + block) * stride;
        for (size_t f = 0; f < n_lines; f++) {
            window_load(&w, in + f * CR_LANES, in + stride + f * CR_LANES, aligned);
            aligned += CR_LANES;
        }
    }
}

/* The way back for aligned blocks [block, block + n). */
static inline void scatter(const struct item *item, size_t block, size_t n, const float *aligned, size_t n_lines,
                    float *packed, size_t stride)
{
    for (size_t i = block; i < block + n; i++) {
        struct window w = item_window(item, i);
        float *out = packed + (item->first / CR_LANES + i) * stride;
        for (size_t f = 0; f < n_lines; f++) {
            window_store(&w, out + f * CR_LANES, out + stride + f * CR_LANES, aligned);
            aligned += CR_LANES;
        }
    }
}

#endif
