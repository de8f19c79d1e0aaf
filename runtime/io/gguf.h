/* Reading GGUF containers, versions 2 and 3, little-endian.
 *
 * Opening checks everything the container promises, once, in O(n log n) of the metadata bytes: counts against the
 * bytes left before anything is allocated, key and tensor names unique and without NUL bytes, value and tensor types,
 * dimensions 1...2^31-1, alignment (u32, power of two, 8...1 MiB), each tensor at the running sum of padded sizes, all
 * data inside the file. It does not know which keys or tensors a model needs. After opening nothing can fail except
 * the typed getters, and every accessor is O(1) or O(log n).
 *
 * Errors: CR_E_INPUT names the label, the byte offset and the key or tensor; CR_E_IO as in file.h; CR_E_MEMORY.
 * Ownership: the object owns its map (or borrows the caller's memory, which must then outlive it); every pointer
 * handed out is borrowed until cr_gguf_close. Read-only afterwards: any number of threads.
 * Source of the layout: the GGUF description of the ggml project.
 */
#ifndef CR_IO_GGUF_H
#define CR_IO_GGUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/core/error.h"

enum cr_gguf_type {
    CR_GGUF_U8 = 0,
    CR_GGUF_I8 = 1,
    CR_GGUF_U16 = 2,
    CR_GGUF_I16 = 3,
    CR_GGUF_U32 = 4,
    CR_GGUF_I32 = 5,
    CR_GGUF_F32 = 6,
    CR_GGUF_BOOL = 7,
    CR_GGUF_STRING = 8,
    CR_GGUF_ARRAY = 9,
    CR_GGUF_U64 = 10,
    CR_GGUF_I64 = 11,
    CR_GGUF_F64 = 12
};

struct cr_gguf;

/* One metadata value. Read the fields through the functions below. */
struct cr_gguf_value {
    enum cr_gguf_type type;
    enum cr_gguf_type item_type;  /* of an array's elements */
    uint64_t n;                   /* array: elements; string: bytes; else 1 */
    const uint8_t *data;          /* scalar, first byte of the string, or first element; unaligned */
    const uint64_t *item_offsets; /* array of strings: where each string's length field lies, from `base` */
    const uint8_t *base;
};

struct cr_gguf_tensor {
    const char *name; /* terminated, 1...63 bytes */
    uint32_t n_dims;  /* 1...4 */
    uint64_t ne[4];   /* innermost first; 1 beyond n_dims */
    int type;         /* enum cr_qtype; a known one, perhaps not one that computes */
    uint64_t offset;  /* from the start of the data part */
    uint64_t bytes;   /* without padding */
    const void *data; /* in the map */
};

/* Maps the file `path`. */
cr_status cr_gguf_open(const char *path, struct cr_gguf **out, struct cr_error *err);

/* The same from memory (borrowed). label stands for the file name in messages. */
cr_status cr_gguf_parse(const uint8_t *data, size_t bytes, const char *label, struct cr_gguf **out,
                        struct cr_error *err);
void cr_gguf_close(struct cr_gguf *g); /* NULL is fine */

const char *cr_gguf_label(const struct cr_gguf *g);
uint32_t cr_gguf_version(const struct cr_gguf *g);
uint64_t cr_gguf_data_offset(const struct cr_gguf *g); /* file offset of the data part */
uint64_t cr_gguf_file_bytes(const struct cr_gguf *g);
uint64_t cr_gguf_trailing_bytes(const struct cr_gguf *g); /* behind the last padded tensor: worth a warning */
const uint8_t *cr_gguf_bytes(const struct cr_gguf *g);    /* the whole file, for digests */
bool cr_gguf_changed(const struct cr_gguf *g);            /* file differs from when it was opened; memory: false */

/* Metadata, in file order. */
size_t cr_gguf_n_kv(const struct cr_gguf *g);
const char *cr_gguf_key(const struct cr_gguf *g, size_t i); /* terminated */
void cr_gguf_value_at(const struct cr_gguf *g, size_t i, struct cr_gguf_value *v);
bool cr_gguf_find(const struct cr_gguf *g, const char *key, struct cr_gguf_value *v); /* v may be NULL */

/* Typed lookups. An absent key: CR_E_INPUT when required, else CR_OK with *out untouched (put the default there
 * before). A value of the wrong kind or out of range is CR_E_INPUT naming the key. Integers of any width and sign
 * are taken, floats of either width; floats must be finite. */
cr_status cr_gguf_u32(const struct cr_gguf *g, const char *key, bool required, uint32_t *out, struct cr_error *err);
cr_status cr_gguf_i64(const struct cr_gguf *g, const char *key, bool required, int64_t *out, struct cr_error *err);
cr_status cr_gguf_f32(const struct cr_gguf *g, const char *key, bool required, float *out, struct cr_error *err);
cr_status cr_gguf_bool(const struct cr_gguf *g, const char *key, bool required, bool *out, struct cr_error *err);

/* *s: n bytes, NOT terminated, may hold any byte. */
cr_status cr_gguf_str(const struct cr_gguf *g, const char *key, bool required, const char **s, size_t *n,
                      struct cr_error *err);

/* An array whose elements are strings, integers (any width), floats (either width) or booleans. Absent and not
 * required: v->n = 0. */
enum cr_gguf_kind { CR_GGUF_KIND_STRING, CR_GGUF_KIND_INTEGER, CR_GGUF_KIND_FLOAT, CR_GGUF_KIND_BOOL };
cr_status cr_gguf_array(const struct cr_gguf *g, const char *key, enum cr_gguf_kind kind, bool required,
                        struct cr_gguf_value *v, struct cr_error *err);

/* Element i < v->n of an array of the matching kind. Integers above INT64_MAX are returned as INT64_MAX. */
const char *cr_gguf_array_str(const struct cr_gguf_value *v, uint64_t i, size_t *n); /* NOT terminated */
int64_t cr_gguf_array_int(const struct cr_gguf_value *v, uint64_t i);
double cr_gguf_array_float(const struct cr_gguf_value *v, uint64_t i); /* may be NaN or infinite: check */

/* A scalar as integer or float: false when it is of another kind (or above INT64_MAX). */
bool cr_gguf_scalar_int(const struct cr_gguf_value *v, int64_t *out);
bool cr_gguf_scalar_float(const struct cr_gguf_value *v, double *out);

const char *cr_gguf_type_name(enum cr_gguf_type type); /* "u32", "string", ... */

/* Tensors, in file order. */
size_t cr_gguf_n_tensors(const struct cr_gguf *g);
const struct cr_gguf_tensor *cr_gguf_tensor_at(const struct cr_gguf *g, size_t i);
const struct cr_gguf_tensor *cr_gguf_tensor_find(const struct cr_gguf *g, const char *name); /* NULL when absent */

#endif
