/* prefix_case: learned prefixes with random numbers. */
#ifndef CR_TESTS_PREFIX_CASE_H
#define CR_TESTS_PREFIX_CASE_H

#include "runtime/core/alloc.h"
#include "runtime/model/model.h"
#include "runtime/model/prefix.h"
#include "runtime/model/simplex.h"
#include "tests/support/kernel_test.h"

/* Weights as a method draws them; a member is a draw of its own. */
static inline void draw(const void *ctx, uint32_t member, uint32_t example, uint32_t layer, double *lambda)
{
    const struct cr_prefix *prefix = ctx;
    struct cr_simplex_point point = {.seed = 5, .draw = member, .example = example, .layer = layer};
    cr_simplex_weights(&point, prefix->n_vertices, lambda);
}

/* A prefix of random rows and label rows, gradients zero. Values are large so that the loss depends on keys, too. */
static inline void make_prefix(struct cr_prefix *p, const struct cr_model *model, uint32_t n_vertices, uint32_t n_rows,
                               uint32_t n_labels)
{
    const struct cr_model_config *c = &model->config;
    *p = (struct cr_prefix){.n_layers = c->n_layers,
                            .n_vertices = n_vertices,
                            .n_rows = n_rows,
                            .n_features = c->n_kv * c->head_dim,
                            .n_labels = n_labels,
                            .n_embd = c->n_embd,
                            .weights = draw,
                            .ctx = p};
    struct cr_rng rng = cr_rng_make(31);
    p->params = cr_zalloc(cr_prefix_floats(p), sizeof(float));
    p->grads = cr_zalloc(cr_prefix_floats(p), sizeof(float));
    for (size_t at = 0; at < cr_prefix_rows_floats(p); at += cr_prefix_tensor(p)) {
        float range = at / cr_prefix_tensor(p) % 2 == 0 ? 1 : 4;
        for (size_t row = 0; row < n_rows; row++) {
            for (size_t i = 0; i < p->n_features; i++) {
                cr_fill_f32(&rng, p->params + at + cr_prefix_row_at(p, row, i), 1, -range, range);
            }
        }
    }
    cr_fill_f32(&rng, p->params + cr_prefix_rows_floats(p), (size_t)n_vertices * n_labels * p->n_embd, -0.2f, 0.2f);
}

static inline void free_prefix(struct cr_prefix *p)
{
    cr_free(p->params);
    cr_free(p->grads);
}

#endif
