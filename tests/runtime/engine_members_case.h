/* engine_members_case: several adapters, their engine and a batch with a part for each. */
#ifndef CR_TESTS_ENGINE_MEMBERS_CASE_H
#define CR_TESTS_ENGINE_MEMBERS_CASE_H

#include <stdlib.h>
#include <string.h>

#include "credence/kernels/dequant.h"
#include "tests/support/engine_test.h"
#include "tests/support/kernel_test.h"

static const int32_t label_ids[3] = {256, 257, 258};
enum {
    ALL_TARGETS = (1 << CR_N_PROJ) - 1,
    N_MEMBERS = 4,
    N_LABELS = 3,
    MAX_TOKENS = 1600,
    MAX_SEQ = 128,
    N_WORKERS = 3,
};

/* Adapters of different ranks and scales; the third has none on q and down, the last none in this batch. */
struct setup {
    struct cr_test_model m;
    struct cr_test_lora lora[N_MEMBERS];
    struct cr_lora *together; /* [N_MEMBERS][n_slots], gradients of their own */
    float *grads[N_MEMBERS];
    size_t n_slots;
};

static inline void make_setup(struct setup *s)
{
    static const uint32_t ranks[N_MEMBERS] = {4, 1, 7, 9};
    struct cr_tiny_spec spec = {.type = CR_Q_Q4_1, .n_layers = 3};
    s->m = cr_test_model_make(&spec);
    s->n_slots = (size_t)spec.n_layers * CR_N_PROJ;
    s->together = calloc(N_MEMBERS * s->n_slots, sizeof *s->together);
    for (size_t i = 0; i < N_MEMBERS; i++) {
        uint32_t targets = i == 2 ? ALL_TARGETS & ~(1u << CR_PROJ_Q | 1u << CR_PROJ_DOWN) : ALL_TARGETS;
        s->lora[i] = cr_test_lora_make(s->m.model, targets, ranks[i], 2.0f + (float)i, 0.2f);
        s->grads[i] = calloc(s->lora[i].n_params, sizeof(float));
        struct cr_lora *own = s->together + i * s->n_slots;
        memcpy(own, s->lora[i].lora, s->n_slots * sizeof *own);
        for (size_t slot = 0; slot < s->n_slots; slot++) {
            if (own[slot].rank > 0) {
                own[slot].grad_a = s->grads[i] + (own[slot].grad_a - s->lora[i].grads);
                own[slot].grad_b = s->grads[i] + (own[slot].grad_b - s->lora[i].grads);
            }
        }
    }
}

static inline void free_setup(struct setup *s)
{
    for (size_t i = 0; i < N_MEMBERS; i++) {
        cr_test_lora_free(&s->lora[i]);
        free(s->grads[i]);
    }
    free(s->together);
    cr_test_model_free(&s->m);
}

struct kind {
    enum cr_tier tier;
    uint32_t n_labels;
    bool train, recompute;
    const struct cr_label_rows *own_rows;
};

static inline struct cr_engine *make_engine(const struct setup *s, const struct cr_lora *lora, uint32_t n_members,
                                            const struct kind *kind, const struct cr_parallel *parallel)
{
    struct cr_engine_options options = {.model = s->m.model,
                                        .lora = lora,
                                        .n_members = n_members,
                                        .own_rows = kind->own_rows,
                                        .parallel = parallel,
                                        .tier = kind->tier,
                                        .max_tokens = MAX_TOKENS,
                                        .max_seq = MAX_SEQ,
                                        .label_ids = kind->n_labels > 0 ? label_ids : NULL,
                                        .n_labels = kind->n_labels,
                                        .train = kind->train,
                                        .recompute = kind->recompute};
    return cr_test_engine(&options);
}

/* Batches of the members present and all of them behind each other. */
struct parts {
    struct cr_token_batch own[N_MEMBERS], all;
    uint32_t member[N_MEMBERS], end[N_MEMBERS];
    size_t n, first_row[N_MEMBERS];
};

static inline void append(struct cr_token_batch *all, const struct cr_token_batch *own)
{
    size_t at = all->n_blocks * 16;
    memcpy(all->ids + at, own->ids, own->n_blocks * 16 * sizeof *own->ids);
    memcpy(all->pos + at, own->pos, own->n_blocks * 16 * sizeof *own->pos);
    memcpy(all->example + at, own->example, own->n_blocks * 16 * sizeof *own->example);
    for (size_t i = 0; i <= own->n_seg; i++) {
        all->seg[all->n_seg + i] = (uint32_t)at + own->seg[i];
    }
    for (size_t i = 0; i < own->n_rows; i++) {
        all->row_token[all->n_rows + i] = (uint32_t)at + own->row_token[i];
        all->row_target[all->n_rows + i] = own->row_target[i];
        all->row_choices[all->n_rows + i] = own->row_choices[i];
        all->row_weight[all->n_rows + i] = own->row_weight[i];
    }
    all->n_seg += own->n_seg;
    all->n_rows += own->n_rows;
    all->n_blocks += own->n_blocks;
    all->n_tokens += own->n_tokens;
}

static inline void add_part(struct parts *p, uint32_t member, const uint32_t *lengths, const uint32_t *examples,
                            size_t n, uint32_t n_labels)
{
    size_t i = p->n++;
    p->own[i] = cr_test_batch_make(lengths, examples, n, n_labels, 0.01f);
    p->first_row[i] = p->all.n_rows;
    append(&p->all, &p->own[i]);
    p->member[i] = member;
    p->end[i] = (uint32_t)p->all.n_blocks;
    p->all.n_parts = p->n;
}

/* The same examples for two members and others for the third. `large`: the second has more than 48 blocks and more than
 * 48 blocks of rows, so that tiles are cut within it. */
static inline void make_parts(struct parts *p, uint32_t n_labels, bool large)
{
    enum { MANY = 10 };
    static const uint32_t lengths[3] = {33, 1, 29}, examples[3] = {1, 2, 3}, others[3] = {3, 9, 8};
    uint32_t long_lengths[MANY], long_examples[MANY];
    for (uint32_t i = 0; i < MANY; i++) {
        long_lengths[i] = 101 + i;
        long_examples[i] = 20 + i;
    }
    *p = (struct parts){.n = 0};
    uint32_t room = MAX_TOKENS;
    p->all = cr_test_batch_make(&room, &examples[0], 1, 0, 1); /* buffers */
    free(p->all.seg);
    p->all.seg = calloc(MAX_TOKENS, sizeof *p->all.seg);
    p->all.n_seg = p->all.n_rows = p->all.n_blocks = p->all.n_tokens = 0;
    p->all.part_member = p->member;
    p->all.part_end = p->end;
    add_part(p, 0, lengths, examples, 3, n_labels);
    if (large) {
        add_part(p, 1, long_lengths, long_examples, MANY, n_labels);
    } else {
        add_part(p, 1, lengths, examples, 3, n_labels);
    }
    add_part(p, 2, others, examples, 3, n_labels);
}

static inline void free_parts(struct parts *p)
{
    for (size_t i = 0; i < p->n; i++) {
        cr_test_batch_free(&p->own[i]);
    }
    cr_test_batch_free(&p->all);
}

#endif
