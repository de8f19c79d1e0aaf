/* Cutting text at tokens that are never split: control, unknown and user-defined ones.
 *
 * Longest token text first, wherever in the text it stands; tokens of equal length by id, then from the left. What is
 * not covered is raw text. Cost O((bytes + matches) log matches), independent of how many special tokens there are.
 * Source of the order: llama.cpp's partition of the text. */
#ifndef CR_TOKENIZER_SPECIAL_H
#define CR_TOKENIZER_SPECIAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "credence/status.h"

/* Bounds the walk at each byte of a text; real ones have less than 100 bytes. */
#define CR_SPECIAL_MAX_BYTES 256

struct cr_special {
    const char *text; /* borrowed */
    uint32_t n_bytes; /* 1 ... CR_SPECIAL_MAX_BYTES */
    int32_t id;
    bool always; /* user-defined: recognised in plain text too */
};

struct cr_specials {
    struct cr_special *items; /* owned; sorted by bytes, then id */
    size_t n;
    size_t capacity;
    size_t first[257]; /* items whose first byte is b: [first[b], first[b + 1]) */
};

/* A part of a text: raw bytes (id -1) or one special token. */
struct cr_fragment {
    size_t begin;
    size_t end;
    int32_t id;
};

struct cr_fragments {
    struct cr_fragment *items;
    size_t n;
    size_t capacity;
};

cr_status cr_specials_add(struct cr_specials *specials, struct cr_special item, struct cr_error *err);
void cr_specials_sort(struct cr_specials *specials); /* once, after the last add */
void cr_specials_deinit(struct cr_specials *specials);

/* Appends the fragments of text[begin, end) to list; a raw fragment that continues the last raw one of the list is
 * joined to it. control: recognise all special tokens, else user-defined ones only. */
cr_status cr_specials_split(const struct cr_specials *specials, const char *text, size_t begin, size_t end,
                            bool control, struct cr_fragments *list, struct cr_error *err);
void cr_fragments_deinit(struct cr_fragments *list);

#endif
