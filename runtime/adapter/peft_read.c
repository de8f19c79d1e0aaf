/* Reading a PEFT LoRA directory: adapter_config.json and adapter_model.safetensors must agree. */
#include <math.h>
#include <string.h>
#include <unistd.h>

#include "runtime/adapter/draft.h"
#include "runtime/adapter/peft_config.h"
#include "runtime/adapter/prefix_adapter.h"
#include "runtime/core/alloc.h"
#include "runtime/core/error.h"
#include "runtime/io/file.h"

static cr_status read_tensor(const void *file, const void *tensor, float *out, struct cr_error *err)
{
    return cr_safetensors_read_f32(file, tensor, out, err);
}

static cr_status refuse_name(const char *label, const char *name, struct cr_error *err)
{
    char shown[CR_ESCAPE_BYTES];
    cr_escape(shown, sizeof shown, name, strlen(name));
    const char *why = strstr(name, "lora_magnitude_vector") != NULL ? "DoRA is not supported"
                      : strstr(name, "lora_embedding_") != NULL     ? "adapted embeddings are not supported"
                      : strstr(name, "lora_") == NULL ? "a whole weight, only low-rank pairs are supported"
                                                      : "the base model has no such projection";
    return cr_fail(err, CR_E_INPUT, "%s: tensor %s: %s", label, shown, why);
}

static cr_status add_tensors(struct cr_draft *draft, const struct cr_safetensors *st, struct cr_error *err)
{
    for (size_t i = 0; i < cr_safetensors_n(st); i++) {
        const struct cr_st_tensor *t = cr_safetensors_at(st, i);
        struct cr_draft_name where;
        if (!cr_draft_parse_peft(t->name, &where)) {
            return refuse_name(draft->label, t->name, err);
        }
        if (t->dtype != CR_ST_F32 && t->dtype != CR_ST_F16 && t->dtype != CR_ST_BF16) {
            return cr_fail(err, CR_E_INPUT, "%s: tensor %s: dtype %s, F32, F16 or BF16 expected", draft->label, t->name,
                           cr_st_dtype_name(t->dtype));
        }
        if (t->n_dims != 2) {
            return cr_fail(err, CR_E_INPUT, "%s: tensor %s: %u dimensions, 2 expected", draft->label, t->name,
                           t->n_dims);
        }
        CR_TRY(cr_draft_add(draft, &where, t->name, t, t->shape[0], t->shape[1], err));
    }
    return CR_OK;
}

/* Every pair has the rank and belongs to the targets that the configuration names, and each of those has a pair. */
static cr_status compare(struct cr_draft *draft, const struct cr_peft_config *config, struct cr_error *err)
{
    uint32_t seen = 0;
    for (size_t i = 0; i < (size_t)draft->n_layers * CR_N_PROJ; i++) {
        struct cr_draft_slot *slot = &draft->slots[i];
        enum cr_proj proj = (enum cr_proj)(i % CR_N_PROJ);
        char module[96];
        uint32_t rank = 0;
        if (slot->tensor[0] == NULL) {
            continue;
        }
        cr_peft_module_name(module, sizeof module, (uint32_t)(i / CR_N_PROJ), proj);
        CR_TRY(cr_peft_config_module(config, module, &rank, &slot->scale, err));
        if (rank != slot->rows[0]) {
            return cr_fail(err, CR_E_INPUT, "%s: tensor %s has rank %llu, but adapter_config.json says %u",
                           draft->label, slot->name[0], (unsigned long long)slot->rows[0], rank);
        }
        if (config->named_targets && (config->targets >> proj & 1u) == 0) {
            return cr_fail(err, CR_E_INPUT, "%s: tensor %s is not among target_modules of adapter_config.json",
                           draft->label, slot->name[0]);
        }
        const char *key = cr_peft_config_leaves_out(config, (uint32_t)(i / CR_N_PROJ), module);
        if (key != NULL) {
            return cr_fail(err, CR_E_INPUT, "%s: tensor %s is left out by %s of adapter_config.json", draft->label,
                           slot->name[0], key);
        }
        seen |= 1u << proj;
    }
    for (int p = 0; p < CR_N_PROJ; p++) {
        if (config->named_targets && ((config->targets & ~seen) >> p & 1u) != 0) {
            return cr_fail(err, CR_E_INPUT, "%s: no tensor for %s, which adapter_config.json names as target",
                           draft->label, cr_proj_hf_name((enum cr_proj)p));
        }
    }
    return CR_OK;
}

cr_status cr_peft_read_base(const struct cr_safetensors *st, const struct cr_model *model, struct cr_adapter_base *base,
                            struct cr_error *err)
{
    if (model != NULL) {
        cr_adapter_base_of(model, base);
        return CR_OK;
    }
    size_t n = 0;
    const char *label = cr_safetensors_label(st);
    const char *architecture = cr_safetensors_metadata(st, CR_KEY_ARCHITECTURE, &n);
    const char *head_dim = cr_safetensors_metadata(st, CR_KEY_HEAD_DIM, NULL);
    struct cr_adapter_base found = {0};
    if (architecture == NULL || head_dim == NULL) {
        return CR_OK;
    }
    for (const char *c = head_dim; *c >= '0' && *c <= '9' && found.head_dim < 100000; c++) {
        found.head_dim = found.head_dim * 10 + (uint32_t)(*c - '0');
    }
    if (n == 0 || n >= sizeof found.architecture || found.head_dim == 0 || found.head_dim > 65536) {
        return cr_fail(err, CR_E_INPUT, "%s: metadata %s or %s makes no sense", label, CR_KEY_ARCHITECTURE,
                       CR_KEY_HEAD_DIM);
    }
    memcpy(found.architecture, architecture, n);
    found.permuted_qk = cr_architecture_permutes(found.architecture);
    *base = found;
    return CR_OK;
}

cr_status cr_peft_read_hash(const struct cr_safetensors *st, uint64_t *hash, struct cr_error *err)
{
    size_t n = 0;
    const char *recorded = cr_safetensors_metadata(st, CR_KEY_BASE_HASH, &n);
    *hash = 0;
    return recorded != NULL ? cr_base_hash_parse(recorded, n, cr_safetensors_label(st), hash, err) : CR_OK;
}

void cr_peft_read_method(const struct cr_safetensors *st, struct cr_adapter *adapter)
{
    size_t n = 0;
    const char *method = cr_safetensors_metadata(st, CR_KEY_METHOD, &n);
    cr_adapter_set_method(adapter, method, n);
}

cr_status cr_peft_open_tensors(const char *dir, struct cr_safetensors **st, struct cr_error *err)
{
    char *path = cr_path_join(dir, CR_PEFT_TENSORS);
    char *pickle = cr_path_join(dir, "adapter_model.bin");
    cr_status status = CR_OK;
    if (path == NULL || pickle == NULL) {
        status = cr_fail(err, CR_E_MEMORY, "out of memory for a path");
    } else if (access(path, F_OK) != 0 && access(pickle, F_OK) == 0) {
        char shown[CR_ESCAPE_BYTES];
        status = cr_fail(err, CR_E_INPUT,
                         "%s: a pickle file, which can run code, is not read: save the adapter as "
                         "adapter_model.safetensors",
                         cr_escape(shown, sizeof shown, pickle, strlen(pickle)));
    } else {
        status = cr_safetensors_open(path, st, err);
    }
    cr_free(path);
    cr_free(pickle);
    return status;
}

cr_status cr_adapter_read_peft(const char *dir, const struct cr_model *model, bool with_grads, struct cr_adapter **out,
                               struct cr_adapter_base *base, struct cr_error *err)
{
    cr_status status = CR_OK;
    struct cr_peft_config config = {0};
    struct cr_safetensors *st = NULL;
    struct cr_adapter *adapter = NULL;
    uint64_t hash = 0;
    struct cr_draft draft = {.model = model, .hf_order = true, .read = read_tensor};
    CR_TRY(cr_peft_config_read(dir, &config, err));
    if (config.prefix) {
        status = cr_prefix_read_peft(dir, config.object, model, with_grads, out, base, err);
        goto out;
    }
    CR_TRY_OUT(status, cr_peft_open_tensors(dir, &st, err));
    draft.label = cr_safetensors_label(st);
    draft.file = st;
    CR_TRY_OUT(status, cr_peft_read_base(st, model, &draft.base, err));
    CR_TRY_OUT(status, cr_peft_read_hash(st, &hash, err));
    CR_TRY_OUT(status, add_tensors(&draft, st, err));
    CR_TRY_OUT(status, cr_draft_check(&draft, err));
    CR_TRY_OUT(status, compare(&draft, &config, err));
    CR_TRY_OUT(status, cr_draft_build(&draft, with_grads, &adapter, err));
    adapter->alpha = config.rslora ? config.alpha * sqrt(config.rank) : config.alpha;
    adapter->dropout = config.dropout;
    adapter->base_hash = hash;
    cr_peft_read_method(st, adapter);
    *base = draft.base;
    *out = adapter;
out:
    cr_draft_deinit(&draft);
    cr_safetensors_close(st);
    cr_peft_config_deinit(&config);
    return status;
}
