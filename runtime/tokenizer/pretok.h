/* Splitting text by the rule that tokenizer.ggml.pre names, before byte-level BPE.
 *
 * A rule is a list of regular expressions in PCRE2 syntax (UTF and UCP). They apply in order; each splits every piece
 * made so far, and both the matches and what lies between them become pieces. The expressions contain no nested
 * repetition, so matching is linear in practice and never recurses by input; the compiled form is used where the
 * system allows it, with the interpreter behind it. */
#ifndef CR_TOKENIZER_PRETOK_H
#define CR_TOKENIZER_PRETOK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "credence/status.h"

struct cr_pretok; /* immutable, any number of threads */

/* name: n bytes from the file; an unknown one is CR_E_INPUT with the list. jit false: interpreter only. */
cr_status cr_pretok_create(const char *name, size_t n, bool jit, struct cr_pretok **out, struct cr_error *err);
void cr_pretok_destroy(struct cr_pretok *pretok); /* NULL is fine */

const char *cr_pretok_name(const struct cr_pretok *pretok);   /* the name given at creation */
bool cr_pretok_ignore_merges(const struct cr_pretok *pretok); /* a piece that is a token is not merged */
bool cr_pretok_add_bos(const struct cr_pretok *pretok);       /* default of tokenizer.ggml.add_bos_token */

/* Space for the splits of one thread. All zero is valid; deinit frees. */
struct cr_pretok_work {
    struct cr_cuts {
        uint32_t *ends;
        size_t n;
        size_t capacity;
    } cuts[2];
    void *match_data;
};

void cr_pretok_work_deinit(struct cr_pretok_work *work);

/* Splits n bytes (1 ... 2^30) of well-formed UTF-8. *ends: ascending ends of the pieces, the last is n; borrowed until
 * the next call with this work. */
cr_status cr_pretok_split(const struct cr_pretok *pretok, struct cr_pretok_work *work, const char *text, size_t n,
                          const uint32_t **ends, size_t *n_ends, struct cr_error *err);

#endif
