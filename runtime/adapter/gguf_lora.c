/* The GGUF LoRA file that llama.cpp loads with --lora: rows of B already in the model file's order. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kernels/common/half.h"
#include "credence/kernels/dequant.h"
#include "runtime/adapter/draft.h"
#include "runtime/adapter/files.h"
#include "runtime/core/alloc.h"
#include "runtime/core/error.h"
#include "runtime/io/gguf.h"
#include "runtime/io/gguf_write.h"
#include "runtime/io/hash.h"

static cr_status read_tensor(const void *file, const void *tensor, float *out, struct cr_error *err)
{
    const struct cr_gguf_tensor *t = tensor;
    size_t n = (size_t)t->ne[0] * (size_t)t->ne[1];
    if (t->type == CR_Q_F32) {
        memcpy(out, t->data, n * sizeof *out);
    } else {
        for (size_t i = 0; i < n; i++) {
            uint16_t half;
            memcpy(&half, (const uint8_t *)t->data + 2 * i, sizeof half);
            out[i] = t->type == CR_Q_F16 ? cr_f16_to_f32(half) : cr_bf16_to_f32(half);
        }
    }
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(out[i])) {
            return cr_fail(err, CR_E_INPUT, "%s: tensor %s: element %zu is %g, a finite number expected",
                           cr_gguf_label(file), t->name, i, (double)out[i]);
        }
    }
    return CR_OK;
}

static cr_status add_tensors(struct cr_draft *draft, const struct cr_gguf *g, struct cr_error *err)
{
    for (size_t i = 0; i < cr_gguf_n_tensors(g); i++) {
        const struct cr_gguf_tensor *t = cr_gguf_tensor_at(g, i);
        struct cr_draft_name where;
        char shown[CR_ESCAPE_BYTES];
        cr_escape(shown, sizeof shown, t->name, strlen(t->name));
        if (!cr_draft_parse_gguf(t->name, &where)) {
            return cr_fail(err, CR_E_INPUT, "%s: tensor %s: only low-rank pairs of the seven projections are supported",
                           draft->label, shown);
        }
        if (t->type != CR_Q_F32 && t->type != CR_Q_F16 && t->type != CR_Q_BF16) {
            return cr_fail(err, CR_E_INPUT, "%s: tensor %s: type %d, F32, F16 or BF16 expected", draft->label, shown,
                           t->type);
        }
        if (t->ne[2] != 1 || t->ne[3] != 1) {
            return cr_fail(err, CR_E_INPUT, "%s: tensor %s: %u dimensions, 2 expected", draft->label, shown, t->n_dims);
        }
        CR_TRY(cr_draft_add(draft, &where, t->name, t, t->ne[1], t->ne[0], err));
    }
    return CR_OK;
}

/* A required text of a given value. */
static cr_status expect_text(const struct cr_gguf *g, const char *key, const char *value, struct cr_error *err)
{
    const char *text = NULL;
    size_t n = 0;
    char shown[CR_ESCAPE_BYTES];
    CR_TRY(cr_gguf_str(g, key, true, &text, &n, err));
    if (n != strlen(value) || memcmp(text, value, n) != 0) {
        return cr_fail(err, CR_E_INPUT, "%s: %s is \"%s\", \"%s\" expected", cr_gguf_label(g), key,
                       cr_escape(shown, sizeof shown, text, n), value);
    }
    return CR_OK;
}

static cr_status read_base(const struct cr_gguf *g, const struct cr_model *model, struct cr_adapter_base *base,
                           struct cr_error *err)
{
    if (model != NULL) {
        cr_adapter_base_of(model, base);
        return expect_text(g, "general.architecture", base->architecture, err);
    }
    const char *text = NULL;
    size_t n = 0;
    char shown[CR_ESCAPE_BYTES];
    CR_TRY(cr_gguf_str(g, "general.architecture", true, &text, &n, err));
    if (n == 0 || n >= sizeof base->architecture || memchr(text, 0, n) != NULL) {
        return cr_fail(err, CR_E_INPUT, "%s: general.architecture \"%s\" is not supported", cr_gguf_label(g),
                       cr_escape(shown, sizeof shown, text, n));
    }
    memcpy(base->architecture, text, n);
    base->permuted_qk = cr_architecture_permutes(base->architecture);
    return cr_gguf_u32(g, CR_KEY_HEAD_DIM, false, &base->head_dim, err);
}

/* Kind, alpha and recorded hash. */
static cr_status read_keys(const struct cr_gguf *g, float *alpha, uint64_t *hash, struct cr_error *err)
{
    const char *text = NULL;
    size_t n = 0;
    struct cr_gguf_value tokens;
    CR_TRY(expect_text(g, "general.type", "adapter", err));
    CR_TRY(expect_text(g, "adapter.type", "lora", err));
    CR_TRY(cr_gguf_f32(g, "adapter.lora.alpha", true, alpha, err));
    if (!(*alpha > 0)) {
        return cr_fail(err, CR_E_INPUT, "%s: adapter.lora.alpha is %g, a positive number expected", cr_gguf_label(g),
                       (double)*alpha);
    }
    CR_TRY(cr_gguf_array(g, "adapter.alora.invocation_tokens", CR_GGUF_KIND_INTEGER, false, &tokens, err));
    if (tokens.n > 0) {
        return cr_fail(err, CR_E_INPUT, "%s: adapter.alora.invocation_tokens: activated LoRA is not supported",
                       cr_gguf_label(g));
    }
    CR_TRY(cr_gguf_str(g, CR_KEY_BASE_HASH, false, &text, &n, err));
    return text != NULL ? cr_base_hash_parse(text, n, cr_gguf_label(g), hash, err) : CR_OK;
}

cr_status cr_adapter_read_gguf(const char *path, const struct cr_model *model, bool with_grads, struct cr_adapter **out,
                               struct cr_adapter_base *base, struct cr_error *err)
{
    cr_status status = CR_OK;
    struct cr_gguf *g = NULL;
    struct cr_draft draft = {.model = model, .read = read_tensor};
    struct cr_adapter *adapter = NULL;
    float alpha = 0;
    uint64_t hash = 0;
    CR_TRY(cr_gguf_open(path, &g, err));
    draft.label = cr_gguf_label(g);
    draft.file = g;
    CR_TRY_OUT(status, read_keys(g, &alpha, &hash, err));
    CR_TRY_OUT(status, read_base(g, model, &draft.base, err));
    CR_TRY_OUT(status, add_tensors(&draft, g, err));
    CR_TRY_OUT(status, cr_draft_check(&draft, err));
    for (size_t i = 0; i < (size_t)draft.n_layers * CR_N_PROJ; i++) {
        if (draft.slots[i].tensor[0] != NULL) {
            draft.slots[i].scale = (double)alpha / (double)draft.slots[i].rows[0];
        }
    }
    CR_TRY_OUT(status, cr_draft_build(&draft, with_grads, &adapter, err));
    adapter->alpha = (double)alpha;
    adapter->base_hash = hash;
    *base = draft.base;
    *out = adapter;
out:
    cr_draft_deinit(&draft);
    cr_gguf_close(g);
    return status;
}

/* True when the one alpha of the file does not give this slot's scale: the ratio is folded into B. */
static bool folds(const struct cr_lora *slot, float alpha)
{
    return slot->rank > 0 && slot->scale != (float)((double)alpha / slot->rank);
}

static cr_status add_pairs(struct cr_gguf_writer *w, const struct cr_adapter *adapter, float *room,
                           struct cr_error *err)
{
    float alpha = (float)adapter->alpha;
    for (size_t i = 0; i < (size_t)adapter->n_layers * CR_N_PROJ; i++) {
        const struct cr_lora *slot = &adapter->slots[i];
        const char *proj = cr_proj_gguf_name((enum cr_proj)(i % CR_N_PROJ));
        unsigned layer = (unsigned)(i / CR_N_PROJ);
        const float *b = slot->b;
        size_t n_a = (size_t)slot->rank * slot->n_in, n_b = (size_t)slot->rank * slot->n_out;
        char name[96];
        if (slot->rank == 0) {
            continue;
        }
        if (folds(slot, alpha)) {
            double ratio = (double)slot->scale * slot->rank / (double)alpha;
            for (size_t j = 0; j < n_b; j++) {
                room[j] = (float)(b[j] * ratio);
            }
            b = room;
            room += n_b;
        }
        const uint64_t ne_a[2] = {slot->n_in, slot->rank}, ne_b[2] = {slot->rank, slot->n_out};
        snprintf(name, sizeof name, "blk.%u.%s.weight.lora_a", layer, proj);
        CR_TRY(cr_gguf_writer_tensor(w, name, CR_Q_F32, 2, ne_a, slot->a, n_a * sizeof *slot->a, err));
        snprintf(name, sizeof name, "blk.%u.%s.weight.lora_b", layer, proj);
        CR_TRY(cr_gguf_writer_tensor(w, name, CR_Q_F32, 2, ne_b, b, n_b * sizeof *b, err));
    }
    return CR_OK;
}

static cr_status add_keys(struct cr_gguf_writer *w, const struct cr_adapter *adapter,
                          const struct cr_adapter_base *base, struct cr_error *err)
{
    char hex[17];
    CR_TRY(cr_gguf_writer_kv_str(w, "general.architecture", base->architecture, err));
    CR_TRY(cr_gguf_writer_kv_str(w, "general.type", "adapter", err));
    CR_TRY(cr_gguf_writer_kv_str(w, "adapter.type", "lora", err));
    CR_TRY(cr_gguf_writer_kv_f32(w, "adapter.lora.alpha", (float)adapter->alpha, err));
    if (base->head_dim > 0) {
        CR_TRY(cr_gguf_writer_kv_u32(w, CR_KEY_HEAD_DIM, base->head_dim, err));
    }
    return adapter->base_hash != 0 ? cr_gguf_writer_kv_str(w, CR_KEY_BASE_HASH, cr_hex_64(hex, adapter->base_hash), err)
                                   : CR_OK;
}

cr_status cr_adapter_write_gguf(const struct cr_adapter *adapter, const struct cr_adapter_base *base, const char *path,
                                struct cr_error *err)
{
    cr_status status = CR_OK;
    size_t n_folded = 0;
    if (adapter->prefix != NULL) {
        return cr_fail(
            err, CR_E_USAGE,
            "a prefix of keys and values has no GGUF form that any program loads: the PEFT directory has it");
    }
    if (base->architecture[0] == '\0') {
        return cr_fail(err, CR_E_USAGE,
                       "the adapter does not say which architecture it belongs to: name the base "
                       "model");
    }
    for (size_t i = 0; i < (size_t)adapter->n_layers * CR_N_PROJ; i++) {
        const struct cr_lora *slot = &adapter->slots[i];
        n_folded += folds(slot, (float)adapter->alpha) ? (size_t)slot->rank * slot->n_out : 0;
    }
    float *room = cr_alloc(n_folded, sizeof *room);
    struct cr_gguf_writer *w = cr_gguf_writer_create();
    if (room == NULL || w == NULL) {
        status = cr_fail(err, CR_E_MEMORY, "out of memory for writing an adapter");
        goto out;
    }
    CR_TRY_OUT(status, add_keys(w, adapter, base, err));
    CR_TRY_OUT(status, add_pairs(w, adapter, room, err));
    status = cr_gguf_writer_write(w, path, err);
out:
    cr_gguf_writer_destroy(w);
    cr_free(room);
    return status;
}
