/* prefix: learned keys and values that every token of a sequence sees, in every layer, before the sequence's own
 * (Li and Liang 2021, arXiv 2101.00190), as mixtures of several vertices.
 *
 *   a sequence sees P = sum_j lambda_j P_j, weights of its own in each layer;  gradient of P_j = lambda_j gradient of P
 *   the logits of its labels are (sum_j lambda_j H_j) h where vertices have label rows H_j: as layer n_layers
 *
 * Keys are what attention sees, after rotation: none is applied to them. The first token of a sequence stands at
 * position n_rows. One vertex is plain prefix tuning. Sources of the mixtures: simplex.h.
 *
 * One vector of parameters, and one alike of gradients:
 *   rows   [n_layers][n_vertices][keys, values] TL16 f32 of n_rows rows, n_features features
 *   head   [n_vertices][n_labels][n_embd], then zeros up to a multiple of 16
 * Lanes past n_rows are zero and stay zero.
 */
#ifndef CR_MODEL_PREFIX_H
#define CR_MODEL_PREFIX_H

#include <stdbool.h>

#include "credence/kernels/tl16.h"
#include "runtime/core/alloc.h"

/* The label rows of all vertices are one product of at most 256 rows: 8 x 26. Rows: more than any paper's 200. */
enum { CR_PREFIX_VERTICES_MAX = 8, CR_PREFIX_ROWS_MAX = 256 };

/* lambda [n_vertices]: weights of the example's mixture in a layer (n_layers: the head), for a member of the engine.
 * The same whenever they are asked for within a pass. Where examples share tokens they are asked for the first of a
 * part alone: only weights that no example changes go with that. */
typedef void cr_prefix_weights_fn(const void *ctx, uint32_t member, uint32_t example, uint32_t layer, double *lambda);

struct cr_prefix {
    uint32_t n_layers, n_vertices, n_rows;
    uint32_t n_features;       /* n_kv * head_dim */
    uint32_t n_labels, n_embd; /* n_labels 0: the model's own head */
    bool one_point;            /* a draw takes one point of the simplex for all layers; else each layer its own */
    float *params, *grads;     /* borrowed; grads needed for training */
    cr_prefix_weights_fn *weights;
    const void *ctx;
};

/* Floats of the keys of one vertex in one layer, or of the values. */
static inline size_t cr_prefix_tensor(const struct cr_prefix *prefix)
{
    return cr_tl16_blocks(prefix->n_rows) * prefix->n_features * CR_LANES;
}

/* Where the head begins. */
static inline size_t cr_prefix_rows_floats(const struct cr_prefix *prefix)
{
    return (size_t)prefix->n_layers * prefix->n_vertices * 2 * cr_prefix_tensor(prefix);
}

static inline size_t cr_prefix_head_floats(const struct cr_prefix *prefix)
{
    return cr_round_up_16((size_t)prefix->n_vertices * prefix->n_labels * prefix->n_embd);
}

static inline size_t cr_prefix_floats(const struct cr_prefix *prefix)
{
    return cr_prefix_rows_floats(prefix) + cr_prefix_head_floats(prefix);
}

/* Place of a vertex in a layer: keys, behind them values. */
static inline size_t cr_prefix_at(const struct cr_prefix *prefix, uint32_t layer, uint32_t vertex)
{
    return ((size_t)layer * prefix->n_vertices + vertex) * 2 * cr_prefix_tensor(prefix);
}

/* Place of a row's feature within the keys or the values. */
static inline size_t cr_prefix_row_at(const struct cr_prefix *prefix, size_t row, size_t feature)
{
    return row / CR_LANES * prefix->n_features * CR_LANES + cr_tl16_f32(feature, row % CR_LANES);
}

#endif
