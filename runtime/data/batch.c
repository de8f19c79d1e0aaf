#include "runtime/data/batch.h"

#include <string.h>

#include "credence/kernels/rng.h"
#include "runtime/core/alloc.h"
#include "runtime/core/error.h"

/* Tokens of a block: the packing unit of the kernels. */
enum { BLOCK = 16 };

/* Second key word of the epoch order, so that it shares no stream with other uses of the seed. */
enum { ORDER_STREAM = 0x6f726472 };

cr_status cr_batch_init(struct cr_token_batch *batch, size_t max_tokens, struct cr_error *err)
{
    if (max_tokens > SIZE_MAX / 2) {
        return cr_fail(err, CR_E_MEMORY, "a micro-batch of %zu tokens is too large", max_tokens);
    }
    struct cr_token_batch fresh = {0};
    fresh.max_tokens = cr_round_up_16(max_tokens);
    fresh.max_rows = fresh.max_tokens;
    fresh.max_seg = fresh.max_tokens + 1;
    fresh.ids = cr_zalloc(fresh.max_tokens, sizeof *fresh.ids);
    fresh.pos = cr_zalloc(fresh.max_tokens, sizeof *fresh.pos);
    fresh.example = cr_zalloc(fresh.max_tokens, sizeof *fresh.example);
    fresh.seg = cr_zalloc(fresh.max_seg + 1, sizeof *fresh.seg);
    fresh.row_token = cr_zalloc(fresh.max_rows, sizeof *fresh.row_token);
    fresh.row_target = cr_zalloc(fresh.max_rows, sizeof *fresh.row_target);
    fresh.row_choices = cr_zalloc(fresh.max_rows, sizeof *fresh.row_choices);
    fresh.row_weight = cr_zalloc(fresh.max_rows, sizeof *fresh.row_weight);
    fresh.part_member = cr_zalloc(fresh.max_tokens / BLOCK, sizeof *fresh.part_member);
    fresh.part_end = cr_zalloc(fresh.max_tokens / BLOCK, sizeof *fresh.part_end);
    if (fresh.ids == NULL || fresh.pos == NULL || fresh.example == NULL || fresh.seg == NULL ||
        fresh.row_token == NULL || fresh.row_target == NULL || fresh.row_choices == NULL || fresh.row_weight == NULL ||
        fresh.part_member == NULL || fresh.part_end == NULL) {
        cr_batch_deinit(&fresh);
        return cr_fail(err, CR_E_MEMORY, "out of memory for a micro-batch of %zu tokens", max_tokens);
    }
    *batch = fresh;
    return CR_OK;
}

void cr_batch_deinit(struct cr_token_batch *batch)
{
    cr_free(batch->ids);
    cr_free(batch->pos);
    cr_free(batch->example);
    cr_free(batch->seg);
    cr_free(batch->row_token);
    cr_free(batch->row_target);
    cr_free(batch->row_choices);
    cr_free(batch->row_weight);
    cr_free(batch->part_member);
    cr_free(batch->part_end);
    memset(batch, 0, sizeof *batch);
}

size_t cr_batch_capacity(const struct cr_dataset *dataset)
{
    size_t longest = cr_round_up_16(dataset->max_ids);
    return longest > CR_MICRO_TOKENS ? longest : CR_MICRO_TOKENS;
}

size_t cr_batch_joint(size_t part_tokens, size_t n_sets)
{
    size_t most = part_tokens > CR_PASS_TOKENS ? part_tokens : CR_PASS_TOKENS;
    return n_sets <= most / part_tokens ? n_sets * part_tokens : most;
}

size_t cr_batch_joint_sets(size_t part_tokens, size_t n_sets)
{
    size_t most = part_tokens < CR_PASS_TOKENS ? (CR_PASS_TOKENS + part_tokens - 1) / part_tokens : 1;
    return n_sets < most ? n_sets : most;
}

static uint32_t lead_of(const struct cr_dataset *dataset, uint32_t example)
{
    return dataset->whole ? 0 : dataset->examples[example].n_lead;
}

/* Tokens of an example that are its own. */
static uint32_t own_tokens(const struct cr_dataset *dataset, uint32_t example)
{
    return dataset->examples[example].n_ids - lead_of(dataset, example);
}

uint32_t cr_batch_shortest(const struct cr_dataset *dataset)
{
    uint32_t shortest = UINT32_MAX;
    for (size_t i = 0; i < dataset->n; i++) {
        uint32_t n = own_tokens(dataset, (uint32_t)i);
        shortest = n < shortest ? n : shortest;
    }
    return shortest;
}

size_t cr_batch_take(const struct cr_dataset *dataset, const uint32_t *order, size_t n)
{
    size_t n_tokens = n > 0 ? lead_of(dataset, order[0]) : 0;
    size_t taken = 0;
    for (; taken < n && lead_of(dataset, order[taken]) == lead_of(dataset, order[0]); taken++) {
        n_tokens += own_tokens(dataset, order[taken]);
        if (taken > 0 && n_tokens > CR_MICRO_TOKENS) {
            break;
        }
    }
    return taken;
}

static void add_row(struct cr_token_batch *batch, size_t token, int32_t target, uint32_t choices, float weight)
{
    size_t row = batch->n_rows++;
    batch->row_token[row] = (uint32_t)token;
    batch->row_target[row] = target;
    batch->row_choices[row] = choices;
    batch->row_weight[row] = weight;
}

/* Tokens [from, to) of an example as a sequence from token `start` on; returns the token after it. */
static size_t add_sequence(struct cr_token_batch *batch, size_t start, const struct cr_example *example, uint32_t from,
                           uint32_t to, uint32_t number)
{
    batch->seg[batch->n_seg++] = (uint32_t)start;
    for (uint32_t i = from; i < to; i++, start++) {
        batch->ids[start] = example->ids[i];
        batch->pos[start] = i;
        batch->example[start] = number;
    }
    return start;
}

/* What an example has of its own, from token `start` on; returns the token after it. */
static size_t add_example(struct cr_token_batch *batch, size_t start, const struct cr_example *example, uint32_t number,
                          float weight)
{
    size_t end = add_sequence(batch, start, example, (uint32_t)batch->n_lead, example->n_ids, number);
    for (uint32_t i = 1; i < example->n_ids && example->mask != NULL; i++) { /* then nothing is shared */
        if (example->mask[i] != 0) {
            add_row(batch, start + i - 1, example->ids[i], 0, weight);
        }
    }
    if (example->kind == CR_EXAMPLE_CHOICE) {
        add_row(batch, end - 1, (int32_t)example->answer, example->n_choices, weight);
    }
    batch->n_tokens += example->n_ids;
    return end;
}

static void add_pads(struct cr_token_batch *batch, size_t start, size_t end)
{
    if (end > start) {
        batch->seg[batch->n_seg++] = (uint32_t)start;
    }
    for (size_t i = start; i < end; i++) {
        batch->ids[i] = 0;
        batch->pos[i] = (uint32_t)(i - start);
        batch->example[i] = UINT32_MAX;
    }
}

void cr_batch_clear(struct cr_token_batch *batch)
{
    batch->n_tokens = 0;
    batch->n_blocks = 0;
    batch->n_lead = 0;
    batch->n_seg = 0;
    batch->n_rows = 0;
    batch->n_parts = 0;
}

void cr_batch_add_part(struct cr_token_batch *batch, uint32_t member, const struct cr_dataset *dataset,
                       const uint32_t *order, size_t n, float weight)
{
    size_t at = batch->n_blocks * BLOCK;
    batch->n_lead = lead_of(dataset, order[0]);
    if (batch->n_lead > 0) {
        at = add_sequence(batch, at, &dataset->examples[order[0]], 0, (uint32_t)batch->n_lead, order[0]);
    }
    for (size_t i = 0; i < n; i++) {
        at = add_example(batch, at, &dataset->examples[order[i]], order[i], weight);
    }
    size_t end = cr_round_up_16(at);
    add_pads(batch, at, end);
    batch->n_blocks = end / BLOCK;
    batch->seg[batch->n_seg] = (uint32_t)end;
    batch->part_member[batch->n_parts] = member;
    batch->part_end[batch->n_parts++] = (uint32_t)batch->n_blocks;
}

static uint32_t set_of_example(const struct cr_dataset *dataset, const uint32_t *set_of, uint32_t example)
{
    return set_of[dataset->examples[example].task + 1];
}

void cr_batch_sort(const struct cr_dataset *dataset, const uint32_t *set_of, uint32_t n_sets, const uint32_t *order,
                   size_t n, uint32_t *sorted)
{
    size_t at = 0;
    for (uint32_t set = 0; set < n_sets && at < n; set++) {
        for (size_t i = 0; i < n; i++) {
            if (set_of_example(dataset, set_of, order[i]) == set) {
                sorted[at++] = order[i];
            }
        }
    }
}

/* How many of the n examples, the first of which decides the set, form a part of at most `room` tokens. */
static size_t take_part(const struct cr_dataset *dataset, const uint32_t *set_of, const uint32_t *sorted, size_t n,
                        size_t room)
{
    uint32_t set = set_of_example(dataset, set_of, sorted[0]);
    size_t taken = 0, lead = lead_of(dataset, sorted[0]), tokens = lead;
    for (; taken < n && set_of_example(dataset, set_of, sorted[taken]) == set; taken++) {
        if (lead_of(dataset, sorted[taken]) != lead) {
            break;
        }
        tokens += own_tokens(dataset, sorted[taken]);
        if (cr_round_up_16(tokens) > room) {
            break;
        }
    }
    return taken;
}

size_t cr_batch_fill_sorted(struct cr_token_batch *batch, const struct cr_dataset *dataset, const uint32_t *set_of,
                            const uint32_t *sorted, size_t n, float weight)
{
    size_t done = 0;
    cr_batch_clear(batch);
    while (done < n) {
        if (done > 0 && lead_of(dataset, sorted[done]) != batch->n_lead) {
            break;
        }
        size_t used = batch->n_blocks * BLOCK;
        size_t room = used < CR_MICRO_TOKENS ? CR_MICRO_TOKENS - used : 0;
        size_t taken =
            take_part(dataset, set_of, sorted + done, n - done, room); /* a full part leaves no room for more */
        if (taken == 0 && done > 0) {
            break;
        }
        taken = taken > 0 ? taken : 1; /* longer than all the room: alone */
        cr_batch_add_part(batch, set_of_example(dataset, set_of, sorted[done]), dataset, sorted + done, taken, weight);
        done += taken;
    }
    return done;
}

size_t cr_batch_part_tokens(const struct cr_dataset *dataset, const uint32_t *order, size_t n)
{
    size_t n_tokens = lead_of(dataset, order[0]);
    for (size_t i = 0; i < n; i++) {
        n_tokens += own_tokens(dataset, order[i]);
    }
    return cr_round_up_16(n_tokens);
}

void cr_batch_fill(struct cr_token_batch *batch, const struct cr_dataset *dataset, const uint32_t *order, size_t n,
                   float weight)
{
    cr_batch_clear(batch);
    cr_batch_add_part(batch, 0, dataset, order, n, weight);
}

void cr_epoch_order(const uint32_t *pool, size_t n, uint64_t seed, uint32_t epoch, uint32_t *order)
{
    uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32) ^ (uint32_t)ORDER_STREAM};
    cr_permutation(key, epoch, order, n);
    for (size_t i = 0; i < n; i++) {
        order[i] = pool[order[i]];
    }
}
