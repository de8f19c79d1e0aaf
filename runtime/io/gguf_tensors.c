/* The tensor records of an opening: types, shapes, names, and the place of each in the data part. */
#include <string.h>

#include "credence/kernels/dequant.h"
#include "runtime/core/alloc.h"
#include "runtime/io/gguf_private.h"

/* Values and bytes of a tensor, dimension by dimension with checked products. */
static cr_status size_tensor(struct cr_gguf_cursor *c, struct cr_gguf_tensor *t)
{
    const struct cr_qtype_info *info = cr_qtype_info(t->type);
    if (info == NULL || info->removed || info->block_bytes == 0) {
        return info != NULL && info->removed
                   ? cr_gguf_fail(c, "type %d (%s) was removed from the format", t->type, info->name)
                   : cr_gguf_fail(c, "type %d is not a known tensor type", t->type);
    }
    if (t->ne[0] % info->block_values != 0) {
        return cr_gguf_fail(c, "row of %llu values, expected a multiple of %zu for %s", (unsigned long long)t->ne[0],
                            info->block_values, info->name);
    }
    uint64_t bytes = t->ne[0] / info->block_values;
    bool wraps = __builtin_mul_overflow(bytes, (uint64_t)info->block_bytes, &bytes);
    for (uint32_t d = 1; d < 4 && !wraps; d++) {
        wraps = __builtin_mul_overflow(bytes, t->ne[d], &bytes);
    }
    if (wraps || bytes > INT64_MAX) {
        return cr_gguf_fail(c, "size of %llu x %llu x %llu x %llu values is beyond 2^63 bytes",
                            (unsigned long long)t->ne[0], (unsigned long long)t->ne[1], (unsigned long long)t->ne[2],
                            (unsigned long long)t->ne[3]);
    }
    t->bytes = bytes;
    return CR_OK;
}

static cr_status read_tensor(struct cr_gguf_cursor *c, uint64_t i, struct cr_gguf_slot *slot)
{
    struct cr_gguf_tensor *t = &slot->public;
    const uint8_t *name = NULL;
    uint64_t n = 0;
    uint32_t type = 0;
    cr_gguf_where(c, "tensor", i, NULL, 0);
    CR_TRY(cr_gguf_read_name(c, "name", CR_GGUF_MAX_NAME_BYTES, &name, &n));
    memcpy(slot->name, name, (size_t)n); /* the block is zeroed: terminated */
    t->name = slot->name;
    cr_gguf_where(c, "tensor", i, slot->name, (size_t)n);
    CR_TRY(cr_gguf_read_u32(c, "n_dims", &t->n_dims));
    if (t->n_dims < 1 || t->n_dims > 4) {
        c->at -= 4;
        return cr_gguf_fail(c, "n_dims %u, expected 1 to 4", t->n_dims);
    }
    for (uint32_t d = 0; d < 4; d++) {
        t->ne[d] = 1;
        if (d >= t->n_dims) {
            continue;
        }
        CR_TRY(cr_gguf_read_u64(c, "dimension", &t->ne[d]));
        if (t->ne[d] < 1 || t->ne[d] > CR_GGUF_MAX_DIMENSION) {
            c->at -= 8;
            return cr_gguf_fail(c, "dimension %u is %lld, expected 1 to 2147483647", d, (long long)t->ne[d]);
        }
    }
    CR_TRY(cr_gguf_read_u32(c, "type", &type));
    t->type = (int)(int32_t)type;
    c->at -= 4;
    CR_TRY(size_tensor(c, t));
    c->at += 4;
    return cr_gguf_read_u64(c, "offset", &t->offset);
}

static uint64_t padding(uint64_t at, uint32_t alignment)
{
    return (alignment - at % alignment) % alignment;
}

/* Every tensor must begin where the padded ones before it end; all must lie inside the file. */
static cr_status place_tensors(struct cr_gguf_cursor *c, struct cr_gguf *g)
{
    uint64_t start = c->at + padding(c->at, g->alignment);
    uint64_t room = start <= c->n ? c->n - start : 0;
    uint64_t expected = 0, end = 0;
    const struct cr_gguf_slot *first_cut = NULL;
    g->data_offset = start;
    for (size_t i = 0; i < g->n_tensors; i++) {
        struct cr_gguf_slot *slot = &g->tensors[i];
        struct cr_gguf_tensor *t = &slot->public;
        cr_gguf_where(c, "tensor", i, t->name, strlen(t->name));
        if (t->offset != expected) {
            return cr_gguf_fail(
                c, "offset %llu, expected %llu (%s)", (unsigned long long)t->offset, (unsigned long long)expected,
                t->offset % g->alignment != 0 ? "a multiple of the alignment" : "end of the tensor before it");
        }
        end = t->offset + t->bytes; /* both at most 2^63 - 1 + one padding: no wrap */
        if (end > INT64_MAX) {
            return cr_gguf_fail(c, "data beyond 2^63 bytes");
        }
        if (end > room && first_cut == NULL) {
            first_cut = slot;
        }
        expected = end + padding(end, g->alignment);
        t->data = end <= room ? g->data + start + t->offset : NULL;
    }
    if (first_cut != NULL) {
        c->at = c->n;
        cr_gguf_where(c, "tensor", 0, first_cut->name, strlen(first_cut->name));
        uint64_t missing = start + end - c->n;
        return cr_gguf_fail(c, "truncated: the file ends inside the tensor data, %llu bytes missing",
                            (unsigned long long)missing);
    }
    g->trailing_bytes = room > expected ? room - expected : 0;
    return CR_OK;
}

cr_status cr_gguf_read_tensors(struct cr_gguf_cursor *c, struct cr_gguf *g)
{
    g->tensors = cr_zalloc(g->n_tensors, sizeof *g->tensors);
    g->tensor_index = cr_alloc(g->n_tensors, sizeof *g->tensor_index);
    if (g->tensors == NULL || g->tensor_index == NULL) {
        return cr_gguf_no_memory(c);
    }
    for (size_t i = 0; i < g->n_tensors; i++) {
        CR_TRY(read_tensor(c, i, &g->tensors[i]));
        g->tensor_index[i] = (struct cr_gguf_name){g->tensors[i].name, i};
    }
    const char *twice = cr_gguf_sort_names(g->tensor_index, g->n_tensors);
    if (twice != NULL) {
        cr_gguf_where(c, "tensor", 0, twice, strlen(twice));
        return cr_gguf_fail(c, "appears twice");
    }
    return place_tensors(c, g);
}
