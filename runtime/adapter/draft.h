/* draft: an adapter file while it is read. Both readers collect their tensors here by projection; the checks and the
 * making of the adapter are common.
 *
 * AD rules: A and B both present with one rank, a projection the base has, shapes that fit it, rank 1...256 and not
 * above both dimensions. Errors: CR_E_INPUT naming label and tensor; CR_E_MEMORY.
 */
#ifndef CR_ADAPTER_DRAFT_H
#define CR_ADAPTER_DRAFT_H

#include "runtime/adapter/layout.h"

/* Largest number of layers believed without a model to compare with. */
enum { CR_ADAPTER_LAYERS_MAX = 4096 };

struct cr_draft_slot {
    const void *tensor[2];     /* A, B: the reader's own handle, NULL = not seen */
    const char *name[2];       /* borrowed from the file */
    uint64_t rows[2], cols[2]; /* row-major: A rank x in, B out x rank */
    double scale;
};

/* Reads all values of one tensor as f32, finite. */
typedef cr_status cr_draft_read_fn(const void *file, const void *tensor, float *out, struct cr_error *err);

struct cr_draft {
    const char *label;            /* printable name of the file */
    const struct cr_model *model; /* NULL: trust the file */
    struct cr_adapter_base base;  /* of the model, or what the file says */
    bool hf_order;                /* rows of B in Hugging Face order */
    struct cr_draft_slot *slots;  /* owned, [n_layers * CR_N_PROJ] */
    uint32_t n_layers;            /* the model's, or 1 + the largest seen */
    uint32_t layers_capacity;     /* of slots */
    size_t n_tensors;
    const void *file;
    cr_draft_read_fn *read;
};

/* Which part of a pair a name stands for. */
struct cr_draft_name {
    uint32_t layer;
    enum cr_proj proj;
    int part; /* 0 = A, 1 = B */
};

/* "base_model.model.model.layers.3.self_attn.q_proj.lora_A.weight"; false when the name is not of this form. */
bool cr_draft_parse_peft(const char *name, struct cr_draft_name *out);

/* "blk.3.attn_q.weight.lora_a" */
bool cr_draft_parse_gguf(const char *name, struct cr_draft_name *out);

/* Puts one two-dimensional tensor in its place; name and tensor are borrowed. */
cr_status cr_draft_add(struct cr_draft *draft, const struct cr_draft_name *where, const char *name, const void *tensor,
                       uint64_t rows, uint64_t cols, struct cr_error *err);

/* Checks pairs and shapes; afterwards rows and cols of every slot are sound. */
cr_status cr_draft_check(const struct cr_draft *draft, struct cr_error *err);

/* Makes the adapter and fills it, rows of B in GGUF order. alpha, dropout and base_hash are left to the caller. */
cr_status cr_draft_build(const struct cr_draft *draft, bool with_grads, struct cr_adapter **out, struct cr_error *err);

void cr_draft_deinit(struct cr_draft *draft);

#endif
