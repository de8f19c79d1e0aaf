/* Fast merging against a plain one, random bytes there and back, the time of long words, threads that share a
 * tokenizer. */
#include <check.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "tests/support/io_test.h"
#include "tests/support/kernel_test.h"
#include "tests/support/vocab_test.h"

static struct cr_test_vocab vocab;

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

static struct cr_test_tokenizer runs;
static void tokenize_run(const struct cr_buf *text)
{
    struct cr_ids ids = {0};
    size_t n = text->n;
    size_t want = text->data[0] == 'a'    ? n / 8 + 3 /* the mark in front takes three byte tokens here */
                  : text->data[0] == '\n' ? n / 31 + (n % 31 != 0)
                  : text->data[0] == 'x'  ? n + 3
                                          : 3 * (n + 1);
    ck_assert_int_eq(cr_tokenize(runs.tok, text->data, n, 0, &ids, NULL, NULL), CR_OK);
    ck_assert_uint_eq(ids.n, want);
    cr_ids_deinit(&ids);
}

/* Half a million equal characters, also where runs of them are special tokens of every length. */
START_TEST(long_words_take_linear_time)
{
    static const char characters[] = {'a', '\n', 'x', ' '};
    char run[32];
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
    cr_test_open(&runs, &vocab);
    for (size_t i = 0; i < sizeof characters; i++) {
        cr_expect_linear_run("a word", characters[i], 16384, tokenize_run);
    }
    cr_test_close(&runs);
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
    Suite *suite = suite_create("tokenizer merge");
    TCase *tests = tcase_create("tokenizer merge");
    tcase_set_timeout(tests, 60);
    tcase_add_loop_test(tests, heap_merging_equals_plain_merging, 0, 8);
    tcase_add_test(tests, random_bytes_round_trip);
    tcase_add_test(tests, long_words_take_linear_time);
    tcase_add_test(tests, threads_share_a_tokenizer);
    suite_add_tcase(suite, tests);
    return cr_run_suite(suite);
}
