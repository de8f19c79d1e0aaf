/* token_batch: examples packed on one token axis for a pass through the model. Plain data: runtime/data fills it,
 * runtime/model reads it.
 *
 * Sequences follow each other without padding; the last block of 16 is filled up with pad tokens that form a last
 * segment of their own (id 0, example UINT32_MAX, no loss). A loss row is a token whose hidden state predicts
 * something that counts.
 *
 * A part is a run of whole blocks that belongs to one adapter of the engine, its member: it begins on a block of its
 * own, with the pads before it as a segment without loss. A member has at most one part.
 *
 * Examples that begin with the same tokens may share them: with n_lead > 0 the first sequence of each part is these
 * tokens alone, without loss, and its other sequences, which see them, hold what follows, from position n_lead on.
 */
#ifndef CR_CORE_TOKEN_BATCH_H
#define CR_CORE_TOKEN_BATCH_H

#include <stddef.h>
#include <stdint.h>

struct cr_token_batch {
    size_t n_tokens, n_blocks; /* of the examples, shared ones counted for each; blocks of 16 with the pads */
    size_t n_lead;             /* shared tokens; 0: none */
    int32_t *ids;              /* [n_blocks * 16] */
    uint32_t *pos;             /* place inside the example */
    uint32_t *example;         /* number of the example in its dataset */
    uint32_t *seg;             /* [n_seg + 1] token bounds, covering n_blocks * 16 tokens */
    size_t n_seg;
    size_t n_rows; /* loss rows, ascending tokens */
    uint32_t *row_token;
    int32_t *row_target;                  /* texts: token id; choices: answer (index) */
    uint32_t *row_choices;                /* choices: n_choices of the example; texts: 0 */
    float *row_weight;                    /* weight of the row's loss in the step's mean */
    size_t n_parts;                       /* 0: all tokens are of member 0 */
    uint32_t *part_member;                /* [n_parts] ascending */
    uint32_t *part_end;                   /* [n_parts] token blocks, ascending; the last is n_blocks */
    size_t max_tokens, max_rows, max_seg; /* capacities */
};

#endif
