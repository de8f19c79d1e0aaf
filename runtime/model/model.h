/* model: a llama- or qwen2-like transformer as it lies in a mapped GGUF file. Weights are borrowed, never expanded.
 */
#ifndef CR_MODEL_MODEL_H
#define CR_MODEL_MODEL_H

#include "credence/credence.h"
#include "credence/kernels/qgemm.h"
#include "credence/kernels/rope.h"
#include "runtime/io/gguf.h"

/* The seven projections of a layer, in the order of parameters and of files. */
enum cr_proj { CR_PROJ_Q, CR_PROJ_K, CR_PROJ_V, CR_PROJ_O, CR_PROJ_GATE, CR_PROJ_UP, CR_PROJ_DOWN, CR_N_PROJ };

struct cr_model_config {
    char architecture[16]; /* "llama", "qwen2" */
    uint32_t n_layers, n_embd, n_ff, n_heads, n_kv, head_dim, n_rot, n_vocab, n_ctx;
    float norm_eps;
    double rope_base, rope_freq_scale; /* freq_scale = 1 / linear factor */
    enum cr_rope_style rope_style;
    bool tied;        /* no output.weight: the head is the embedding */
    bool permuted_qk; /* rows of q and k are in the order of GGUF files, not in Hugging Face's */
    bool qkv_bias;    /* q, k and v have one for certain */
};

struct cr_layer {
    const float *attn_norm, *ffn_norm; /* [n_embd] */
    struct cr_qmat proj[CR_N_PROJ];
    const float *bias[CR_N_PROJ]; /* NULL where absent */
};

struct cr_model {
    struct cr_gguf *gguf; /* owned */
    struct cr_model_config config;
    struct cr_qmat token_embd, output; /* output = token_embd when tied */
    const float *output_norm;
    const float *rope_factors; /* [n_rot/2] or NULL */
    struct cr_layer *layers;   /* owned */
    uint64_t base_hash;        /* XXH3-64 of all tensor data in file order */
    char *path;                /* owned */
};

/* Opens and checks a model file: architecture, shapes, types, finite norms and block scales. Returns owned.
 * Errors: CR_E_IO, CR_E_INPUT naming key or tensor, CR_E_MEMORY. A part of a split model is refused: CR_E_IO naming
 * the first part that is absent, CR_E_INPUT when all are there (joining them is not built). */
cr_status cr_model_open(const char *path, struct cr_model **out, struct cr_error *err);

/* The same from a parsed file (takes gguf on success). `check_values` false skips the scan of scales and the hash. */
cr_status cr_model_from_gguf(struct cr_gguf *gguf, const char *path, bool check_values, struct cr_model **out,
                             struct cr_error *err);
void cr_model_close(struct cr_model *model);

/* What is unusual but harmless about an open model, through host->log: tensors that no layer uses, bytes behind the
 * last tensor. */
void cr_model_warn(const struct cr_model *model, const struct cr_host *host);

/* "q_proj" / "attn_q"; static storage. */
const char *cr_proj_hf_name(enum cr_proj proj); /* "self_attn.q_proj" is cr_proj_hf_path */
const char *cr_proj_hf_path(enum cr_proj proj);
const char *cr_proj_gguf_name(enum cr_proj proj);

/* out [n][n_embd] = the rows of the output matrix of these tokens, as f32. */
void cr_model_label_rows(const struct cr_model *model, enum cr_tier tier, const int32_t *ids, uint32_t n, float *out);

#endif
