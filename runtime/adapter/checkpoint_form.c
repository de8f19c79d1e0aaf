/* The weights inside a training checkpoint as an adapter: a flat vector, and the JSON that says what it means. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "runtime/adapter/draft.h"
#include "runtime/adapter/files.h"
#include "runtime/adapter/prefix_adapter.h"
#include "runtime/core/alloc.h"
#include "runtime/core/error.h"
#include "runtime/io/checkpoint.h"
#include "runtime/io/hash.h"
#include "runtime/io/json.h"

enum { SLOT_NUMBERS = 6, NAME_BYTES = 32 };

char *cr_adapter_shapes_text(const struct cr_adapter *adapter, const struct cr_model *model)
{
    struct cr_adapter_base base;
    char hex[17];
    cr_adapter_base_of(model, &base);
    json_t *slots = json_array();
    for (size_t i = 0; i < (size_t)adapter->n_layers * CR_N_PROJ; i++) {
        const struct cr_lora *slot = &adapter->slots[i];
        if (slot->rank > 0) {
            json_t *one = json_array();
            const uint32_t numbers[] = {(uint32_t)(i / CR_N_PROJ), (uint32_t)(i % CR_N_PROJ), slot->rank, slot->n_in,
                                        slot->n_out};
            for (int j = 0; j < 5; j++) {
                cr_json_add(&one, json_integer(numbers[j]));
            }
            cr_json_add(&one, json_real((double)slot->scale));
            cr_json_add(&slots, one);
        }
    }
    json_t *object = json_object();
    cr_json_put(&object, "alpha", json_real(adapter->alpha));
    cr_json_put(&object, "architecture", json_string(base.architecture));
    cr_json_put(&object, "base_xxh3", json_string(cr_hex_64(hex, model->base_hash)));
    cr_json_put(&object, "dropout", json_real(adapter->dropout));
    cr_json_put(&object, "head_dim", json_integer(base.head_dim));
    cr_json_put(&object, "slots", slots);
    if (adapter->n_labels > 0) {
        cr_json_put(&object, "labels", json_integer(adapter->n_labels));
        cr_json_put(&object, "width", json_integer(adapter->n_embd));
    }
    if (adapter->n_sets > 1) {
        cr_json_put(&object, "sets", json_integer(adapter->n_sets));
    }
    if (adapter->prefix != NULL) {
        cr_json_put(&object, "prefix", cr_prefix_shape_json(adapter->prefix));
    }
    char *text = cr_json_dumps(object, JSON_COMPACT | JSON_SORT_KEYS);
    json_decref(object);
    return text;
}

/* One matrix inside the weights. */
struct matrix {
    const char *label;
    const float *data;
    size_t n;
    char name[NAME_BYTES];
};

static cr_status read_matrix(const void *file, const void *tensor, float *out, struct cr_error *err)
{
    (void)file;
    const struct matrix *m = tensor;
    for (size_t i = 0; i < m->n; i++) {
        out[i] = m->data[i];
        if (!isfinite(out[i])) {
            return cr_fail(err, CR_E_INPUT, "%s: %s: element %zu is %g, a finite number expected", m->label, m->name, i,
                           (double)out[i]);
        }
    }
    return CR_OK;
}

struct source {
    const char *label;
    const json_t *object; /* shapes */
    const float *weights;
    size_t n_left;           /* floats not yet given to a matrix */
    struct matrix *matrices; /* owned, two a slot */
    size_t n_matrices;
};

static cr_status slot_numbers(const struct source *source, const json_t *slot, uint64_t *numbers, double *scale,
                              struct cr_error *err)
{
    bool good = json_array_size(slot) == SLOT_NUMBERS;
    for (size_t i = 0; good && i + 1 < SLOT_NUMBERS; i++) {
        const json_t *value = json_array_get(slot, i);
        json_int_t n = json_integer_value(value);
        good = json_is_integer(value) && n >= 0 && n < INT32_MAX;
        numbers[i] = good ? (uint64_t)n : 0;
    }
    const json_t *last = json_array_get(slot, SLOT_NUMBERS - 1);
    *scale = json_number_value(last);
    good = good && numbers[1] < CR_N_PROJ && numbers[2] <= CR_RANK_MAX && json_is_number(last) && isfinite(*scale) &&
           *scale > 0;
    return good ? CR_OK
                : cr_fail(err, CR_E_INPUT,
                          "%s: slots: [layer, projection, rank, in, out, scale] expected, found another entry",
                          source->label);
}

/* The next matrix of the flat weights. NULL when they end too early. */
static struct matrix *next_matrix(struct source *source, uint64_t layer, uint64_t proj, int part, uint64_t rows,
                                  uint64_t cols)
{
    size_t n = (size_t)rows * (size_t)cols; /* below 2^8 * 2^31 */
    size_t step = cr_round_up_16(n);
    if (source->n_left < step) {
        return NULL;
    }
    struct matrix *m = &source->matrices[source->n_matrices++];
    *m = (struct matrix){.label = source->label, .data = source->weights, .n = n};
    snprintf(m->name, sizeof m->name, "layer %u %s %c", (unsigned)layer, cr_proj_gguf_name((enum cr_proj)proj),
             part == 0 ? 'A' : 'B');
    source->weights += step;
    source->n_left -= step;
    return m;
}

static cr_status add_slots(struct cr_draft *draft, struct source *source, struct cr_error *err)
{
    const json_t *slots = json_object_get(source->object, "slots");
    uint64_t before = 0; /* place of the last slot, plus one */
    for (size_t i = 0; i < json_array_size(slots); i++) {
        uint64_t v[SLOT_NUMBERS];
        double scale;
        CR_TRY(slot_numbers(source, json_array_get(slots, i), v, &scale, err));
        uint64_t place = v[0] * CR_N_PROJ + v[1];
        struct matrix *a = next_matrix(source, v[0], v[1], 0, v[2], v[3]);
        struct matrix *b = a != NULL ? next_matrix(source, v[0], v[1], 1, v[4], v[2]) : NULL;
        if (b == NULL || place < before) {
            return cr_fail(err, CR_E_INPUT, "%s: slot %zu: %s", source->label, i,
                           b == NULL ? "the weights end before it" : "not in the order of the parameters");
        }
        before = place + 1;
        struct cr_draft_name where = {.layer = (uint32_t)v[0], .proj = (enum cr_proj)v[1], .part = 0};
        CR_TRY(cr_draft_add(draft, &where, a->name, a, v[2], v[3], err));
        where.part = 1;
        CR_TRY(cr_draft_add(draft, &where, b->name, b, v[4], v[2], err));
        draft->slots[place].scale = scale;
    }
    if (source->n_left != 0) {
        return cr_fail(err, CR_E_INPUT, "%s: %zu floats behind the last slot", source->label, source->n_left);
    }
    return CR_OK;
}

static cr_status read_base(const struct source *source, const struct cr_model *model, struct cr_adapter_base *base,
                           uint64_t *hash, struct cr_error *err)
{
    const char *text = NULL;
    size_t n = 0;
    int64_t head_dim = 0;
    struct cr_adapter_base found = {0};
    CR_TRY(cr_json_get_str(source->object, "base_xxh3", true, &text, &n, source->label, err));
    CR_TRY(cr_base_hash_parse(text, n, source->label, hash, err));
    CR_TRY(cr_json_get_str(source->object, "architecture", true, &text, &n, source->label, err));
    CR_TRY(cr_json_get_int(source->object, "head_dim", true, 0, 65536, &head_dim, source->label, err));
    if (n == 0 || n >= sizeof found.architecture || memchr(text, 0, n) != NULL) {
        return cr_fail(err, CR_E_INPUT, "%s: architecture of %zu bytes is not supported", source->label, n);
    }
    memcpy(found.architecture, text, n);
    found.head_dim = (uint32_t)head_dim;
    found.permuted_qk = cr_architecture_permutes(found.architecture);
    if (model != NULL) {
        cr_adapter_base_of(model, base);
        if (strcmp(base->architecture, found.architecture) != 0) {
            char shown[CR_ESCAPE_BYTES];
            return cr_fail(err, CR_E_INPUT, "%s: architecture is \"%s\", \"%s\" expected", source->label,
                           cr_escape(shown, sizeof shown, text, n), base->architecture);
        }
        return CR_OK;
    }
    *base = found;
    return CR_OK;
}

static cr_status build(struct source *source, const struct cr_model *model, bool with_grads, struct cr_adapter **out,
                       struct cr_adapter_base *base, struct cr_error *err)
{
    struct cr_draft draft = {.label = source->label, .model = model, .read = read_matrix};
    size_t n = json_array_size(json_object_get(source->object, "slots"));
    uint64_t hash = 0;
    double alpha = 0;
    double dropout = 0;
    struct cr_adapter *adapter = NULL;
    cr_status status = CR_OK;
    source->matrices = cr_alloc(2 * n, sizeof *source->matrices);
    if (source->matrices == NULL) {
        status = cr_fail(err, CR_E_MEMORY, "%s: out of memory for %zu slots", source->label, n);
        goto out;
    }
    CR_TRY_OUT(status, cr_json_get_number(source->object, "alpha", true, &alpha, source->label, err));
    CR_TRY_OUT(status, cr_json_get_number(source->object, "dropout", true, &dropout, source->label, err));
    CR_TRY_OUT(status, read_base(source, model, &draft.base, &hash, err));
    CR_TRY_OUT(status, add_slots(&draft, source, err));
    CR_TRY_OUT(status, cr_draft_check(&draft, err));
    CR_TRY_OUT(status, cr_draft_build(&draft, with_grads, &adapter, err));
    adapter->alpha = alpha;
    adapter->dropout = dropout;
    adapter->base_hash = hash;
    *base = draft.base;
    *out = adapter;
out:
    cr_draft_deinit(&draft);
    cr_free(source->matrices);
    return status;
}

/* An adapter, with label rows behind its matrices where there are any. */
static cr_status build_rows(struct source *source, uint32_t n_labels, uint32_t n_embd, const struct cr_model *model,
                            bool with_grads, struct cr_adapter **out, struct cr_adapter_base *base,
                            struct cr_error *err)
{
    size_t n = cr_label_floats(n_labels, n_embd);
    if (n_labels == 0) {
        return build(source, model, with_grads, out, base, err);
    }
    if (n > source->n_left || (model != NULL && n_embd != model->config.n_embd)) {
        return cr_fail(err, CR_E_INPUT, "%s: %u label rows of width %u do not fit", source->label, n_labels, n_embd);
    }
    source->n_left -= n;
    struct matrix rows = {.label = source->label, .data = source->weights + source->n_left, .n = n};
    snprintf(rows.name, sizeof rows.name, "label rows");
    CR_TRY(build(source, model, with_grads, out, base, err));
    cr_status status = cr_adapter_add_rows(out, n_labels, n_embd, err);
    if (status == CR_OK) {
        status = read_matrix(NULL, &rows, (*out)->params + cr_adapter_rows_begin(*out), err);
    }
    if (status != CR_OK) {
        cr_adapter_destroy(*out);
        *out = NULL;
    }
    return status;
}

static cr_status build_prefix(const struct source *source, const struct cr_model *model, bool with_grads,
                              struct cr_adapter **out, struct cr_adapter_base *base, struct cr_error *err)
{
    struct cr_prefix shape;
    uint64_t hash = 0;
    CR_TRY(read_base(source, model, base, &hash, err));
    CR_TRY(cr_prefix_shape_read(json_object_get(source->object, "prefix"), model, source->label, &shape, err));
    size_t n = cr_prefix_floats(&shape);
    if (n != source->n_left) {
        return cr_fail(err, CR_E_INPUT, "%s: %zu floats, %zu expected for its prefix", source->label, source->n_left,
                       n);
    }
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(source->weights[i])) {
            return cr_fail(err, CR_E_INPUT, "%s: element %zu of the prefix is %g, a finite number expected",
                           source->label, i, (double)source->weights[i]);
        }
    }
    CR_TRY(cr_prefix_adapter_create(&shape, with_grads, out, err));
    memcpy((*out)->params, source->weights, n * sizeof(float));
    (*out)->base_hash = hash;
    return CR_OK;
}

/* The settings of the run say which method it is; without them the adapter is as good. */
static void read_method(const struct cr_checkpoint *checkpoint, struct cr_adapter *adapter)
{
    const struct cr_checkpoint_section *section = cr_checkpoint_find(checkpoint, CR_CKPT_SETTINGS);
    json_t *settings = NULL;
    if (section != NULL && cr_json_parse(section->data, section->bytes, NULL, &settings, NULL) == CR_OK) {
        const json_t *method = json_object_get(settings, "method");
        cr_adapter_set_method(adapter, json_string_value(method), json_string_length(method));
    }
    json_decref(settings);
}

cr_status cr_adapter_read_checkpoint(const char *path, const struct cr_model *model, bool with_grads,
                                     struct cr_adapter **out, struct cr_adapter_base *base, struct cr_error *err)
{
    struct cr_checkpoint checkpoint;
    char label[CR_ESCAPE_BYTES];
    json_t *object = NULL;
    CR_TRY(cr_checkpoint_open(path, &checkpoint, err));
    cr_status status;
    cr_escape(label, sizeof label, path, strlen(path));
    const struct cr_checkpoint_section *shapes = cr_checkpoint_find(&checkpoint, CR_CKPT_ADAPTER);
    const struct cr_checkpoint_section *weights = cr_checkpoint_find(&checkpoint, CR_CKPT_WEIGHTS);
    if (shapes == NULL || weights == NULL || weights->bytes % (CR_LANES * sizeof(float)) != 0) {
        status = cr_fail(err, CR_E_INPUT, "%s: no adapter in this checkpoint", label);
        goto out;
    }
    CR_TRY_OUT(status, cr_json_parse(shapes->data, shapes->bytes, label, &object, err));
    bool prefix = json_is_object(json_object_get(object, "prefix"));
    if (!json_is_object(object) || (!prefix && json_array_size(json_object_get(object, "slots")) == 0)) {
        status = cr_fail(err, CR_E_INPUT, "%s: shapes of the adapter: an object with slots expected", label);
        goto out;
    }
    int64_t n_sets = 1;
    CR_TRY_OUT(status, cr_json_get_int(object, "sets", false, 1, UINT32_MAX, &n_sets, label, err));
    if (weights->bytes % ((uint64_t)n_sets * CR_LANES * sizeof(float)) != 0) {
        status = cr_fail(err, CR_E_INPUT, "%s: %zu bytes of weights are not %lld sets", label, weights->bytes,
                         (long long)n_sets);
        goto out;
    }
    struct source source = {.label = label,
                            .object = object,
                            .weights = weights->data,
                            .n_left = weights->bytes / sizeof(float) / (size_t)n_sets};
    int64_t n_labels = 0, n_embd = 0;
    CR_TRY_OUT(status, cr_json_get_int(object, "labels", false, 1, 1024, &n_labels, label, err));
    CR_TRY_OUT(status, cr_json_get_int(object, "width", false, 1, INT32_MAX, &n_embd, label, err));
    CR_TRY_OUT(status,
               prefix ? build_prefix(&source, model, with_grads, out, base, err)
                      : build_rows(&source, (uint32_t)n_labels, (uint32_t)n_embd, model, with_grads, out, base, err));
    read_method(&checkpoint, *out);
out:
    json_decref(object);
    cr_checkpoint_close(&checkpoint);
    return status;
}
