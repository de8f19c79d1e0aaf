/* Both tokenizers on tiny vocabularies: order of merges, special tokens, bytes; fast merging against a plain one. */
#include <check.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/support/kernel_test.h"
#include "tests/support/vocab_test.h"

static struct cr_test_vocab vocab;

START_TEST(bpe_joins_lowest_rank_first)
{
    cr_vocab_bpe(&vocab, "gpt-2");
    ck_assert_int_eq(cr_vocab_merge(&vocab, "b", "c"), 256);
    ck_assert_int_eq(cr_vocab_merge(&vocab, "a", "b"), 257);
    ck_assert_int_eq(cr_vocab_merge(&vocab, "a", "a"), 258);
    ck_assert_int_eq(cr_vocab_merge(&vocab, "aa", "aa"), 259);
    ck_assert_int_eq(cr_vocab_merge(&vocab, "\xC4\xA0", "a"), 260); /* U+0120 stands for the space */
    struct cr_test_tokenizer t;
    cr_test_open(&t, &vocab);
    ck_assert_str_eq(CR_IDS(t.tok, "", 0), "");
    ck_assert_str_eq(CR_IDS(t.tok, "abc", 0), "97 256");
    ck_assert_str_eq(CR_IDS(t.tok, "ab", 0), "257");
    ck_assert_str_eq(CR_IDS(t.tok, "aaa", 0), "258 97"); /* leftmost */
    ck_assert_str_eq(CR_IDS(t.tok, "aaaaaaa", 0), "259 258 97");
    ck_assert_str_eq(CR_IDS(t.tok, "a a", 0), "97 260");
    ck_assert_str_eq(CR_IDS(t.tok, "a a", CR_TOK_BOS | CR_TOK_EOS), "0 97 260 0");
    ck_assert_str_eq(CR_IDS(t.tok, "", CR_TOK_BOS | CR_TOK_EOS), "0 0");
    cr_test_close(&t);
}
END_TEST

/* Malformed UTF-8 goes byte by byte; well-formed text around it keeps its merges. */
START_TEST(bpe_takes_any_bytes)
{
    cr_vocab_bpe(&vocab, "gpt-2");
    cr_vocab_merge(&vocab, "a", "b");
    cr_vocab_merge(&vocab, "\xC3\x83", "\xC2\xA9"); /* bytes C3 A9 */
    struct cr_test_tokenizer t;
    cr_test_open(&t, &vocab);
    ck_assert_str_eq(CR_IDS(t.tok,
                            "ab\xFF"
                            "ab",
                            0),
                     "256 255 256");
    ck_assert_str_eq(CR_IDS(t.tok, "\xC3\xA9", 0), "257");
    ck_assert_str_eq(CR_IDS(t.tok, "\xC3", 0), "195");
    ck_assert_str_eq(CR_IDS(t.tok, "\xED\xA0\x80", 0), "237 160 128"); /* a surrogate */
    ck_assert_str_eq(CR_IDS(t.tok, "\xC0\x80", 0), "192 128");         /* overlong */
    ck_assert_str_eq(CR_IDS(t.tok, "\xF4\x90\x80\x80", 0), "244 144 128 128");
    ck_assert_str_eq(CR_IDS(t.tok, "a\0b", 0), "97 0 98");
    cr_test_close(&t);
}
END_TEST

START_TEST(bpe_counts_bytes_without_token)
{
    cr_vocab_bpe(&vocab, "gpt-2");
    vocab.tokens['x'] = "gone";
    vocab.tokens[0xFE] = "gone too";
    struct cr_test_tokenizer t;
    cr_test_open(&t, &vocab);
    ck_assert_uint_eq(cr_tokenizer_n_missing_bytes(t.tok), 2);
    ck_assert_str_eq(CR_IDS(t.tok, "axxb\xFE", 0), "97 98 dropped=3");
    ck_assert_str_eq(CR_IDS(t.tok, "x", 0), " dropped=1");
    cr_test_close(&t);
}
END_TEST

START_TEST(whole_words_before_merges)
{
    const char *const rules[] = {"gpt-2", "llama-bpe"};
    for (int i = 0; i < 2; i++) {
        cr_vocab_bpe(&vocab, rules[i]);
        cr_vocab_add(&vocab, "xyz", 1, 0);
        cr_vocab_add(&vocab, "end", 3, 0);
        struct cr_test_tokenizer t;
        cr_test_open(&t, &vocab);
        ck_assert_str_eq(CR_IDS(t.tok, "xyz", 0), i == 0 ? "120 121 122" : "256");
        ck_assert_str_eq(CR_IDS(t.tok, "end", 0), "101 110 100"); /* never a control token */
        ck_assert_int_eq(cr_tokenizer_add_bos(t.tok), i == 1);
        cr_test_close(&t);
    }
}
END_TEST

START_TEST(special_tokens)
{
    cr_vocab_bpe(&vocab, "gpt-2");
    cr_vocab_add(&vocab, "<x>", 3, 0);    /* 256 */
    cr_vocab_add(&vocab, "<x><y>", 3, 0); /* 257 */
    cr_vocab_add(&vocab, "{u}", 4, 0);    /* 258, user-defined */
    cr_vocab_add(&vocab, "?unk?", 2, 0);  /* 259 */
    cr_vocab_add(&vocab, "ABCD", 3, 0);   /* 260 */
    cr_vocab_add(&vocab, "CDE", 3, 0);    /* 261 */
    cr_vocab_add(&vocab, "BCD", 3, 0);    /* 262 */
    struct cr_test_tokenizer t;
    cr_test_open(&t, &vocab);
    ck_assert_str_eq(CR_IDS(t.tok, "<x>", 0), "60 120 62");
    ck_assert_str_eq(CR_IDS(t.tok, "<x>", CR_TOK_SPECIAL), "256");
    ck_assert_str_eq(CR_IDS(t.tok, "a<x><x><y>b", CR_TOK_SPECIAL), "97 256 257 98");
    ck_assert_str_eq(CR_IDS(t.tok, "a{u}b?unk?", 0), "97 258 98 63 117 110 107 63");
    ck_assert_str_eq(CR_IDS(t.tok, "{u}?unk?", CR_TOK_SPECIAL), "258 259");
    /* Longest first wherever it stands; equal length: lower id. */
    ck_assert_str_eq(CR_IDS(t.tok, "ABCDE", CR_TOK_SPECIAL), "260 69");
    ck_assert_str_eq(CR_IDS(t.tok, "BCDE", CR_TOK_SPECIAL), "66 261");
    ck_assert_str_eq(CR_IDS(t.tok, "<x><y", CR_TOK_SPECIAL), "256 60 121");
    cr_test_close(&t);
}
END_TEST

START_TEST(normal_form_c_on_request)
{
    cr_vocab_bpe(&vocab, "qwen2");
    struct cr_test_tokenizer t;
    cr_test_open(&t, &vocab);
    ck_assert_str_eq(CR_IDS(t.tok, "e\xCC\x81", 0), "101 204 129");
    ck_assert_str_eq(CR_IDS(t.tok, "e\xCC\x81", CR_TOK_NFC), "195 169");
    ck_assert_str_eq(CR_IDS(t.tok,
                            "\xFF"
                            "e\xCC\x81\xFF",
                            CR_TOK_NFC),
                     "255 195 169 255");
    ck_assert_str_eq(CR_IDS(t.tok, "", CR_TOK_NFC), "");
    cr_test_close(&t);
}
END_TEST

#define MARK "\xE2\x96\x81" /* U+2581 */

START_TEST(spm_joins_highest_score_first)
{
    cr_vocab_spm(&vocab);
    cr_vocab_add(&vocab, MARK, 1, -10);    /* 259 */
    cr_vocab_add(&vocab, "a", 1, -11);     /* 260 */
    cr_vocab_add(&vocab, "b", 1, -12);     /* 261 */
    cr_vocab_add(&vocab, "ab", 1, -3);     /* 262 */
    cr_vocab_add(&vocab, "ba", 1, -2);     /* 263 */
    cr_vocab_add(&vocab, MARK "a", 1, -4); /* 264 */
    cr_vocab_add(&vocab, "aa", 1, -5);     /* 265 */
    cr_vocab_add(&vocab, "/s", 1, -6);     /* 266 */
    struct cr_test_tokenizer t;
    cr_test_open(&t, &vocab);
    ck_assert_int_eq(cr_tokenizer_unk(t.tok), 0);
    ck_assert(cr_tokenizer_add_bos(t.tok));
    ck_assert_str_eq(CR_IDS(t.tok, "", 0), "");
    ck_assert_str_eq(CR_IDS(t.tok, "a", 0), "264");
    ck_assert_str_eq(CR_IDS(t.tok, "ab", 0), "259 262");  /* ab (-3) before MARK a (-4) */
    ck_assert_str_eq(CR_IDS(t.tok, "aba", 0), "264 263"); /* ba (-2) first */
    ck_assert_str_eq(CR_IDS(t.tok, "baaa", 0), "259 263 265");
    ck_assert_str_eq(CR_IDS(t.tok, " a", 0), "259 264");
    ck_assert_str_eq(CR_IDS(t.tok, "</s>", 0), "259 63 266 65"); /* never a control token */
    ck_assert_str_eq(CR_IDS(t.tok, "</s>", CR_TOK_SPECIAL | CR_TOK_BOS), "1 2");
    ck_assert_str_eq(CR_IDS(t.tok, "a</s>a", CR_TOK_SPECIAL), "264 2 264"); /* a prefix behind each special token */
    ck_assert_str_eq(CR_IDS(t.tok, "\xC3\xA9\xFF", 0), "259 198 172 258");  /* byte tokens */
    ck_assert_str_eq(CR_IDS(t.tok, "<0x41>", 0), "259 63 51 123 55 52 65"); /* not the byte token of A */
    cr_test_close(&t);
    vocab.add_space_prefix = 0;
    cr_test_open(&t, &vocab);
    ck_assert_str_eq(CR_IDS(t.tok, "a a", 0), "260 264");
    ck_assert_str_eq(CR_IDS(t.tok, "a</s>a", CR_TOK_SPECIAL), "260 2 260");
    char bytes[4];
    ck_assert_uint_eq(cr_tokenizer_decode(t.tok, 264, bytes, 4), 2);
    ck_assert_mem_eq(bytes, " a", 2);
    ck_assert_uint_eq(cr_tokenizer_decode(t.tok, 3 + 0xE9, bytes, 4), 1);
    ck_assert_int_eq((unsigned char)bytes[0], 0xE9);
    cr_test_close(&t);
}
END_TEST

/* Of 256 byte tokens one is missing: the unknown token stands for every character that needs it. */
START_TEST(spm_unknown_token_for_missing_bytes)
{
    cr_vocab_spm(&vocab);
    vocab.tokens[3 + 0xA9] = "other";
    vocab.types[3 + 0xA9] = 1;
    vocab.add_space_prefix = 0;
    struct cr_test_tokenizer t;
    cr_test_open(&t, &vocab);
    ck_assert_uint_eq(cr_tokenizer_n_missing_bytes(t.tok), 1);
    ck_assert_str_eq(CR_IDS(t.tok, "\xC3\xA9\xC3\xA8", 0), "0 198 171");
    cr_test_close(&t);
}
END_TEST

/* A vocabulary without types still knows bytes and end markers from their texts. */
START_TEST(types_may_be_absent)
{
    cr_vocab_spm(&vocab);
    cr_vocab_add(&vocab, "<end_of_turn>", 1, 0);
    vocab.has_types = false;
    struct cr_test_tokenizer t;
    cr_test_open(&t, &vocab);
    ck_assert_int_eq(cr_tokenizer_unk(t.tok), 0);
    ck_assert_int_eq(cr_tokenizer_eot(t.tok), 259);
    ck_assert(cr_tokenizer_is_eog(t.tok, 259) && cr_tokenizer_is_eog(t.tok, 2) && !cr_tokenizer_is_eog(t.tok, 1));
    ck_assert(!cr_tokenizer_is_eog(t.tok, -1) && !cr_tokenizer_is_eog(t.tok, 260));
    ck_assert_str_eq(CR_IDS(t.tok, "<end_of_turn>", CR_TOK_SPECIAL), "259");
    cr_test_close(&t);
}
END_TEST

struct part {
    char text[64];
};

/* The rule of both models by search over the whole list each time: lowest cost of an adjacent pair, leftmost first. */
static size_t join_plainly(struct part *parts, size_t n, const struct cr_test_vocab *v, bool spm)
{
    for (;;) {
        size_t best = SIZE_MAX;
        double best_cost = 0;
        for (size_t i = 0; i + 1 < n; i++) {
            char joined[160];
            snprintf(joined, sizeof joined, "%.63s%s%.63s", parts[i].text, spm ? "" : " ", parts[i + 1].text);
            for (size_t entry = spm ? 259 : 0; entry < (spm ? v->n_tokens : v->n_merges); entry++) {
                double cost = spm ? -(double)v->scores[entry] : (double)entry;
                if (strcmp(spm ? v->tokens[entry] : v->merges[entry], joined) == 0 &&
                    (best == SIZE_MAX || cost < best_cost)) {
                    best = i;
                    best_cost = cost;
                }
            }
        }
        if (best == SIZE_MAX) {
            return n;
        }
        struct part right = parts[best + 1];
        size_t n_left = strlen(parts[best].text);
        snprintf(parts[best].text + n_left, sizeof right - n_left, "%.63s", right.text);
        memmove(&parts[best + 1], &parts[best + 2], (n - best - 2) * sizeof parts[0]);
        n--;
    }
}

static void compare_with_plain(struct cr_rng *rng, const struct cr_test_tokenizer *t, bool spm)
{
    static struct part parts[80];
    char text[64];
    size_t n = cr_rng_below(rng, 28);
    for (size_t i = 0; i < n; i++) {
        text[i] = (char)('a' + cr_rng_below(rng, 3));
        parts[i] = (struct part){{text[i], 0}};
    }
    size_t n_parts = join_plainly(parts, n, &vocab, spm);
    char want[512] = "";
    for (size_t i = 0, used = 0; i < n_parts; i++) {
        used += (size_t)snprintf(want + used, sizeof want - used, i == 0 ? "%d" : " %d",
                                 cr_tokenizer_find(t->tok, parts[i].text, strlen(parts[i].text)));
    }
    ck_assert_str_eq(cr_test_ids(t->tok, text, n, 0), want);
}

START_TEST(heap_merging_equals_plain_merging)
{
    const bool spm = _i % 2 != 0;
    struct cr_rng rng = cr_rng_make(100 + (uint64_t)_i);
    if (spm) {
        cr_vocab_spm(&vocab);
        vocab.add_space_prefix = 0;
    } else {
        cr_vocab_bpe(&vocab, "gpt-2");
    }
    char pieces[64][64] = {"a", "b", "c"};
    size_t n_pieces = 3;
    for (size_t i = 0; spm && i < 3; i++) {
        cr_vocab_add(&vocab, pieces[i], 1, -50);
    }
    while (n_pieces < 40) {
        const char *left = pieces[cr_rng_below(&rng, (uint32_t)n_pieces)];
        const char *right = pieces[cr_rng_below(&rng, (uint32_t)n_pieces)];
        if (strlen(left) + strlen(right) > 8) {
            continue;
        }
        snprintf(pieces[n_pieces], sizeof pieces[0], "%.31s%.31s", left, right);
        if (!spm) {
            cr_vocab_merge(&vocab, left, right);
        } else {
            bool known = false;
            for (size_t i = 0; i < n_pieces; i++) {
                known = known || strcmp(pieces[i], pieces[n_pieces]) == 0;
            }
            if (!known) { /* few distinct scores, so that ties occur */
                cr_vocab_add(&vocab, pieces[n_pieces], 1, -(float)cr_rng_below(&rng, 6));
            }
        }
        n_pieces++;
    }
    struct cr_test_tokenizer t;
    cr_test_open(&t, &vocab);
    for (int round = 0; round < 150; round++) {
        compare_with_plain(&rng, &t, spm);
    }
    cr_test_close(&t);
}
END_TEST

/* Every byte string comes back from its tokens when the vocabulary has all bytes. */
START_TEST(random_bytes_round_trip)
{
    struct cr_rng rng = cr_rng_make(7);
    cr_vocab_bpe(&vocab, "llama-bpe");
    cr_vocab_merge(&vocab, "e", "t");
    cr_vocab_add(&vocab, "<s>", 4, 0);
    struct cr_test_tokenizer t;
    cr_test_open(&t, &vocab);
    for (int round = 0; round < 500; round++) {
        char text[200], spelled[200];
        size_t n = cr_rng_below(&rng, 200), n_spelled = 0, dropped = 0;
        for (size_t i = 0; i < n; i++) {
            text[i] =
                round % 2 == 0 ? (char)cr_rng_below(&rng, 256) : "et <s>\xC3\xA9\xE2\x80\x8A"[cr_rng_below(&rng, 11)];
        }
        struct cr_ids ids = {0};
        ck_assert_int_eq(cr_tokenize(t.tok, text, n, CR_TOK_SPECIAL, &ids, &dropped, NULL), CR_OK);
        for (size_t i = 0; i < ids.n; i++) {
            ck_assert(ids.ids[i] >= 0 && (size_t)ids.ids[i] < cr_tokenizer_n_vocab(t.tok));
            n_spelled += cr_tokenizer_decode(t.tok, ids.ids[i], spelled + n_spelled, sizeof spelled - n_spelled);
        }
        ck_assert_uint_eq(n_spelled, n);
        ck_assert_mem_eq(spelled, text, n);
        ck_assert_uint_eq(dropped, 0);
        cr_ids_deinit(&ids);
    }
    cr_test_close(&t);
}
END_TEST

/* A million equal characters, also where runs of them are special tokens of every length. */
START_TEST(long_words_take_little_time)
{
    const size_t n = 1000000;
    char *text = malloc(n + 1);
    char run[256];
    cr_vocab_spm(&vocab);
    cr_vocab_add(&vocab, "a", 1, -4);
    cr_vocab_add(&vocab, "aa", 1, -3);
    cr_vocab_add(&vocab, "aaaa", 1, -2);
    cr_vocab_add(&vocab, "aaaaaaaa", 1, -1);
    for (size_t length = 1; length < 32; length++) { /* as Gemma's vocabulary has them */
        memset(run, '\n', length);
        run[length] = '\0';
        cr_vocab_add(&vocab, run, 4, 0);
    }
    struct cr_test_tokenizer t;
    cr_test_open(&t, &vocab);
    const struct {
        char c;
        size_t n_ids;
    } texts[] = {{'a', 1 + n / 8}, {'\n', n / 31 + 1}, {'x', n + 1}, {' ', 3 * (n + 1)}};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct cr_ids ids = {0};
        memset(text, texts[i].c, n);
        clock_t start = clock();
        ck_assert_int_eq(cr_tokenize(t.tok, text, n, 0, &ids, NULL, NULL), CR_OK);
        double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
        printf("1000000 x 0x%02X: %zu ids, %.3f s\n", texts[i].c, ids.n, seconds);
        ck_assert_msg(seconds <= CR_TEST_SLOWNESS * 2.0, "0x%02X: %.3f s", texts[i].c, seconds);
        /* The mark in front of the text needs three byte tokens here. */
        ck_assert_uint_eq(ids.n, texts[i].c == 'a' || texts[i].c == 'x' ? texts[i].n_ids + 2 : texts[i].n_ids);
        cr_ids_deinit(&ids);
    }
    cr_test_close(&t);
    free(text);
}
END_TEST

struct reader {
    const struct cr_tokenizer *tok;
    struct cr_ids ids;
    cr_status status;
};

static const char shared_text[] = "a bab <s> 12 caf\xC3\xA9 \xFF abababab ";

static void *read_often(void *arg)
{
    struct reader *reader = arg;
    for (int i = 0; i < 200 && reader->status == CR_OK; i++) {
        reader->ids.n = 0;
        reader->status = cr_tokenize(reader->tok, shared_text, sizeof shared_text - 1, CR_TOK_SPECIAL | CR_TOK_NFC,
                                     &reader->ids, NULL, NULL);
    }
    return NULL;
}

START_TEST(threads_share_a_tokenizer)
{
    cr_vocab_bpe(&vocab, "llama-bpe");
    cr_vocab_merge(&vocab, "a", "b");
    cr_vocab_merge(&vocab, "ab", "ab");
    cr_vocab_add(&vocab, "<s>", 3, 0);
    struct cr_test_tokenizer t;
    cr_test_open(&t, &vocab);
    struct reader readers[4];
    pthread_t threads[4];
    memset(readers, 0, sizeof readers);
    for (int i = 0; i < 4; i++) {
        readers[i].tok = t.tok;
        ck_assert_int_eq(pthread_create(&threads[i], NULL, read_often, &readers[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        ck_assert_int_eq(readers[i].status, CR_OK);
        ck_assert_uint_gt(readers[i].ids.n, 10);
        ck_assert_uint_eq(readers[i].ids.n, readers[0].ids.n);
        ck_assert_mem_eq(readers[i].ids.ids, readers[0].ids.ids, readers[0].ids.n * sizeof(int32_t));
    }
    for (int i = 0; i < 4; i++) {
        cr_ids_deinit(&readers[i].ids);
    }
    cr_test_close(&t);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("tokenizer");
    TCase *tests = tcase_create("tiny vocabularies");
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, bpe_joins_lowest_rank_first);
    tcase_add_test(tests, bpe_takes_any_bytes);
    tcase_add_test(tests, bpe_counts_bytes_without_token);
    tcase_add_test(tests, whole_words_before_merges);
    tcase_add_test(tests, special_tokens);
    tcase_add_test(tests, normal_form_c_on_request);
    tcase_add_test(tests, spm_joins_highest_score_first);
    tcase_add_test(tests, spm_unknown_token_for_missing_bytes);
    tcase_add_test(tests, types_may_be_absent);
    tcase_add_loop_test(tests, heap_merging_equals_plain_merging, 0, 8);
    tcase_add_test(tests, random_bytes_round_trip);
    tcase_add_test(tests, long_words_take_little_time);
    tcase_add_test(tests, threads_share_a_tokenizer);
    suite_add_tcase(suite, tests);
    return cr_run_suite(suite);
}
