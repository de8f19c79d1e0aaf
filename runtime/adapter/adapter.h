/* adapter: low-rank pairs on projections of a model, as one flat parameter vector.
 *
 *   y = W x + s B (A drop(x)),  s = alpha / r       A (r x in), B (out x r), both row-major f32
 *
 * Rows of B follow the model file (GGUF order); files in Hugging Face order are permuted on the way in and out.
 * Parameter order: layer by layer, projection by projection, A then B. Every matrix starts on a multiple of 16 floats;
 * the gaps are zero and stay zero.
 *
 * Or the parameters are a prefix of learned keys and values: prefix_adapter.h.
 */
#ifndef CR_ADAPTER_ADAPTER_H
#define CR_ADAPTER_ADAPTER_H

#include "credence/credence.h"
#include "kernels/lowrank/lora.h"
#include "runtime/core/alloc.h"
#include "runtime/model/model.h"
#include "runtime/model/prefix.h"

struct cr_adapter {
    uint32_t n_layers;
    struct cr_lora *slots;    /* [n_layers * CR_N_PROJ], views into params and grads */
    struct cr_prefix *prefix; /* owned: learned keys and values are the parameters, and no slot has a rank; else NULL */
    float *params, *grads;    /* [n_params]; grads NULL unless asked for */
    uint32_t n_labels, n_embd; /* label rows [n_labels][n_embd] behind the matrices of each set; 0: none */
    uint32_t n_sets;    /* 1; of members or tasks: sets of parameters one behind the other, slots [n_sets][...] */
    size_t n_params;    /* of all sets, including alignment gaps */
    size_t n_trainable; /* without gaps */
    uint32_t rank;      /* as configured: largest rank */
    double alpha;
    double dropout;     /* recorded in files, applied in training only */
    uint32_t targets;   /* bit (1 << projection) */
    uint64_t base_hash; /* of the base it was trained on, 0 = unknown */
    char method[16];    /* that trained it, as its file records; "" = unknown */
};

/* "q_proj,v_proj", "all", GGUF leaf names; bits of enum cr_proj. Errors: CR_E_USAGE naming the unknown part. */
cr_status cr_targets_parse(const char *text, uint32_t *targets, struct cr_error *err);

/* New adapter: A uniform in +-1/sqrt(in) from Philox key (seed, tensor id), B = 0 (PEFT's default). Returns owned.
 * Errors: CR_E_USAGE when rank exceeds both dimensions of a target, CR_E_MEMORY. */
cr_status cr_adapter_create(const struct cr_model *model, uint32_t rank, double alpha, double dropout, uint32_t targets,
                            uint64_t seed, bool with_grads, struct cr_adapter **out, struct cr_error *err);
void cr_adapter_destroy(struct cr_adapter *adapter);

/* Takes over what is recorded of an adapter: alpha, dropout, base, method. */
void cr_adapter_inherit(struct cr_adapter *adapter, const struct cr_adapter *from);

/* *adapter (of one set) becomes n_sets copies of itself in one vector. Errors: CR_E_MEMORY, it is then as it was. */
cr_status cr_adapter_repeat(struct cr_adapter **adapter, uint32_t n_sets, struct cr_error *err);

/* Reads a PEFT directory, a GGUF LoRA file or a training checkpoint for this model: every check of names, shapes,
 * ranks, finiteness. Errors: CR_E_IO, CR_E_INPUT, CR_E_BUSY when the recorded base hash differs and allow_inexact is
 * false; an absent hash is accepted with a warning through host->log. Returns owned. */
cr_status cr_adapter_load(const char *path, const struct cr_model *model, bool with_grads, bool allow_inexact,
                          const struct cr_host *host, struct cr_adapter **out, struct cr_error *err);

/* Writes adapter_config.json + adapter_model.safetensors into dir (which exists), or one GGUF LoRA file, which a prefix
 * does not have (CR_E_USAGE). Atomic. */
cr_status cr_adapter_save_peft(const struct cr_adapter *adapter, const struct cr_model *model, const char *dir,
                               const char *method, struct cr_error *err);
cr_status cr_adapter_save_gguf(const struct cr_adapter *adapter, const struct cr_model *model, const char *path,
                               struct cr_error *err);

/* *adapter (of one set) gets room for label rows, of zeros. Errors: CR_E_MEMORY, it is then as it was. */
cr_status cr_adapter_add_rows(struct cr_adapter **adapter, uint32_t n_labels, uint32_t n_embd, struct cr_error *err);

/* Floats that label rows take, and where those of a set of n_params begin. */
static inline size_t cr_label_floats(uint32_t n_labels, uint32_t n_embd)
{
    return cr_round_up_16((size_t)n_labels * n_embd);
}

static inline size_t cr_adapter_rows_begin(const struct cr_adapter *adapter)
{
    return adapter->n_params / adapter->n_sets - cr_label_floats(adapter->n_labels, adapter->n_embd);
}

/* Set k of several as an adapter: a view that owns nothing. */
static inline struct cr_adapter cr_adapter_set(const struct cr_adapter *adapter, uint32_t k)
{
    struct cr_adapter set = *adapter;
    set.n_sets = 1;
    set.n_params /= adapter->n_sets;
    set.n_trainable /= adapter->n_sets;
    set.slots += (size_t)k * adapter->n_layers * CR_N_PROJ;
    set.params += k * set.n_params;
    set.grads = adapter->grads != NULL ? adapter->grads + k * set.n_params : NULL;
    return set;
}

static inline const struct cr_lora *cr_adapter_slot(const struct cr_adapter *adapter, uint32_t layer, enum cr_proj proj)
{
    return &adapter->slots[layer * CR_N_PROJ + (uint32_t)proj];
}

#endif
