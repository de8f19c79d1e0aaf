/* What gguf.c builds and gguf_get.c reads. */
#ifndef CR_IO_GGUF_PRIVATE_H
#define CR_IO_GGUF_PRIVATE_H

#include "runtime/io/file.h"
#include "runtime/io/gguf.h"
#include "runtime/io/limits.h"

struct pair {
    const char *key; /* in key_text */
    uint64_t key_at, key_bytes;
    uint64_t value_at; /* file offset of the scalar, the string's bytes or the first element */
    uint64_t n;
    uint64_t *item_offsets; /* owned; arrays of strings */
    uint32_t type, item_type;
};

struct tensor {
    struct cr_gguf_tensor public;
    char name[CR_GGUF_MAX_NAME_BYTES + 1];
};

/* Sorted by name. */
struct name_index {
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
    struct pair *kv;
    char *key_text;
    struct name_index *kv_index, *tensor_index;
    struct tensor *tensors;
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

#endif
