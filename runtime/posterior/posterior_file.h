/* posterior_file: posterior.safetensors, the full state of a method beside the adapter that stands for it.
 *
 * Each vector of the posterior, in the layout of the adapter, becomes one tensor a matrix: its PEFT name and a suffix
 * (".mean", ".hess"), rows of B in Hugging Face order, f32. Metadata: credence.method, .version, .base_xxh3,
 * .architecture, .head_dim, .rank, .alpha, .targets, .head, .template, .tokenizer_xxh3, .labels, and
 * credence.posterior: one line of JSON with the numbers of the method. The adapter that the file belongs to must lie
 * beside it. Errors: CR_E_INPUT naming file and tensor or key, CR_E_IO, CR_E_MEMORY; CR_E_USAGE as in adapter/files.h.
 */
#ifndef CR_POSTERIOR_POSTERIOR_FILE_H
#define CR_POSTERIOR_POSTERIOR_FILE_H

#include "runtime/adapter/files.h"
#include "runtime/io/safetensors.h"
#include "runtime/posterior/method.h"

struct cr_posterior_vector {
    const char *suffix;
    const float *values; /* [adapter->n_params] */
};

/* Rows of bf16 beside them: one tensor a matrix, [n_rows][matrix]. */
struct cr_posterior_rows {
    const char *suffix;
    const uint16_t *values; /* row k at values + k stride */
    size_t stride;
    uint32_t n_rows;
};

/* A matrix for one side of each matrix, A and B of each adapted projection in order behind each other: of the large one
 * (in of A, out of B) as many columns as it has rows, at most n_columns; of the other, the rank, square. */
struct cr_posterior_sides {
    const char *suffix;
    uint32_t n_columns;
    bool large;
    float *values; /* read when writing */
};

struct cr_posterior_content {
    const char *method;
    const json_t *numbers; /* an object */
    const struct cr_posterior_vector *vectors;
    size_t n_vectors;
    const struct cr_posterior_rows *rows; /* may be NULL */
    const struct cr_posterior_sides *sides;
    size_t n_sides;
};
cr_status cr_posterior_write_content(const struct cr_posterior_about *about, const struct cr_posterior_content *content,
                                     const char *dir, struct cr_error *err);

/* Writes dir/posterior.safetensors atomically. numbers: an object, borrowed; NULL, as cr_json_put leaves one without
 * memory, is CR_E_MEMORY. rows may be NULL. */
cr_status cr_posterior_write(const struct cr_posterior_about *about, const char *method, const json_t *numbers,
                             const struct cr_posterior_vector *vectors, size_t n_vectors,
                             const struct cr_posterior_rows *rows, const char *dir, struct cr_error *err);

/* Tensors of another shape than the adapter's matrices, f32. */
struct cr_posterior_tensor {
    const char *name;
    uint32_t n_dims;
    uint64_t shape[3];
    const float *values;
};

cr_status cr_posterior_write_tensors(const struct cr_posterior_about *about, const char *method, const json_t *numbers,
                                     const struct cr_posterior_tensor *tensors, size_t n, const char *dir,
                                     struct cr_error *err);

/* Whether dir/posterior.safetensors is there. Errors: CR_E_MEMORY. */
cr_status cr_posterior_present(const char *dir, bool *present, struct cr_error *err);

struct cr_posterior_file {
    struct cr_safetensors *st; /* owned */
    json_t *numbers;           /* owned: credence.posterior */
    char method[16];
};

/* Opens dir/posterior.safetensors and checks that it is of this adapter: base hash, method (that of the adapter), and
 * n_vectors tensors for each matrix and no other. */
cr_status cr_posterior_file_open(const char *dir, const struct cr_adapter *adapter, struct cr_posterior_file *file,
                                 struct cr_error *err);
cr_status cr_posterior_file_check(const struct cr_posterior_file *file, const struct cr_adapter *adapter,
                                  size_t n_vectors, struct cr_error *err);
/* *adapter (of one set) gets room for label rows where the file has some with this suffix. */
cr_status cr_posterior_file_add_rows(const struct cr_posterior_file *file, const char *suffix,
                                     struct cr_adapter **adapter, struct cr_error *err);
/* ids [n] = the tokens that label rows are of. */
cr_status cr_posterior_file_labels(const struct cr_posterior_file *file, uint32_t n, int32_t *ids,
                                   struct cr_error *err);
void cr_posterior_file_close(struct cr_posterior_file *file); /* zeroed: no effect */

/* values [adapter->n_params] (gaps untouched) = the tensors with this suffix, finite and of the adapter's shapes. */
cr_status cr_posterior_file_vector(const struct cr_posterior_file *file, const struct cr_adapter *adapter,
                                   const struct cr_adapter_base *base, const char *suffix, float *values,
                                   struct cr_error *err);

/* values [adapter->n_params] = the tensors ".mean", which must be the parameters of the adapter, gaps included; label
 * rows, which no file of an adapter holds, are what they are. */
cr_status cr_posterior_file_mean(const struct cr_posterior_file *file, const struct cr_adapter *adapter,
                                 const struct cr_adapter_base *base, float *values, struct cr_error *err);

/* *values: owned, [n_rows][adapter->n_params] with zeros in the gaps, made once the file is known to have such rows;
 * what they are is not looked at. */
cr_status cr_posterior_file_rows(const struct cr_posterior_file *file, const struct cr_adapter *adapter,
                                 const struct cr_adapter_base *base, const char *suffix, uint32_t n_rows,
                                 uint16_t **values, struct cr_error *err);

cr_status cr_posterior_file_sides(const struct cr_posterior_file *file, const struct cr_adapter *adapter,
                                  const struct cr_adapter_base *base, const struct cr_posterior_sides *sides,
                                  struct cr_error *err);

#endif
