/* The parts of a batch: which token blocks are whose, and where its loss rows lie once they are gathered. */
#include "runtime/model/engine_internal.h"

/* No sequence crosses the end of a part: attention would mix members. */
static bool ends_a_segment(const struct cr_token_batch *batch, size_t token, size_t *seg)
{
    while (*seg < batch->n_seg && batch->seg[*seg + 1] < token) {
        ++*seg;
    }
    return *seg < batch->n_seg && batch->seg[*seg + 1] == token;
}

static cr_status set_all(struct cr_engine *e, const struct cr_token_batch *batch, struct cr_error *err)
{
    size_t begin = 0, seg = 0;
    for (size_t i = 0; i < batch->n_parts; i++) {
        struct token_part part = {batch->part_member[i], begin, batch->part_end[i]};
        bool ascends = part.begin < part.end && part.end <= batch->n_blocks &&
                       (i == 0 || part.member > e->all_parts[i - 1].member);
        if (!ascends || part.member >= e->n_members || !ends_a_segment(batch, part.end * CR_LANES, &seg)) {
            return cr_fail(err, CR_E_USAGE, "engine: part %zu of the batch, member %u, blocks %zu to %zu of %zu", i,
                           part.member, part.begin, part.end, batch->n_blocks);
        }
        e->all_parts[i] = part;
        begin = part.end;
    }
    if (batch->n_parts == 0) {
        e->all_parts[0] = (struct token_part){0, 0, batch->n_blocks};
    } else if (begin != batch->n_blocks) {
        return cr_fail(err, CR_E_USAGE, "engine: the parts of the batch end at block %zu of %zu", begin,
                       batch->n_blocks);
    }
    e->all = (struct token_set){batch->n_blocks, batch->pos, batch->example, e->all_parts,
                                batch->n_parts > 0 ? batch->n_parts : 1};
    return CR_OK;
}

static bool within(const struct token_part *part, size_t token)
{
    return token / CR_LANES >= part->begin && token / CR_LANES < part->end;
}

/* Rows of a part follow each other and end with pad lanes that are like the last of them. */
static cr_status set_rows(struct cr_engine *e, const struct cr_token_batch *batch, struct cr_error *err)
{
    size_t row = 0, slot = 0, n_parts = 0;
    for (size_t i = 0; i < e->all.n_parts; i++) {
        const struct token_part *part = &e->all.parts[i];
        size_t first = slot, room = (part->end - part->begin) * CR_LANES;
        while (row < batch->n_rows && within(part, batch->row_token[row]) && slot - first < room) {
            e->row_of[slot++] = (uint32_t)row++;
        }
        for (; slot % CR_LANES != 0; slot++) {
            e->row_of[slot] = CR_NO_ROW;
        }
        if (slot > first) {
            e->row_parts[n_parts++] = (struct token_part){part->member, first / CR_LANES, slot / CR_LANES};
        }
    }
    if (row < batch->n_rows) {
        return cr_fail(err, CR_E_USAGE, "engine: row %zu of the batch is out of order", row);
    }
    for (size_t i = 0; i < slot; i++) {
        bool real = e->row_of[i] != CR_NO_ROW;
        e->row_pos[i] = real ? batch->pos[batch->row_token[e->row_of[i]]] : e->row_pos[i - 1];
        e->row_example[i] = real ? batch->example[batch->row_token[e->row_of[i]]] : e->row_example[i - 1];
    }
    e->rows = (struct token_set){slot / CR_LANES, e->row_pos, e->row_example, e->row_parts, n_parts};
    return CR_OK;
}

cr_status cr_parts_set(struct cr_engine *e, const struct cr_token_batch *batch, struct cr_error *err)
{
    e->batch = batch;
    cr_engine_look_up_ranks(e);
    CR_TRY(set_all(e, batch, err));
    return set_rows(e, batch, err);
}
