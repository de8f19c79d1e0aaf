/* Shared by the sources of the GGUF reader: gguf.c opens, gguf_pairs.c and gguf_tensors.c read, gguf_get.c looks up. */
#ifndef CR_IO_GGUF_PRIVATE_H
#define CR_IO_GGUF_PRIVATE_H

#include "runtime/io/file.h"
#include "runtime/io/gguf.h"
#include "runtime/io/limits.h"

struct cr_gguf_pair {
    const char *key; /* in key_text */
    uint64_t key_at, key_bytes;
    uint64_t value_at; /* file offset of the scalar, the string's bytes or the first element */
    uint64_t n;
    uint64_t *item_offsets; /* owned; arrays of strings */
    uint32_t type, item_type;
};

struct cr_gguf_slot {
    struct cr_gguf_tensor public;
    char name[CR_GGUF_MAX_NAME_BYTES + 1];
};

/* Sorted by name. */
struct cr_gguf_name {
    const char *name;
    size_t i;
};

struct cr_gguf {
    struct cr_file_map map; /* fd -1: the memory is the caller's */
    const uint8_t *data;
    uint64_t bytes;
    char *label; /* escaped */
    uint32_t version, alignment;
    uint64_t data_offset, trailing_bytes;
    size_t n_kv, n_tensors;
    struct cr_gguf_pair *kv;
    char *key_text;
    struct cr_gguf_name *kv_index, *tensor_index;
    struct cr_gguf_slot *tensors;
};

/* Bytes of a scalar of the type, the least of a string (8) or an array (12) in the file; 0 for no type. */
size_t cr_gguf_item_bytes(uint32_t type);

static inline uint32_t cr_le32(const uint8_t *p)
{
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline uint64_t cr_le64(const uint8_t *p)
{
    return cr_le32(p) | (uint64_t)cr_le32(p + 4) << 32;
}

/* Reads forward through the metadata. `where` describes the item being read, for messages. */
struct cr_gguf_cursor {
    const uint8_t *data;
    uint64_t n, at;
    const char *label;
    char where[160];
    struct cr_error *err;
};

static inline uint64_t cr_gguf_left(const struct cr_gguf_cursor *c)
{
    return c->n - c->at;
}

/* CR_E_INPUT "label: byte AT: where: text". */
cr_status cr_gguf_fail(struct cr_gguf_cursor *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
cr_status cr_gguf_no_memory(struct cr_gguf_cursor *c);

/* Sets `where` to "KIND i" (name NULL) or to KIND "name". */
void cr_gguf_where(struct cr_gguf_cursor *c, const char *kind, uint64_t i, const char *name, size_t n);

/* Each reads `what` at the cursor and moves behind it. A string is its length and at most `max` bytes, *text in the
 * file; a name is a string of 1...max bytes without NUL. */
cr_status cr_gguf_read_u32(struct cr_gguf_cursor *c, const char *what, uint32_t *out);
cr_status cr_gguf_read_u64(struct cr_gguf_cursor *c, const char *what, uint64_t *out);
cr_status cr_gguf_read_string(struct cr_gguf_cursor *c, const char *what, uint64_t max, const uint8_t **text,
                              uint64_t *n);
cr_status cr_gguf_read_name(struct cr_gguf_cursor *c, const char *what, uint64_t max, const uint8_t **text,
                            uint64_t *n);

/* Sorts the index; the name that stands in it twice, or NULL. */
const char *cr_gguf_sort_names(struct cr_gguf_name *index, size_t n);

/* Fill the pairs (and alignment) and the tensors of g, whose counts have been checked. */
cr_status cr_gguf_read_pairs(struct cr_gguf_cursor *c, struct cr_gguf *g);
cr_status cr_gguf_read_tensors(struct cr_gguf_cursor *c, struct cr_gguf *g);

#endif
