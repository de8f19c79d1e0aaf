/* Writing GGUF version 3: keys and tensors in the order in which they were added, alignment 32.
 *
 * Keys, strings and arrays are copied; tensor data is borrowed until the writer is destroyed. The bytes depend only
 * on the calls made. A repeated key or tensor name, a shape that does not fit the type, a name that is too long:
 * CR_E_USAGE, and the writer stays as before the call. Failures of files as in file.h.
 */
#ifndef CR_IO_GGUF_WRITE_H
#define CR_IO_GGUF_WRITE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/core/error.h"
#include "runtime/io/gguf.h"

struct cr_gguf_writer;

struct cr_gguf_writer *cr_gguf_writer_create(void); /* returns owned, NULL when memory cannot be had */
void cr_gguf_writer_destroy(struct cr_gguf_writer *w);

cr_status cr_gguf_writer_kv_u32(struct cr_gguf_writer *w, const char *key, uint32_t value, struct cr_error *err);
cr_status cr_gguf_writer_kv_f32(struct cr_gguf_writer *w, const char *key, float value, struct cr_error *err);
cr_status cr_gguf_writer_kv_str(struct cr_gguf_writer *w, const char *key, const char *value, struct cr_error *err);
cr_status cr_gguf_writer_kv_strn(struct cr_gguf_writer *w, const char *key, const char *value, size_t n,
                                 struct cr_error *err);
cr_status cr_gguf_writer_kv_str_array(struct cr_gguf_writer *w, const char *key, const char *const *items, size_t n,
                                      struct cr_error *err);
cr_status cr_gguf_writer_kv_f32_array(struct cr_gguf_writer *w, const char *key, const float *items, size_t n,
                                      struct cr_error *err);
cr_status cr_gguf_writer_kv_i32_array(struct cr_gguf_writer *w, const char *key, const int32_t *items, size_t n,
                                      struct cr_error *err);

/* Any type from its little-endian bytes as the format stores them (an array with its header). */
cr_status cr_gguf_writer_kv_raw(struct cr_gguf_writer *w, const char *key, enum cr_gguf_type type, const void *value,
                                size_t n, struct cr_error *err);

/* ne innermost first. bytes must be what type and shape give. */
cr_status cr_gguf_writer_tensor(struct cr_gguf_writer *w, const char *name, int type, uint32_t n_dims,
                                const uint64_t *ne, const void *data, size_t bytes, struct cr_error *err);

/* Through the atomic writer. */
cr_status cr_gguf_writer_write(const struct cr_gguf_writer *w, const char *path, struct cr_error *err);

/* Into owned memory (cr_free). */
cr_status cr_gguf_writer_to_memory(const struct cr_gguf_writer *w, uint8_t **data, size_t *n, struct cr_error *err);

#endif
