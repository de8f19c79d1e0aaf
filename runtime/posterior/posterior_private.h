/* posterior_private: what the files of posterior_file share. Private to runtime/posterior. */
#ifndef CR_POSTERIOR_POSTERIOR_PRIVATE_H
#define CR_POSTERIOR_POSTERIOR_PRIVATE_H

#include "runtime/posterior/posterior_file.h"

#define CR_KEY_NUMBERS "credence.posterior"

/* posterior_file.c: out [product of shape] = the tensor of this name as f32, finite. Errors: CR_E_INPUT where it is not
 * there or of another shape, and as cr_safetensors_read_f32. */
cr_status cr_posterior_read(const struct cr_posterior_file *file, const char *name, uint32_t n_dims,
                            const uint64_t *shape, float *out, struct cr_error *err);

/* posterior_layout.c: the matrices of an adapter, A and B of each adapted projection, in the order of the parameters.
 *     struct cr_posterior_matrix m = {.adapter = adapter, .base = base, .suffix = ".mean"};
 *     while (cr_posterior_next(&m)) { ... } */
struct cr_posterior_matrix {
    const struct cr_adapter *adapter;   /* borrowed, as what follows */
    const struct cr_adapter_base *base; /* NULL: moves is not asked for */
    const char *suffix;                 /* NULL: nor is the name */
    bool with_label_rows;               /* behind the matrices, where the adapter has some */

    size_t next;                /* 2 slot + part of the one to come */
    const struct cr_lora *lora; /* NULL: label rows */
    bool of_a;
    bool moves;        /* rows of B that the file holds in the Hugging Face order */
    size_t begin;      /* in a vector of parameters */
    uint64_t shape[2]; /* rows, columns */
    char name[160];    /* of its tensor */
};
bool cr_posterior_next(struct cr_posterior_matrix *m);

/* posterior_file.c: out [shape] = the tensor of this name and shape, rows in the order of memory. room: as many floats,
 * used where they change places. Errors: as cr_posterior_read; CR_E_INPUT for rows that are no whole heads. */
cr_status cr_posterior_read_matrix(const struct cr_posterior_file *file, const struct cr_posterior_matrix *m,
                                   float *room, float *out, struct cr_error *err);

/* One matrix of bf16 between memory and the file's order; `out` says the direction. */
void cr_posterior_move_rows(uint16_t *file, uint16_t *memory, const uint64_t shape[2], size_t head_dim, bool moves,
                            bool out);

/* Metadata: the tokens of label rows, in their order, separated by commas. */
#define CR_KEY_LABELS "credence.labels"

void cr_posterior_label_rows_name(char *out, size_t n, const char *suffix);

/* posterior_sides.c: room [floats of the values] holds reordered ones until the file is written. */
cr_status cr_posterior_add_sides(struct cr_safetensors_writer *w, const struct cr_adapter *adapter,
                                 const struct cr_adapter_base *base, const struct cr_posterior_sides *sides,
                                 float *room, struct cr_error *err);
size_t cr_posterior_sides_floats(const struct cr_adapter *adapter, const struct cr_posterior_sides *sides);

#endif
