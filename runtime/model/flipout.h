/* flipout: noise on A of an adapter that every token sees with signs of its own. Private to runtime/model.
 *
 *   U  += s so * (N (si * x))        N [rank][n_in] = lora->noise, V = s B^T dY as without it
 *   dN += (so * V) (si * x)^T        into lora->grad_noise
 *   dX += si * (N^T (so * V))
 *
 * One noise for the whole pass, decorrelated by signs: si [n_in] and so [rank] are +1 or -1, a function of (seed, step,
 * tensor) and of who the token is. Source: Wen et al. 2018 (arXiv 1803.04386), as used by Wang et al. 2024 (arXiv
 * 2406.11675). Bit i % 32 of word (i / 32) % 4 of the Philox block (token, which, step, i / 128) under the key (seed ^
 * CR_NOISE_FLIPOUT, tensor) says minus; token = position + CR_FLIPOUT_EXAMPLE * example (mod 2^32), which = 0 for si, 1
 * for so.
 *
 * All of them take the arguments of the kernel call for A that they stand beside, of the same part: cr_lowrank_args
 * with p of down and up at A, u at U or V, and the token arrays in `dropout`.
 */
#ifndef CR_MODEL_FLIPOUT_H
#define CR_MODEL_FLIPOUT_H

#include "runtime/model/engine_internal.h"

#define CR_NOISE_FLIPOUT 0x666c6970u
#define CR_FLIPOUT_EXAMPLE 2654435769u /* odd: 2^32 over the golden ratio */

/* Whether the noise of this adapter acts in the pass under way. */
bool cr_flipout_acts(const struct cr_engine *e, uint32_t member, const struct cr_lora *lora);

size_t cr_flipout_scratch_bytes(const struct cr_engine *e); /* 0 when the engine was made without */

/* Token blocks [begin, end). */
void cr_flipout_down(struct cr_engine *e, const struct cr_lora *lora, const struct cr_lowrank_args *args, size_t begin,
                     size_t end, void *scratch);
void cr_flipout_up(struct cr_engine *e, const struct cr_lora *lora, const struct cr_lowrank_args *args, size_t begin,
                   size_t end, void *scratch);

/* Features [begin, end) of n_in, begin a multiple of 32. */
void cr_flipout_grad(struct cr_engine *e, const struct cr_lora *lora, const struct cr_lowrank_args *args, size_t begin,
                     size_t end, void *scratch);

#endif
