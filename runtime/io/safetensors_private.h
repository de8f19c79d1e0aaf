/* What safetensors.c builds (each description by safetensors_entry.c) and safetensors_get.c reads. */
#ifndef CR_IO_SAFETENSORS_PRIVATE_H
#define CR_IO_SAFETENSORS_PRIVATE_H

#include "runtime/io/file.h"
#include "runtime/io/members.h"
#include "runtime/io/safetensors.h"

struct cr_st_meta {
    uint32_t key, value, value_bytes; /* places in `text`; the header is below 4 GiB */
};

struct cr_st_name {
    const char *name;
    size_t i;
};

struct cr_safetensors {
    struct cr_file_map map; /* fd -1: the memory is the caller's */
    const uint8_t *data;
    size_t bytes;
    char *label; /* escaped */
    const char *header;
    size_t header_bytes, n, n_meta;
    struct cr_st_tensor *tensors;
    struct cr_st_name *index; /* by name */
    struct cr_st_meta *meta;  /* by key */
    char *text;               /* unescaped names, keys and values, each terminated */
    size_t text_bytes;
};

/* dtype, shape, place and size of an entry of the header. Errors: CR_E_INPUT naming tensor and field, CR_E_MEMORY. */
cr_status cr_st_parse_entry(const struct cr_safetensors *st, const struct cr_member *m, struct cr_st_tensor *t,
                            struct cr_error *err);

#endif
