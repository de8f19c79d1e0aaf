/* Reading and writing safetensors files.
 *
 * Layout: u64 N, N bytes of JSON header (padded with spaces), data. Opening checks all the format demands: header
 * 2...16 MiB - 1 and inside the file, strict JSON, unique names after unescaping, known dtypes, size = shape product
 * times dtype size by checked multiplication, ranges that cover the data part exactly (no hole, no overlap, no tail).
 * Limits of ours: 8 dimensions, names of 1...4096 bytes without NUL.
 *
 * Errors: CR_E_INPUT names label and tensor or header offset; CR_E_IO as in file.h; CR_E_MEMORY.
 * Ownership: the object owns its map (or borrows the caller's memory); pointers handed out live until close.
 * Tensor data is little-endian, row-major and unaligned in general: go through cr_safetensors_read_f32 or memcpy.
 */
#ifndef CR_IO_SAFETENSORS_H
#define CR_IO_SAFETENSORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/core/error.h"
#include "runtime/io/limits.h"

enum cr_st_dtype {
    CR_ST_BOOL,
    CR_ST_U8,
    CR_ST_I8,
    CR_ST_F8_E5M2,
    CR_ST_F8_E4M3,
    CR_ST_F8_E8M0,
    CR_ST_I16,
    CR_ST_U16,
    CR_ST_F16,
    CR_ST_BF16,
    CR_ST_I32,
    CR_ST_U32,
    CR_ST_F32,
    CR_ST_C64,
    CR_ST_F64,
    CR_ST_I64,
    CR_ST_U64,
    CR_ST_N_DTYPES
};

struct cr_safetensors;

struct cr_st_tensor {
    const char *name; /* terminated */
    enum cr_st_dtype dtype;
    uint32_t n_dims;                         /* 0 = scalar */
    uint64_t shape[CR_SAFETENSORS_MAX_DIMS]; /* outermost first */
    uint64_t n;                              /* elements, may be 0 */
    uint64_t begin;                          /* from the start of the data part */
    size_t bytes;
    const void *data; /* unaligned */
};

cr_status cr_safetensors_open(const char *path, struct cr_safetensors **out, struct cr_error *err);
cr_status cr_safetensors_parse(const uint8_t *data, size_t bytes, const char *label, struct cr_safetensors **out,
                               struct cr_error *err);
void cr_safetensors_close(struct cr_safetensors *st); /* NULL is fine */

const char *cr_safetensors_label(const struct cr_safetensors *st);
bool cr_safetensors_changed(const struct cr_safetensors *st);

/* Tensors in order of their data. */
size_t cr_safetensors_n(const struct cr_safetensors *st);
const struct cr_st_tensor *cr_safetensors_at(const struct cr_safetensors *st, size_t i);
const struct cr_st_tensor *cr_safetensors_find(const struct cr_safetensors *st, const char *name); /* NULL = absent */

/* Metadata: text of a key (terminated, and *n bytes when n is not NULL, as it may hold NUL), NULL when absent. */
const char *cr_safetensors_metadata(const struct cr_safetensors *st, const char *key, size_t *n);

/* All t->n elements of an F32, F16 or BF16 tensor as f32. Another dtype or a value that is not finite: CR_E_INPUT
 * naming the tensor and the dtype or the index. */
cr_status cr_safetensors_read_f32(const struct cr_safetensors *st, const struct cr_st_tensor *t, float *out,
                                  struct cr_error *err);

const char *cr_st_dtype_name(enum cr_st_dtype dtype);
size_t cr_st_dtype_bytes(enum cr_st_dtype dtype);

/* Writer: metadata and names are copied, tensor data is borrowed until the writer is destroyed. Tensors are laid out
 * by dtype size descending, then by name, as the reference writer does; metadata sorted by key; the header padded
 * with spaces to a multiple of 8. A repeated name or key, an empty name: CR_E_USAGE. */
struct cr_safetensors_writer;

struct cr_safetensors_writer *cr_safetensors_writer_create(void); /* returns owned, NULL when memory cannot be had */
void cr_safetensors_writer_destroy(struct cr_safetensors_writer *w);
cr_status cr_safetensors_writer_metadata(struct cr_safetensors_writer *w, const char *key, const char *value,
                                         struct cr_error *err);
/* data: elements of `dtype` as they shall lie in the file (little-endian); F32, F16 or BF16. */
cr_status cr_safetensors_writer_tensor(struct cr_safetensors_writer *w, const char *name, enum cr_st_dtype dtype,
                                       uint32_t n_dims, const uint64_t *shape, const void *data, struct cr_error *err);
cr_status cr_safetensors_writer_write(struct cr_safetensors_writer *w, const char *path, struct cr_error *err);
cr_status cr_safetensors_writer_to_memory(struct cr_safetensors_writer *w, uint8_t **data, size_t *n,
                                          struct cr_error *err);

#endif
