/* Writing a PEFT LoRA directory. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "runtime/adapter/peft_config.h"
#include "runtime/adapter/prefix_adapter.h"
#include "runtime/core/alloc.h"
#include "runtime/core/error.h"
#include "runtime/io/file.h"
#include "runtime/io/hash.h"
#include "runtime/io/json.h"

/* The module of the output matrix. */
#define HEAD "lm_head"

/* 16 rather than 16.0, as PEFT writes it. */
static json_t *number(double value)
{
    bool whole = value == floor(value) && fabs(value) < 0x1p53;
    return whole ? json_integer((json_int_t)value) : json_real(value);
}

static json_t *target_list(uint32_t targets, bool head)
{
    json_t *list = json_array();
    for (int p = 0; p < CR_N_PROJ; p++) {
        if ((targets >> p & 1u) != 0 &&
            json_array_append_new(list, json_string(cr_proj_hf_name((enum cr_proj)p))) != 0) {
            json_decref(list);
            return NULL;
        }
    }
    if (head) {
        json_array_append_new(list, json_string(HEAD));
    }
    return list;
}

/* Modules whose rank or scale is not the common one. Scale is alpha / rank of the module. */
static bool add_patterns(const struct cr_adapter *adapter, json_t *ranks, json_t *alphas)
{
    for (size_t i = 0; i < (size_t)adapter->n_layers * CR_N_PROJ; i++) {
        const struct cr_lora *slot = &adapter->slots[i];
        char module[96];
        cr_peft_module_name(module, sizeof module, (uint32_t)(i / CR_N_PROJ), (enum cr_proj)(i % CR_N_PROJ));
        if (slot->rank == 0) {
            continue;
        }
        if (slot->rank != adapter->rank && json_object_set_new(ranks, module, json_integer(slot->rank)) != 0) {
            return false;
        }
        if (slot->scale != (float)(adapter->alpha / slot->rank) &&
            json_object_set_new(alphas, module, number((double)slot->scale * slot->rank)) != 0) {
            return false;
        }
    }
    return true;
}

/* A pair of rank n that is added as it stands. */
static void add_head_patterns(const struct cr_peft_head *head, json_t *ranks, json_t *alphas)
{
    json_object_set_new(ranks, HEAD, json_integer(head->n));
    json_object_set_new(alphas, HEAD, json_integer(head->n));
}

/* The long-stable fields only: older PEFT refuses keys it does not know. */
static json_t *make_config(const struct cr_adapter *adapter, const struct cr_peft_head *head)
{
    json_t *ranks = json_object();
    json_t *alphas = json_object();
    json_t *targets = target_list(adapter->targets, head != NULL);
    json_t *config = NULL;
    if (ranks != NULL && alphas != NULL && targets != NULL && add_patterns(adapter, ranks, alphas)) {
        if (head != NULL) {
            add_head_patterns(head, ranks, alphas);
        }
        config =
            json_pack("{s:O,s:O,s:O,s:o,s:I,s:o,"
                      "s:s,s:s,s:s,s:s,s:b,s:b,s:b,s:b,s:b,s:{},s:n,s:n,s:n,s:n,s:n,s:n,s:n}",
                      "rank_pattern", ranks, "alpha_pattern", alphas, "target_modules", targets, "lora_alpha",
                      number(adapter->alpha), "r", (json_int_t)adapter->rank, "lora_dropout",
                      json_real(adapter->dropout), "peft_type", "LORA", "task_type", "CAUSAL_LM", "bias", "none",
                      "megatron_core", "megatron.core", "fan_in_fan_out", 0, "inference_mode", 1, "init_lora_weights",
                      1, "use_dora", 0, "use_rslora", 0, "loftq_config", "auto_mapping", "base_model_name_or_path",
                      "layers_pattern", "layers_to_transform", "megatron_config", "modules_to_save", "revision");
    }
    json_decref(ranks);
    json_decref(alphas);
    json_decref(targets);
    return config;
}

static cr_status write_config(const struct cr_adapter *adapter, const struct cr_peft_head *head, const char *dir,
                              struct cr_error *err)
{
    cr_status status = CR_OK;
    char *path = cr_path_join(dir, CR_PEFT_CONFIG);
    json_t *config = make_config(adapter, head);
    if (path == NULL || config == NULL) {
        status = cr_fail(err, CR_E_MEMORY, "out of memory for adapter_config.json");
    } else {
        status = cr_json_write(config, path, err);
    }
    json_decref(config);
    cr_free(path);
    return status;
}

cr_status cr_peft_add_metadata(struct cr_safetensors_writer *w, const struct cr_adapter *adapter,
                               const struct cr_adapter_base *base, const char *method, struct cr_error *err)
{
    char text[24];
    CR_TRY(cr_safetensors_writer_metadata(w, "format", "pt", err));
    if (base->architecture[0] != '\0' && base->head_dim > 0) {
        snprintf(text, sizeof text, "%u", base->head_dim);
        CR_TRY(cr_safetensors_writer_metadata(w, CR_KEY_ARCHITECTURE, base->architecture, err));
        CR_TRY(cr_safetensors_writer_metadata(w, CR_KEY_HEAD_DIM, text, err));
    }
    if (adapter->base_hash != 0) {
        CR_TRY(cr_safetensors_writer_metadata(w, CR_KEY_BASE_HASH, cr_hex_64(text, adapter->base_hash), err));
    }
    return method != NULL ? cr_safetensors_writer_metadata(w, CR_KEY_METHOD, method, err) : CR_OK;
}

/* B in Hugging Face order: the slot's own rows, or a reordered copy at *room, which moves on. */
static cr_status hf_rows(const struct cr_lora *slot, const struct cr_adapter_base *base, enum cr_proj proj,
                         float **room, const float **rows, struct cr_error *err)
{
    *rows = slot->b;
    if (!cr_adapter_permutes(base, proj)) {
        return CR_OK;
    }
    if (base->head_dim == 0 || base->head_dim % 2 != 0 || slot->n_out % base->head_dim != 0) {
        return cr_fail(err, CR_E_USAGE,
                       "the rows of %s cannot be brought to the Hugging Face order (%u rows, heads of "
                       "%u): name the base model",
                       cr_proj_hf_name(proj), slot->n_out, base->head_dim);
    }
    cr_rows_gguf_to_hf(*room, slot->b, slot->n_out, slot->rank, base->head_dim);
    *rows = *room;
    *room += (size_t)slot->n_out * slot->rank;
    return CR_OK;
}

static cr_status add_pairs(struct cr_safetensors_writer *w, const struct cr_adapter *adapter,
                           const struct cr_adapter_base *base, float *room, struct cr_error *err)
{
    for (size_t i = 0; i < (size_t)adapter->n_layers * CR_N_PROJ; i++) {
        const struct cr_lora *slot = &adapter->slots[i];
        enum cr_proj proj = (enum cr_proj)(i % CR_N_PROJ);
        char module[96], name[160];
        const float *rows = NULL;
        if (slot->rank == 0) {
            continue;
        }
        cr_peft_module_name(module, sizeof module, (uint32_t)(i / CR_N_PROJ), proj);
        CR_TRY(hf_rows(slot, base, proj, &room, &rows, err));
        const uint64_t shape_a[2] = {slot->rank, slot->n_in};
        const uint64_t shape_b[2] = {slot->n_out, slot->rank};
        snprintf(name, sizeof name, "base_model.model.%s.lora_A.weight", module);
        CR_TRY(cr_safetensors_writer_tensor(w, name, CR_ST_F32, 2, shape_a, slot->a, err));
        snprintf(name, sizeof name, "base_model.model.%s.lora_B.weight", module);
        CR_TRY(cr_safetensors_writer_tensor(w, name, CR_ST_F32, 2, shape_b, rows, err));
    }
    return CR_OK;
}

/* Takes room [n_vocab][n] of zeros for B. */
static cr_status add_head(struct cr_safetensors_writer *w, const struct cr_peft_head *head, float *room,
                          struct cr_error *err)
{
    const uint64_t shape_a[2] = {head->n, head->n_embd};
    const uint64_t shape_b[2] = {head->n_vocab, head->n};
    for (uint32_t i = 0; i < head->n; i++) {
        room[(size_t)head->ids[i] * head->n + i] = 1;
    }
    CR_TRY(cr_safetensors_writer_tensor(w, "base_model.model." HEAD ".lora_A.weight", CR_ST_F32, 2, shape_a,
                                        head->delta, err));
    return cr_safetensors_writer_tensor(w, "base_model.model." HEAD ".lora_B.weight", CR_ST_F32, 2, shape_b, room, err);
}

cr_status cr_adapter_write_peft(const struct cr_adapter *adapter, const struct cr_adapter_base *base,
                                const struct cr_peft_head *head, const char *dir, const char *method,
                                struct cr_error *err)
{
    if (adapter->prefix != NULL) {
        return cr_prefix_write_peft(adapter, base, dir, method, err);
    }
    cr_status status = CR_OK;
    char *path = cr_path_join(dir, CR_PEFT_TENSORS);
    float *room = cr_alloc(cr_adapter_reordered_floats(adapter, base), sizeof *room);
    float *head_room = cr_zalloc(head != NULL ? (size_t)head->n_vocab * head->n : 0, sizeof *head_room);
    struct cr_safetensors_writer *w = cr_safetensors_writer_create();
    if (path == NULL || room == NULL || head_room == NULL || w == NULL) {
        status = cr_fail(err, CR_E_MEMORY, "out of memory for writing an adapter");
        goto out;
    }
    CR_TRY_OUT(status, cr_peft_add_metadata(w, adapter, base, method, err));
    CR_TRY_OUT(status, add_pairs(w, adapter, base, room, err));
    if (head != NULL) {
        CR_TRY_OUT(status, add_head(w, head, head_room, err));
    }
    CR_TRY_OUT(status, cr_safetensors_writer_write(w, path, err));
    status = write_config(adapter, head, dir, err);
out:
    cr_safetensors_writer_destroy(w);
    cr_free(head_room);
    cr_free(room);
    cr_free(path);
    return status;
}
