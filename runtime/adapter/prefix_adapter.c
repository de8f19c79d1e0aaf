#include "runtime/adapter/prefix_adapter.h"

#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/core/error.h"
#include "runtime/io/json.h"
#include "runtime/model/simplex.h"

/* Bounds of a file's numbers: far beyond any model, and no product of them overflows. */
enum { LAYERS_MAX = 4096, WIDTH_MAX = 1 << 20, LABELS_MAX = 26 };

static void equal_weights(const void *ctx, uint32_t member, uint32_t example, uint32_t layer, double *lambda)
{
    (void)member;
    (void)example;
    (void)layer;
    cr_simplex_centroid(((const struct cr_prefix *)ctx)->n_vertices, lambda);
}

void cr_prefix_shape_of(const struct cr_model *model, uint32_t n_vertices, uint32_t n_rows, uint32_t n_labels,
                        struct cr_prefix *out)
{
    const struct cr_model_config *config = &model->config;
    *out = (struct cr_prefix){.n_layers = config->n_layers,
                              .n_vertices = n_vertices,
                              .n_rows = n_rows,
                              .n_features = config->n_kv * config->head_dim,
                              .n_labels = n_labels,
                              .n_embd = config->n_embd};
}

cr_status cr_prefix_adapter_create(const struct cr_prefix *shape, bool with_grads, struct cr_adapter **out,
                                   struct cr_error *err)
{
    size_t n = cr_prefix_floats(shape), n_slots = (size_t)shape->n_layers * CR_N_PROJ;
    struct cr_adapter *adapter = cr_zalloc(1, sizeof *adapter);
    if (adapter != NULL) {
        adapter->slots = cr_zalloc(n_slots, sizeof *adapter->slots);
        adapter->prefix = cr_zalloc(1, sizeof *adapter->prefix);
        adapter->params = cr_zalloc(n, sizeof *adapter->params);
        adapter->grads = with_grads ? cr_zalloc(n, sizeof *adapter->grads) : NULL;
    }
    if (adapter == NULL || adapter->slots == NULL || adapter->prefix == NULL || adapter->params == NULL ||
        (with_grads && adapter->grads == NULL)) {
        cr_adapter_destroy(adapter);
        return cr_fail(err, CR_E_MEMORY, "out of memory for a prefix of %zu numbers", n);
    }
    adapter->n_layers = shape->n_layers;
    adapter->n_sets = 1;
    adapter->n_params = n;
    adapter->n_trainable =
        (size_t)shape->n_vertices *
        ((size_t)shape->n_layers * 2 * shape->n_rows * shape->n_features + (size_t)shape->n_labels * shape->n_embd);
    *adapter->prefix = *shape;
    adapter->prefix->params = adapter->params;
    adapter->prefix->grads = adapter->grads;
    adapter->prefix->weights = equal_weights;
    adapter->prefix->ctx = adapter->prefix;
    *out = adapter;
    return CR_OK;
}

/* The mean of n numbers that stand `stride` apart. */
static void mean_of(const float *from, uint32_t n_vertices, size_t stride, size_t n, float *out)
{
    double lambda[CR_PREFIX_VERTICES_MAX];
    const float *vertices[CR_PREFIX_VERTICES_MAX];
    cr_simplex_centroid(n_vertices, lambda);
    for (uint32_t j = 0; j < n_vertices; j++) {
        vertices[j] = from + j * stride;
    }
    cr_simplex_mix_f32(lambda, vertices, n_vertices, n, out);
}

cr_status cr_prefix_adapter_centroid(const struct cr_adapter *adapter, struct cr_adapter **out, struct cr_error *err)
{
    const struct cr_prefix *from = adapter->prefix;
    struct cr_prefix shape = *from;
    struct cr_adapter *made = NULL;
    size_t vertex = 2 * cr_prefix_tensor(from), head = (size_t)from->n_labels * from->n_embd;
    shape.n_vertices = 1;
    CR_TRY(cr_prefix_adapter_create(&shape, false, &made, err));
    for (uint32_t layer = 0; layer < from->n_layers; layer++) {
        mean_of(from->params + cr_prefix_at(from, layer, 0), from->n_vertices, vertex, vertex,
                made->params + cr_prefix_at(made->prefix, layer, 0));
    }
    mean_of(from->params + cr_prefix_rows_floats(from), from->n_vertices, head, head,
            made->params + cr_prefix_rows_floats(made->prefix));
    made->base_hash = adapter->base_hash;
    memcpy(made->method, adapter->method, sizeof made->method);
    *out = made;
    return CR_OK;
}

size_t cr_prefix_table_floats(const struct cr_prefix *prefix)
{
    return (size_t)prefix->n_rows * 2 * prefix->n_layers * prefix->n_features;
}

/* Feature of a key in memory that stands at place i of a table: rows of k_proj follow the GGUF order there. */
static size_t key_feature(const struct cr_adapter_base *base, size_t i)
{
    return cr_adapter_permutes(base, CR_PROJ_K) ? cr_gguf_row(i, base->head_dim) : i;
}

/* Either way: `out` is NULL on the way in, `in` on the way out. */
static cr_status convert(const struct cr_prefix *prefix, const struct cr_adapter_base *base, uint32_t vertex,
                         const float *in, float *out, struct cr_error *err)
{
    uint32_t head = base->head_dim;
    if (cr_adapter_permutes(base, CR_PROJ_K) && (head == 0 || head % 2 != 0 || prefix->n_features % head != 0)) {
        return cr_fail(err, CR_E_USAGE,
                       "keys of %u features with heads of %u cannot be brought to another order: name the base model",
                       prefix->n_features, head);
    }
    size_t wide = prefix->n_features, line = 2 * prefix->n_layers * wide;
    for (uint32_t part = 0; part < 2 * prefix->n_layers; part++) {
        float *at = prefix->params + cr_prefix_at(prefix, part / 2, vertex) + part % 2 * cr_prefix_tensor(prefix);
        for (size_t row = 0; row < prefix->n_rows; row++) {
            for (size_t i = 0; i < wide; i++) {
                float *own = at + cr_prefix_row_at(prefix, row, part % 2 == 0 ? key_feature(base, i) : i);
                size_t place = row * line + part * wide + i;
                if (out != NULL) {
                    out[place] = *own;
                } else {
                    *own = in[place];
                }
            }
        }
    }
    return CR_OK;
}

cr_status cr_prefix_to_table(const struct cr_prefix *prefix, const struct cr_adapter_base *base, uint32_t vertex,
                             float *table, struct cr_error *err)
{
    return convert(prefix, base, vertex, NULL, table, err);
}

cr_status cr_prefix_from_table(const struct cr_prefix *prefix, const struct cr_adapter_base *base, uint32_t vertex,
                               const float *table, struct cr_error *err)
{
    return convert(prefix, base, vertex, table, NULL, err);
}

json_t *cr_prefix_shape_json(const struct cr_prefix *prefix)
{
    json_t *object = json_pack("{s:i,s:i,s:i,s:i,s:i,s:i}", "features", (int)prefix->n_features, "labels",
                               (int)prefix->n_labels, "layers", (int)prefix->n_layers, "rows", (int)prefix->n_rows,
                               "vertices", (int)prefix->n_vertices, "width", (int)prefix->n_embd);
    if (object != NULL && prefix->one_point) { /* else as files are that do not know of it */
        cr_json_put(&object, "one_point", json_true());
    }
    return object;
}

cr_status cr_prefix_shape_read(const json_t *object, const struct cr_model *model, const char *label,
                               struct cr_prefix *out, struct cr_error *err)
{
    struct cr_prefix shape = {0}, of_model;
    struct {
        const char *key;
        int64_t min, max;
        uint32_t *out;
    } numbers[] = {{"features", 1, WIDTH_MAX, &shape.n_features},
                   {"labels", 0, LABELS_MAX, &shape.n_labels},
                   {"layers", 1, LAYERS_MAX, &shape.n_layers},
                   {"rows", 1, CR_PREFIX_ROWS_MAX, &shape.n_rows},
                   {"vertices", 1, CR_PREFIX_VERTICES_MAX, &shape.n_vertices},
                   {"width", 1, WIDTH_MAX, &shape.n_embd}};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        int64_t value = 0;
        CR_TRY(cr_json_get_int(object, numbers[i].key, true, numbers[i].min, numbers[i].max, &value, label, err));
        *numbers[i].out = (uint32_t)value;
    }
    if (model != NULL) {
        cr_prefix_shape_of(model, shape.n_vertices, shape.n_rows, shape.n_labels, &of_model);
        if (shape.n_layers != of_model.n_layers || shape.n_features != of_model.n_features ||
            shape.n_embd != of_model.n_embd) {
            return cr_fail(err, CR_E_INPUT,
                           "%s: a prefix of %u layers, keys of %u features, width %u; the model has %u, %u and %u",
                           label, shape.n_layers, shape.n_features, shape.n_embd, of_model.n_layers,
                           of_model.n_features, of_model.n_embd);
        }
    }
    CR_TRY(cr_json_get_bool(object, "one_point", false, &shape.one_point, label, err));
    *out = shape;
    return CR_OK;
}
