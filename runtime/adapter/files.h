/* files: the two file forms of an adapter, with or without the base model at hand. */
#ifndef CR_ADAPTER_FILES_H
#define CR_ADAPTER_FILES_H

#include "runtime/adapter/layout.h"

/* Names in the metadata of both forms. */
#define CR_KEY_BASE_HASH "credence.base_xxh3"       /* 16 hexadecimal digits */
#define CR_KEY_ARCHITECTURE "credence.architecture" /* safetensors only; GGUF has general.architecture */
#define CR_KEY_HEAD_DIM "credence.head_dim"
#define CR_KEY_METHOD "credence.method"

/* Reads a directory (PEFT) or a file (GGUF LoRA, checkpoint). model NULL: shapes are those of the file, and *base is
 * what the file says. base_hash of the adapter is the recorded one, 0 when there is none; it is not compared. Returns
 * owned. */
cr_status cr_adapter_read(const char *path, const struct cr_model *model, bool with_grads, struct cr_adapter **out,
                          struct cr_adapter_base *base, struct cr_error *err);
cr_status cr_adapter_read_peft(const char *dir, const struct cr_model *model, bool with_grads, struct cr_adapter **out,
                               struct cr_adapter_base *base, struct cr_error *err);
/* From a training checkpoint (runtime/io/checkpoint.h): its current weights; of several sets the first. */
cr_status cr_adapter_read_checkpoint(const char *path, const struct cr_model *model, bool with_grads,
                                     struct cr_adapter **out, struct cr_adapter_base *base, struct cr_error *err);
cr_status cr_adapter_read_gguf(const char *path, const struct cr_model *model, bool with_grads, struct cr_adapter **out,
                               struct cr_adapter_base *base, struct cr_error *err);

/* Rows of the output matrix that are trained as well: row ids[i] of n_vocab gets delta[i] added. PEFT takes them as a
 * pair of rank n on lm_head, B having one 1 in each column. */
struct cr_peft_head {
    const int32_t *ids; /* [n] */
    const float *delta; /* [n][n_embd] */
    uint32_t n, n_embd, n_vocab;
};

/* head and method may be NULL. Errors: CR_E_USAGE when rows must be reordered and the head size is unknown. */
cr_status cr_adapter_write_peft(const struct cr_adapter *adapter, const struct cr_adapter_base *base,
                                const struct cr_peft_head *head, const char *dir, const char *method,
                                struct cr_error *err);
cr_status cr_adapter_write_gguf(const struct cr_adapter *adapter, const struct cr_adapter_base *base, const char *path,
                                struct cr_error *err);

/* The shapes of an adapter's parameters as one line of JSON, for a checkpoint beside the flat weights:
 * {"alpha","architecture","base_xxh3","dropout","head_dim","slots":[[layer, projection, rank, in, out, scale]...]},
 * slots in the order of the parameters; "labels" and "width" of label rows behind them; "sets" where there are several,
 * each of these shapes; or "prefix" in place of slots. Returns owned text, NULL when memory cannot be had. */
char *cr_adapter_shapes_text(const struct cr_adapter *adapter, const struct cr_model *model);

/* A base hash as it stands in a file. Errors: CR_E_INPUT naming label. */
cr_status cr_base_hash_parse(const char *text, size_t n, const char *label, uint64_t *hash, struct cr_error *err);

/* Takes a recorded method over; text may be NULL, and one that does not fit is no method of ours: "". */
void cr_adapter_set_method(struct cr_adapter *adapter, const char *text, size_t n);

#endif
