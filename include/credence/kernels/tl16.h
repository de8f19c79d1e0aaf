/* TL16: the layout of every activation. Sixteen tokens are the lanes of one vector; features run down the lines.
 *
 *   f32    [token block][feature][16 tokens]                       one 64-byte line a feature
 *   bf16   [token block][feature pair][16 tokens][2 features]      one 64-byte line a pair (even feature counts)
 *
 * A buffer is given by its base and by the distance between token blocks, so several operands may live in one
 * buffer. M tokens take ceil(M/16) blocks. Lines are 64-byte aligned.
 */
#ifndef CREDENCE_KERNELS_TL16_H
#define CREDENCE_KERNELS_TL16_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { CR_LANES = 16 };

/* Element type of a matrix-product operand: x_type of the qgemm table. BF16 on avx512_bf16, amx and neon_bf16, F32 on the
 * other tiers. */
enum cr_xtype { CR_X_F32 = 0, CR_X_BF16 = 1 };

/* Bytes of one token block of `features` features; in bf16 an odd last one has a line to itself. */
static inline size_t cr_tl16_bytes(enum cr_xtype type, size_t features)
{
    return type == CR_X_BF16 ? (features + 1) / 2 * 64 : features * 64;
}

static inline size_t cr_tl16_blocks(size_t n_tokens)
{
    return (n_tokens + CR_LANES - 1) / CR_LANES;
}

/* Position of (feature, lane) inside an f32 block, in floats. */
static inline size_t cr_tl16_f32(size_t feature, size_t lane)
{
    return feature * CR_LANES + lane;
}

/* Position of (feature, lane) inside a bf16 block, in uint16_t. */
static inline size_t cr_tl16_bf16(size_t feature, size_t lane)
{
    return (feature / 2) * 2 * CR_LANES + lane * 2 + (feature & 1);
}

#ifdef __cplusplus
}
#endif
#endif
