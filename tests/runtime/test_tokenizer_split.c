/* Pieces of each split rule, compiled and interpreted; special tokens found by the fast way and by the plain one. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/core/error.h"
#include "runtime/tokenizer/pretok.h"
#include "runtime/tokenizer/special.h"
#include "tests/support/kernel_test.h"

/* Pieces joined by U+00A6. */
static const struct {
    const char *pre;
    const char *text;
    const char *pieces;
} cases[] = {
    {"gpt-2", "Hello  world", "Hello\xC2\xA6 \xC2\xA6 world"},
    {"gpt-2", "it's 1234 a\n\n b  ", "it\xC2\xA6's\xC2\xA6 1234\xC2\xA6 a\xC2\xA6\n\n\xC2\xA6 b\xC2\xA6  "},
    {"gpt-2", "IT'S", "IT\xC2\xA6'\xC2\xA6S"},
    {"smollm", "a 12 b",
     "a\xC2\xA6 \xC2\xA6"
     "1\xC2\xA6"
     "2\xC2\xA6 b"},
    {"smollm", "\xC2\xBD\xE2\x85\xA7x", "\xC2\xBD\xC2\xA6\xE2\x85\xA7\xC2\xA6x"}, /* one half, roman eight: \p{N} */
    {"llama-bpe", "IT'S 12345",
     "IT\xC2\xA6'S\xC2\xA6 \xC2\xA6"
     "123\xC2\xA6"
     "45"},
    {"llama-bpe", "a,b !!\n\nc",
     "a\xC2\xA6,b\xC2\xA6 !!\n\n\xC2\xA6"
     "c"},
    {"llama-bpe", "a  \n  b", "a\xC2\xA6  \n\xC2\xA6 \xC2\xA6 b"},
    {"qwen2", "x123y",
     "x\xC2\xA6"
     "1\xC2\xA6"
     "2\xC2\xA6"
     "3\xC2\xA6y"},
    {"qwen2", "a (b)\r\nc",
     "a\xC2\xA6 (\xC2\xA6"
     "b\xC2\xA6)\r\n\xC2\xA6"
     "c"},
    {"default", "a+b 12345",
     "a\xC2\xA6+\xC2\xA6"
     "b\xC2\xA6 \xC2\xA6"
     "123\xC2\xA6"
     "45"},
    /* U+180E is no space: it is not of the letters or digits either, so it goes with the punctuation. */
    {"gpt-2", "a \xE1\xA0\x8E!b",
     "a\xC2\xA6 \xE1\xA0\x8E!\xC2\xA6"
     "b"},
    {"gpt-2",
     "a\xC2\xA0"
     "b",
     "a\xC2\xA6\xC2\xA0\xC2\xA6"
     "b"},
    {"gpt-2", "x", "x"},
};

enum { N_CASES = sizeof cases / sizeof cases[0] };

START_TEST(pieces_of_the_rules)
{
    for (int jit = 0; jit < 2; jit++) {
        struct cr_pretok *pretok = NULL;
        struct cr_pretok_work work = {0};
        const char *text = cases[_i].text;
        const uint32_t *ends = NULL;
        size_t n_ends = 0;
        ck_assert_int_eq(cr_pretok_create(cases[_i].pre, strlen(cases[_i].pre), jit != 0, &pretok, NULL), CR_OK);
        ck_assert_str_eq(cr_pretok_name(pretok), cases[_i].pre);
        ck_assert_int_eq(cr_pretok_split(pretok, &work, text, strlen(text), &ends, &n_ends, NULL), CR_OK);
        char got[256] = "";
        size_t used = 0, begin = 0;
        for (size_t i = 0; i < n_ends; i++) {
            used += (size_t)snprintf(got + used, sizeof got - used, "%s%.*s", i == 0 ? "" : "\xC2\xA6",
                                     (int)(ends[i] - begin), text + begin);
            begin = ends[i];
        }
        ck_assert_uint_eq(begin, strlen(text));
        ck_assert_str_eq(got, cases[_i].pieces);
        cr_pretok_work_deinit(&work);
        cr_pretok_destroy(pretok);
    }
}
END_TEST

/* Random text of the characters that the expressions tell apart: interpreter and machine code agree. */
START_TEST(interpreter_agrees)
{
    static const char *const pres[] = {"gpt-2", "smollm", "llama-bpe", "qwen2", "default"};
    static const char *const characters[] = {" ",
                                             " ",
                                             "\n",
                                             "\r",
                                             "\t",
                                             "a",
                                             "S",
                                             "'",
                                             "s",
                                             "1",
                                             "2",
                                             "!",
                                             "<",
                                             "\xC3\xA9",
                                             "$",
                                             "\xC2\xBD",
                                             "\xE3\x80\x80",
                                             "\xCC\x81",
                                             "re",
                                             "\xC5\xBF",
                                             "'LL",
                                             "\xF0\x9F\x99\x82"};
    struct cr_rng rng = cr_rng_make(40 + (uint64_t)_i);
    struct cr_pretok *pretoks[2];
    struct cr_pretok_work works[2];
    memset(works, 0, sizeof works);
    for (int jit = 0; jit < 2; jit++) {
        ck_assert_int_eq(cr_pretok_create(pres[_i], strlen(pres[_i]), jit != 0, &pretoks[jit], NULL), CR_OK);
    }
    for (int round = 0; round < 2000; round++) {
        char text[256];
        size_t n = 0;
        for (uint32_t left = 1 + cr_rng_below(&rng, 40); left > 0; left--) {
            const char *c = characters[cr_rng_below(&rng, sizeof characters / sizeof characters[0])];
            memcpy(text + n, c, strlen(c));
            n += strlen(c);
        }
        const uint32_t *ends[2];
        size_t n_ends[2];
        for (int jit = 0; jit < 2; jit++) {
            ck_assert_int_eq(cr_pretok_split(pretoks[jit], &works[jit], text, n, &ends[jit], &n_ends[jit], NULL),
                             CR_OK);
        }
        ck_assert_uint_eq(n_ends[0], n_ends[1]);
        ck_assert_mem_eq(ends[0], ends[1], n_ends[0] * sizeof ends[0][0]);
        ck_assert_uint_eq(ends[0][n_ends[0] - 1], n);
        for (size_t i = 0; i < n_ends[0]; i++) {
            ck_assert_uint_gt(ends[0][i], i == 0 ? 0 : ends[0][i - 1]);
        }
    }
    for (int jit = 0; jit < 2; jit++) {
        cr_pretok_work_deinit(&works[jit]);
        cr_pretok_destroy(pretoks[jit]);
    }
    ck_assert_int_eq(cr_alloc_live(), 0);
}
END_TEST

START_TEST(unknown_rule_names_the_known_ones)
{
    struct cr_pretok *pretok = NULL;
    struct cr_error err;
    ck_assert_int_eq(cr_pretok_create("gpt-3", 5, true, &pretok, &err), CR_E_INPUT);
    ck_assert_ptr_null(pretok);
    ck_assert_ptr_nonnull(strstr(err.message, "qwen2, deepseek-r1-qwen)"));
    ck_assert_int_eq(cr_pretok_create("gpt-2x", 6, true, &pretok, &err), CR_E_INPUT);
    ck_assert_int_eq(cr_pretok_create("", 0, true, &pretok, &err), CR_E_INPUT);
}
END_TEST

/* The definition: for each token, longest first and then by id, cut every raw fragment at its occurrences. */
static size_t cut_plainly(const struct cr_special *tokens, size_t n_tokens, bool control, const char *text, size_t n,
                          struct cr_fragment *out)
{
    size_t n_out = n > 0;
    out[0] = (struct cr_fragment){0, n, -1};
    for (uint32_t length = CR_SPECIAL_MAX_BYTES; length > 0; length--) {
        for (size_t token = 0; token < n_tokens; token++) {
            if (tokens[token].n_bytes != length || !(control || tokens[token].always)) {
                continue;
            }
            for (size_t i = 0; i < n_out; i++) {
                struct cr_fragment whole = out[i];
                size_t at = whole.begin;
                while (at + length <= whole.end && memcmp(text + at, tokens[token].text, length) != 0) {
                    at++;
                }
                if (whole.id >= 0 || at + length > whole.end) {
                    continue;
                }
                struct cr_fragment parts[3] = {
                    {whole.begin, at, -1}, {at, at + length, tokens[token].id}, {at + length, whole.end, -1}};
                size_t first = parts[0].begin == parts[0].end, last = parts[2].begin == parts[2].end ? 1 : 2;
                size_t n_parts = last - first + 1;
                memmove(out + i + n_parts, out + i + 1, (n_out - i - 1) * sizeof *out);
                memcpy(out + i, parts + first, n_parts * sizeof *out);
                n_out += n_parts - 1;
                i += 1 - first; /* at the token; what is behind it comes next */
            }
        }
    }
    return n_out;
}

START_TEST(special_tokens_as_defined)
{
    struct cr_rng rng = cr_rng_make(60 + (uint64_t)_i);
    char texts[24][8];
    struct cr_special tokens[24];
    struct cr_specials specials = {0};
    for (int i = 0; i < 24; i++) {
        uint32_t n = 1 + cr_rng_below(&rng, i < 3 ? 1 : 6);
        bool fresh = false;
        while (!fresh) {
            for (uint32_t c = 0; c < n; c++) {
                texts[i][c] = (char)('a' + cr_rng_below(&rng, i < 3 ? 20 : 3));
            }
            fresh = true;
            for (int other = 0; other < i; other++) {
                fresh = fresh && !(tokens[other].n_bytes == n && memcmp(texts[other], texts[i], n) == 0);
            }
            n += !fresh && n < 6;
        }
        tokens[i] = (struct cr_special){texts[i], n, 100 + i, cr_rng_below(&rng, 3) == 0};
        ck_assert_int_eq(cr_specials_add(&specials, tokens[i], NULL), CR_OK);
    }
    cr_specials_sort(&specials);
    for (int round = 0; round < 400; round++) {
        char text[64];
        struct cr_fragment want[80];
        size_t n = cr_rng_below(&rng, 64);
        for (size_t c = 0; c < n; c++) {
            text[c] = (char)('a' + cr_rng_below(&rng, cr_rng_below(&rng, 6) == 0 ? 20 : 3));
        }
        bool control = round % 2 == 0;
        size_t n_want = cut_plainly(tokens, 24, control, text, n, want);
        struct cr_fragments got = {0};
        ck_assert_int_eq(cr_specials_split(&specials, text, 0, n, control, &got, NULL), CR_OK);
        ck_assert_uint_eq(got.n, n_want);
        for (size_t i = 0; i < n_want; i++) {
            ck_assert_uint_eq(got.items[i].begin, want[i].begin);
            ck_assert_uint_eq(got.items[i].end, want[i].end);
            ck_assert_int_eq(got.items[i].id, want[i].id);
        }
        cr_fragments_deinit(&got);
    }
    cr_specials_deinit(&specials);
    ck_assert_int_eq(cr_alloc_live(), 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("splitting");
    TCase *tests = tcase_create("rules and special tokens");
    tcase_set_timeout(tests, 60);
    tcase_add_loop_test(tests, pieces_of_the_rules, 0, N_CASES);
    tcase_add_loop_test(tests, interpreter_agrees, 0, 5);
    tcase_add_test(tests, unknown_rule_names_the_known_ones);
    tcase_add_loop_test(tests, special_tokens_as_defined, 0, 6);
    suite_add_tcase(suite, tests);
    return cr_run_suite(suite);
}
