/* amx_words: the pieces of amx_panel.h for the types of words_bf16.h and words_k_bf16.h, so the same bits as the
 * avx512_bf16 tier. */
#ifndef CR_QGEMM_AMX_WORDS_H
#define CR_QGEMM_AMX_WORDS_H

#include "kernels/qgemm/amx_panel.h"
#include "kernels/qgemm/words_k_bf16.h"

CR_INLINE void emit_words(const struct runs *r, __m512i (*const words)(const void *, size_t))
{
    for (size_t i = 0; i < r->n; i++) {
        _mm512_store_si512(r->to + i * r->stride, words(r->row, r->run + i));
    }
}

_Static_assert(sizeof(struct k_scales) <= AMX_SCALES_BYTES, "room for the scales of a block");

CR_INLINE void emit_k(const struct runs *r, void (*const scales)(const void *, size_t, struct k_scales *),
                      __m512i (*const words)(const void *, size_t, size_t, const struct k_scales *))
{
    struct k_scales *s = (struct k_scales *)(void *)r->scales;
    for (size_t i = 0; i < r->n; i++) {
        size_t run = r->run + i;
        if ((i == 0 && r->fresh) || run % 8 == 0) {
            scales(r->row, run / 8, s);
        }
        _mm512_store_si512(r->to + i * r->stride, words(r->row, run / 8, run % 8, s));
    }
}

#define PIECES(name, ...)                                                                                              \
    CR_INLINE void emit_##name(const struct cursor *c, const struct runs *r)                                           \
    {                                                                                                                  \
        (void)c;                                                                                                       \
        __VA_ARGS__;                                                                                                   \
    }                                                                                                                  \
    static void forward_##name(struct cursor *c)                                                                       \
    {                                                                                                                  \
        forward_piece(c, emit_##name);                                                                                 \
    }                                                                                                                  \
    static void dx_##name(struct cursor *c)                                                                            \
    {                                                                                                                  \
        dx_piece(c, emit_##name);                                                                                      \
    }
#define TYPE(name) PIECES(name, emit_words(r, words_##name))
#define TYPE_K(name) PIECES(name, emit_k(r, scales_##name, run_##name))

CR_WORDS_TYPES(TYPE)
CR_WORDS_K_TYPES(TYPE_K)

static piece_fn *special_piece(int type, bool dx)
{
#define PIECE(id, name)                                                                                                \
    [CR_Q_##id] = {                                                                                                    \
        forward_##name,                                                                                                \
        dx_##name,                                                                                                     \
    }
    static piece_fn *const pieces[][2] = {
        PIECE(F32, f32),   PIECE(F16, f16),   PIECE(BF16, bf16), PIECE(Q4_0, q4_0),     PIECE(Q4_1, q4_1),
        PIECE(Q5_0, q5_0), PIECE(Q5_1, q5_1), PIECE(Q8_0, q8_0), PIECE(Q2_K, q2_k),     PIECE(Q3_K, q3_k),
        PIECE(Q4_K, q4_k), PIECE(Q5_K, q5_k), PIECE(Q6_K, q6_k), PIECE(IQ4_NL, iq4_nl), PIECE(IQ4_XS, iq4_xs),
    };
#undef PIECE
    return (size_t)type < sizeof pieces / sizeof pieces[0] ? pieces[type][dx] : NULL;
}

#undef TYPE_K
#undef TYPE
#undef PIECES

#endif
