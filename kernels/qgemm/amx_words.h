/* amx_words: the pieces of amx_panel.h for the types of words_bf16.h, so the same bits as the avx512_bf16 tier. */
#ifndef CR_QGEMM_AMX_WORDS_H
#define CR_QGEMM_AMX_WORDS_H

#include "kernels/qgemm/amx_panel.h"
#include "kernels/qgemm/words_bf16.h"

#define TYPE(name)                                                                                                     \
    CR_INLINE void emit_##name(const struct cursor *c, const char *row, size_t block, size_t n, char *to,              \
                               size_t stride)                                                                          \
    {                                                                                                                  \
        (void)c;                                                                                                       \
        for (size_t i = 0; i < n; i++) {                                                                               \
            _mm512_store_si512(to + i * stride, words_##name(row, block + i));                                         \
        }                                                                                                              \
    }                                                                                                                  \
    static void forward_##name(struct cursor *c)                                                                       \
    {                                                                                                                  \
        forward_piece(c, emit_##name);                                                                                 \
    }                                                                                                                  \
    static void dx_##name(struct cursor *c)                                                                            \
    {                                                                                                                  \
        dx_piece(c, emit_##name);                                                                                      \
    }

TYPE(f32)
TYPE(f16)
TYPE(bf16)
TYPE(q4_0)
TYPE(q4_1)
TYPE(q5_0)
TYPE(q5_1)
TYPE(q8_0)
TYPE(q4_k)
TYPE(q5_k)
TYPE(q6_k)
TYPE(iq4_nl)
TYPE(iq4_xs)

static piece_fn *special_piece(int type, bool dx)
{
#define PIECE(id, name)                                                                                                \
    [CR_Q_##id] = {                                                                                                    \
        forward_##name,                                                                                                \
        dx_##name,                                                                                                     \
    }
    static piece_fn *const pieces[][2] = {
        PIECE(F32, f32),   PIECE(F16, f16),       PIECE(BF16, bf16),     PIECE(Q4_0, q4_0), PIECE(Q4_1, q4_1),
        PIECE(Q5_0, q5_0), PIECE(Q5_1, q5_1),     PIECE(Q8_0, q8_0),     PIECE(Q4_K, q4_k), PIECE(Q5_K, q5_k),
        PIECE(Q6_K, q6_k), PIECE(IQ4_NL, iq4_nl), PIECE(IQ4_XS, iq4_xs),
    };
#undef PIECE
    return (size_t)type < sizeof pieces / sizeof pieces[0] ? pieces[type][dx] : NULL;
}

#undef TYPE

#endif
