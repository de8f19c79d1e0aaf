#define PCRE2_CODE_UNIT_WIDTH 8
#include "runtime/tokenizer/pretok.h"

#include <pcre2.h>
#include <stdio.h>
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/core/error.h"

/* \s of the published expressions, written out: PCRE2 counts U+180E as a space in some versions, Unicode does not. */
#define SPACE                                                                                                          \
    "\\x{09}-\\x{0D}\\x{20}\\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}\\x{205F}\\x{3000}"
#define S "[" SPACE "]"
#define NOT_S "[^" SPACE "]"
#define NOT_SLN "[^" SPACE "\\p{L}\\p{N}]"

#define GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?" NOT_SLN "+|" S "+(?!" NOT_S ")"
#define MODERN(digits)                                                                                                 \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" digits "| ?" NOT_SLN "+[\\r\\n]*|" S "*[\\r\\n]+|" S \
    "+(?!" NOT_S ")|" S "+"

#define MAX_PATTERNS 4

struct rule {
    const char *patterns[MAX_PATTERNS];
    bool ignore_merges;
    bool add_bos;
};

enum { RULE_GPT2, RULE_SMOLLM, RULE_LLAMA_BPE, RULE_QWEN2, RULE_DEFAULT };

static const struct rule rules[] = {
    [RULE_GPT2] = {{GPT2}, false, false},
    [RULE_SMOLLM] = {{"\\p{N}", GPT2}, false, false},
    [RULE_LLAMA_BPE] = {{MODERN("\\p{N}{1,3}")}, true, true},
    [RULE_QWEN2] = {{MODERN("\\p{N}")}, false, false},
    [RULE_DEFAULT] = {{"[\\p{P}\\$\\+<=>\\^~\\|]+", GPT2, "\\p{N}+", "[0-9][0-9][0-9]"}, false, false},
};

/* Values of tokenizer.ggml.pre that llama.cpp treats alike. */
static const struct {
    const char *name;
    int rule;
} names[] = {
    {"default", RULE_DEFAULT},   {"gpt-2", RULE_GPT2},         {"phi-2", RULE_GPT2},
    {"mpt", RULE_GPT2},          {"olmo", RULE_GPT2},          {"jina-es", RULE_GPT2},
    {"jina-de", RULE_GPT2},      {"smollm", RULE_SMOLLM},      {"starcoder", RULE_SMOLLM},
    {"refact", RULE_SMOLLM},     {"command-r", RULE_SMOLLM},   {"codeshell", RULE_SMOLLM},
    {"exaone", RULE_SMOLLM},     {"minerva-7b", RULE_SMOLLM},  {"llama-bpe", RULE_LLAMA_BPE},
    {"llama3", RULE_LLAMA_BPE},  {"llama-v3", RULE_LLAMA_BPE}, {"falcon3", RULE_LLAMA_BPE},
    {"pixtral", RULE_LLAMA_BPE}, {"qwen2", RULE_QWEN2},        {"deepseek-r1-qwen", RULE_QWEN2},
};

#define N_NAMES (sizeof names / sizeof names[0])

struct cr_pretok {
    const char *name;
    const struct rule *rule;
    pcre2_general_context *memory;
    pcre2_match_context *limits;
    pcre2_code *codes[MAX_PATTERNS];
    size_t n_codes;
};

static void *pcre_alloc(size_t bytes, void *unused)
{
    (void)unused;
    return cr_alloc(1, bytes);
}

static void pcre_free(void *block, void *unused)
{
    (void)unused;
    cr_free(block);
}

static cr_status unknown_name(const char *name, size_t n, struct cr_error *err)
{
    char shown[CR_ESCAPE_BYTES];
    char list[400];
    size_t used = 0;
    for (size_t i = 0; i < N_NAMES; i++) {
        int written = snprintf(list + used, sizeof list - used, "%s%s", i == 0 ? "" : ", ", names[i].name);
        used += (size_t)written < sizeof list - used ? (size_t)written : sizeof list - used - 1;
    }
    return cr_fail(err, CR_E_INPUT, "tokenizer.ggml.pre: \"%.200s\" unsupported (have %s)",
                   cr_escape(shown, sizeof shown, name, n), list);
}

static cr_status compile(struct cr_pretok *pretok, bool jit, struct cr_error *err)
{
    pcre2_compile_context *context = pcre2_compile_context_create(pretok->memory);
    if (context == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for the split rule of the tokenizer");
    }
    cr_status status = CR_OK;
    for (size_t i = 0; i < MAX_PATTERNS && pretok->rule->patterns[i] != NULL; i++) {
        int code = 0;
        PCRE2_SIZE offset = 0;
        pretok->codes[i] = pcre2_compile((PCRE2_SPTR)pretok->rule->patterns[i], PCRE2_ZERO_TERMINATED,
                                         PCRE2_UTF | PCRE2_UCP, &code, &offset, context);
        if (pretok->codes[i] == NULL) {
            status = cr_fail(err, CR_E_MEMORY, "split rule %s: expression %zu does not compile (PCRE2 error %d at %zu)",
                             pretok->name, i + 1, code, (size_t)offset);
            break;
        }
        pretok->n_codes++;
        if (jit) {
            /* Fails where memory may not be both written and executed; pcre2_match then interprets. */
            (void)pcre2_jit_compile(pretok->codes[i], PCRE2_JIT_COMPLETE);
        }
    }
    pcre2_compile_context_free(context);
    return status;
}

cr_status cr_pretok_create(const char *name, size_t n, bool jit, struct cr_pretok **out, struct cr_error *err)
{
    size_t which = 0;
    while (which < N_NAMES && !(strlen(names[which].name) == n && memcmp(names[which].name, name, n) == 0)) {
        which++;
    }
    if (which == N_NAMES) {
        return unknown_name(name, n, err);
    }
    struct cr_pretok *pretok = cr_zalloc(1, sizeof *pretok);
    if (pretok == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for the split rule of the tokenizer");
    }
    pretok->name = names[which].name;
    pretok->rule = &rules[names[which].rule];
    cr_status status = CR_OK;
    pretok->memory = pcre2_general_context_create(pcre_alloc, pcre_free, NULL);
    pretok->limits = pretok->memory == NULL ? NULL : pcre2_match_context_create(pretok->memory);
    if (pretok->limits == NULL) {
        status = cr_fail(err, CR_E_MEMORY, "no memory for the split rule of the tokenizer");
        goto out;
    }
    /* The limits guard against expressions of unknown origin; ours are linear, and a long text is no reason to fail. */
    pcre2_set_match_limit(pretok->limits, UINT32_MAX);
    pcre2_set_depth_limit(pretok->limits, UINT32_MAX);
    pcre2_set_heap_limit(pretok->limits, UINT32_MAX);
    CR_TRY_OUT(status, compile(pretok, jit, err));
    *out = pretok;
    pretok = NULL;
out:
    cr_pretok_destroy(pretok);
    return status;
}

void cr_pretok_destroy(struct cr_pretok *pretok)
{
    if (pretok == NULL) {
        return;
    }
    for (size_t i = 0; i < MAX_PATTERNS; i++) {
        pcre2_code_free(pretok->codes[i]);
    }
    pcre2_match_context_free(pretok->limits);
    pcre2_general_context_free(pretok->memory);
    cr_free(pretok);
}

const char *cr_pretok_name(const struct cr_pretok *pretok)
{
    return pretok->name;
}

bool cr_pretok_ignore_merges(const struct cr_pretok *pretok)
{
    return pretok->rule->ignore_merges;
}

bool cr_pretok_add_bos(const struct cr_pretok *pretok)
{
    return pretok->rule->add_bos;
}

void cr_pretok_work_deinit(struct cr_pretok_work *work)
{
    cr_free(work->cuts[0].ends);
    cr_free(work->cuts[1].ends);
    pcre2_match_data_free(work->match_data);
    memset(work, 0, sizeof *work);
}

static cr_status cut(struct cr_cuts *cuts, size_t end, struct cr_error *err)
{
    uint32_t *ends = cr_grow(cuts->ends, cuts->n, 1, &cuts->capacity, sizeof *ends);
    if (ends == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for more than %zu pieces of a text", cuts->n);
    }
    cuts->ends = ends;
    cuts->ends[cuts->n++] = (uint32_t)end;
    return CR_OK;
}

static int match(const struct cr_pretok *pretok, const pcre2_code *code, pcre2_match_data *data, const char *text,
                 size_t n, size_t start)
{
    int found = pcre2_match(code, (PCRE2_SPTR)text, n, start, PCRE2_NO_UTF_CHECK, data, pretok->limits);
    if (found == PCRE2_ERROR_JIT_STACKLIMIT) {
        found = pcre2_match(code, (PCRE2_SPTR)text, n, start, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, data, pretok->limits);
    }
    return found;
}

/* Splits one piece, bytes [begin, end) of text, by one expression. */
static cr_status split_piece(const struct cr_pretok *pretok, const pcre2_code *code, pcre2_match_data *data,
                             const char *text, size_t begin, size_t end, struct cr_cuts *to, struct cr_error *err)
{
    const char *piece = text + begin;
    size_t n = end - begin;
    const PCRE2_SIZE *bounds = pcre2_get_ovector_pointer(data);
    size_t at = 0;
    while (at < n) {
        int found = match(pretok, code, data, piece, n, at);
        if (found == PCRE2_ERROR_NOMATCH) {
            break;
        }
        if (found < 0) {
            return cr_fail(err, found == PCRE2_ERROR_NOMEMORY ? CR_E_MEMORY : CR_E_INPUT,
                           "text cannot be split at byte %zu (PCRE2 error %d)", begin + at, found);
        }
        size_t from = bounds[0];
        size_t to_byte = bounds[1];
        if (from > at) {
            CR_TRY(cut(to, begin + from, err));
        }
        CR_TRY(cut(to, begin + to_byte, err));
        at = to_byte; /* beyond the old place: no expression matches the empty text */
    }
    return at < n ? cut(to, end, err) : CR_OK;
}

cr_status cr_pretok_split(const struct cr_pretok *pretok, struct cr_pretok_work *work, const char *text, size_t n,
                          const uint32_t **ends, size_t *n_ends, struct cr_error *err)
{
    if (work->match_data == NULL) {
        work->match_data = pcre2_match_data_create(1, pretok->memory);
        if (work->match_data == NULL) {
            return cr_fail(err, CR_E_MEMORY, "no memory to split a text");
        }
    }
    struct cr_cuts *from = &work->cuts[0];
    struct cr_cuts *to = &work->cuts[1];
    from->n = 0;
    CR_TRY(cut(from, n, err));
    for (size_t i = 0; i < pretok->n_codes; i++) {
        to->n = 0;
        size_t begin = 0;
        for (size_t piece = 0; piece < from->n; piece++) {
            CR_TRY(split_piece(pretok, pretok->codes[i], work->match_data, text, begin, from->ends[piece], to, err));
            begin = from->ends[piece];
        }
        struct cr_cuts *swapped = from;
        from = to;
        to = swapped;
    }
    *ends = from->ends;
    *n_ends = from->n;
    return CR_OK;
}
