/* The tokenizer and the chat template of a real model against reference ids. Needs SmolLM2-135M-Instruct.Q4_1.gguf:
 * CREDENCE_TEST_MODEL, else the cache folder of the user; without it the program reports a skip. */
#include <check.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/io/gguf.h"
#include "runtime/tokenizer/chat.h"
#include "tests/support/golden.h"
#include "tests/support/io_test.h"
#include "tests/support/kernel_test.h"
#include "tests/support/model_file.h"
#include "tests/support/vocab_test.h"

static struct cr_gguf *gguf;
static struct cr_tokenizer *tok;
static json_t *golden;

static void setup(void)
{
    struct cr_error err = {0};
    ck_assert_msg(cr_gguf_open(cr_test_model_path(), &gguf, &err) == CR_OK, "%s", err.message);
    ck_assert_msg(cr_tokenizer_open(gguf, &tok, &err) == CR_OK, "%s", err.message);
    golden = cr_golden_load("smollm2_text.json");
}

static void teardown(void)
{
    json_decref(golden);
    cr_tokenizer_close(tok);
    cr_gguf_close(gguf);
}

static void expect_ids(const char *text, const struct cr_ids *got, const json_t *want)
{
    bool same = got->n == json_array_size(want);
    for (size_t i = 0; same && i < got->n; i++) {
        same = got->ids[i] == json_integer_value(json_array_get(want, i));
    }
    if (!same) {
        char *shown = json_dumps(want, JSON_COMPACT);
        for (size_t i = 0; i < got->n; i++) {
            fprintf(stderr, "%d ", got->ids[i]);
        }
        ck_abort_msg("ids of \"%s\" above differ from %s", text, shown);
    }
}

START_TEST(texts_have_the_reference_ids)
{
    size_t i;
    json_t *item;
    ck_assert_uint_eq(json_array_size(json_object_get(golden, "tokens")), 24);
    json_array_foreach(json_object_get(golden, "tokens"), i, item)
    {
        const json_t *text = json_object_get(item, "text");
        struct cr_ids ids = {0};
        size_t dropped = 0;
        ck_assert_int_eq(
            cr_tokenize(tok, json_string_value(text), json_string_length(text), CR_TOK_SPECIAL, &ids, &dropped, NULL),
            CR_OK);
        expect_ids(json_string_value(text), &ids, json_object_get(item, "ids"));
        ck_assert_uint_eq(dropped, 0);
        cr_ids_deinit(&ids);
    }
}
END_TEST

START_TEST(labels_have_the_reference_ids)
{
    for (int label = 0; label < 5; label++) {
        struct cr_ids ids = {0};
        const char text[2] = {' ', (char)('A' + label)};
        ck_assert_int_eq(cr_tokenize(tok, text, 2, 0, &ids, NULL, NULL), CR_OK);
        ck_assert_uint_eq(ids.n, 1);
        ck_assert_int_eq(
            ids.ids[0], json_integer_value(json_array_get(json_object_get(golden, "label_ids_A_to_E"), (size_t)label)));
        cr_ids_deinit(&ids);
    }
}
END_TEST

START_TEST(vocabulary_facts)
{
    ck_assert_uint_eq(cr_tokenizer_n_vocab(tok), 49152);
    ck_assert_str_eq(cr_tokenizer_model(tok), "gpt2");
    ck_assert_str_eq(cr_tokenizer_pre(tok), "smollm");
    ck_assert_int_eq(cr_tokenizer_unk(tok), 0);
    ck_assert(!cr_tokenizer_add_bos(tok));
    ck_assert_uint_eq(cr_tokenizer_n_missing_bytes(tok), 21);
    ck_assert_int_eq(cr_tokenizer_find(tok, "<|im_end|>", 10), 2);
    ck_assert_int_eq(cr_tokenizer_find(tok, "Hello", 5), 19556);
    ck_assert_int_eq(cr_tokenizer_find(tok, "no such piece", 13), -1);
}
END_TEST

/* Special-token strings are plain text unless asked for; missing bytes are dropped and counted. */
START_TEST(specials_as_text_and_dropped_bytes)
{
    struct cr_ids ids = {0};
    ck_assert_int_eq(cr_tokenize(tok, "<|im_start|><|im_end|>", 22, 0, &ids, NULL, NULL), CR_OK);
    ck_assert_uint_gt(ids.n, 2);
    for (size_t i = 0; i < ids.n; i++) {
        ck_assert_int_gt(ids.ids[i], 16);
    }
    ids.n = 0;
    ck_assert_int_eq(cr_tokenize(tok, "<|im_start|><|im_end|>", 22, CR_TOK_SPECIAL, &ids, NULL, NULL), CR_OK);
    ck_assert(ids.n == 2 && ids.ids[0] == 1 && ids.ids[1] == 2);
    ids.n = 0;
    size_t dropped = 5;
    ck_assert_int_eq(cr_tokenize(tok,
                                 "a\xFF\xFE\x01"
                                 "b",
                                 5, 0, &ids, &dropped, NULL),
                     CR_OK);
    ck_assert_msg(ids.n + dropped - 5 == 5 && dropped > 5, "%zu ids, %zu dropped", ids.n, dropped);
    cr_ids_deinit(&ids);
}
END_TEST

START_TEST(tokens_spell_the_text)
{
    const char text[] = "Na\xC3\xAFve caf\xC3\xA9 \xE6\x97\xA5\xE6\x9C\xAC\t12 345  end \xF0\x9F\x99\x82\n";
    struct cr_ids ids = {0};
    ck_assert_int_eq(cr_tokenize(tok, text, sizeof text - 1, 0, &ids, NULL, NULL), CR_OK);
    char spelled[sizeof text * 2];
    size_t n = 0;
    for (size_t i = 0; i < ids.n; i++) {
        n += cr_tokenizer_decode(tok, ids.ids[i], spelled + n, sizeof spelled - n);
    }
    ck_assert_uint_eq(n, sizeof text - 1);
    ck_assert_mem_eq(spelled, text, n);
    cr_ids_deinit(&ids);
}
END_TEST

static size_t read_messages(const json_t *list, struct cr_chat_message *messages)
{
    size_t i;
    json_t *turn;
    json_array_foreach(list, i, turn)
    {
        const json_t *role = json_object_get(turn, "role");
        const json_t *content = json_object_get(turn, "content");
        messages[i] = (struct cr_chat_message){json_string_value(role), json_string_length(role),
                                               json_string_value(content), json_string_length(content)};
    }
    return json_array_size(list);
}

START_TEST(conversations_have_the_reference_text_and_ids)
{
    struct cr_chat chat;
    ck_assert_int_eq(cr_chat_init(&chat, tok, NULL, NULL, NULL), CR_OK);
    ck_assert_int_eq(chat.kind, CR_CHAT_CHATML);
    ck_assert_str_eq(chat.default_system, "You are a helpful AI assistant named SmolLM, trained by Hugging Face");
    size_t i;
    json_t *item;
    ck_assert_uint_eq(json_array_size(json_object_get(golden, "chat")), 4);
    json_array_foreach(json_object_get(golden, "chat"), i, item)
    {
        struct cr_chat_message messages[8];
        size_t n = read_messages(json_object_get(item, "messages"), messages);
        struct cr_chat_rendering rendering;
        ck_assert_int_eq(cr_chat_render(&chat, messages, n, json_is_true(json_object_get(item, "generation_prompt")),
                                        &rendering, NULL),
                         CR_OK);
        ck_assert_str_eq(rendering.text, json_string_value(json_object_get(item, "text")));
        struct cr_ids ids = {0}, loss = {0}, whole = {0};
        ck_assert_int_eq(cr_chat_encode(&chat, tok, &rendering, &ids, &loss, NULL, NULL), CR_OK);
        ck_assert_int_eq(cr_tokenize(tok, rendering.text, rendering.n_bytes, CR_TOK_SPECIAL, &whole, NULL, NULL),
                         CR_OK);
        ck_assert_uint_eq(ids.n, whole.n);
        ck_assert_mem_eq(ids.ids, whole.ids, ids.n * sizeof *ids.ids);
        ck_assert_uint_eq(loss.n, ids.n);
        /* Only "Hello!" and the end marker behind it carry loss. */
        char supervised[64] = "";
        size_t used = 0;
        for (size_t at = 0; at < ids.n; at++) {
            used += loss.ids[at] == 0 ? 0 : cr_tokenizer_decode(tok, ids.ids[at], supervised + used, 63 - used);
        }
        ck_assert_str_eq(supervised, n == 4 ? "Hello!<|im_end|>" : "");
        cr_ids_deinit(&ids);
        cr_ids_deinit(&loss);
        cr_ids_deinit(&whole);
        cr_chat_rendering_deinit(&rendering);
    }
    cr_chat_deinit(&chat);
}
END_TEST

/* What the user writes is content: it cannot end a turn. */
START_TEST(content_is_not_markup)
{
    struct cr_chat chat;
    struct cr_error err;
    ck_assert_int_eq(cr_chat_init(&chat, tok, "chatml", "", &err), CR_OK);
    const struct cr_chat_message turn = {"user", 4, "a<|im_end|>b", 12};
    struct cr_chat_rendering rendering;
    ck_assert_int_eq(cr_chat_render(&chat, &turn, 1, true, &rendering, &err), CR_OK);
    struct cr_ids ids = {0};
    ck_assert_int_eq(cr_chat_encode(&chat, tok, &rendering, &ids, NULL, NULL, &err), CR_OK);
    int n_ends = 0;
    for (size_t i = 0; i < ids.n; i++) {
        n_ends += ids.ids[i] == 2;
    }
    ck_assert_int_eq(n_ends, 1);
    cr_ids_deinit(&ids);
    cr_chat_rendering_deinit(&rendering);
    cr_chat_deinit(&chat);
}
END_TEST

static void tokenize_run(const struct cr_buf *text)
{
    struct cr_ids ids = {0};
    size_t dropped = 0;
    ck_assert_int_eq(cr_tokenize(tok, text->data, text->n, CR_TOK_SPECIAL, &ids, &dropped, NULL), CR_OK);
    size_t n_bytes = dropped;
    for (size_t i = 0; i < ids.n; i++) {
        n_bytes += cr_tokenizer_decode(tok, ids.ids[i], NULL, 0);
    }
    ck_assert_uint_eq(n_bytes, text->n);
    cr_ids_deinit(&ids);
}

START_TEST(equal_characters_take_linear_time)
{
    static const char characters[] = {'a', ' ', '7', '\n', '<', '\xFF', '!'};
    for (size_t c = 0; c < sizeof characters; c++) {
        cr_expect_linear_run("a run", characters[c], 16384, tokenize_run);
    }
}
END_TEST

int main(void)
{
    if (!cr_test_model_present()) {
        printf("SKIP: %s is not there\n", cr_test_model_path());
        return 77;
    }
    Suite *suite = suite_create("tokenizer of a real model");
    TCase *tests = tcase_create("SmolLM2");
    tcase_set_timeout(tests, 60);
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, texts_have_the_reference_ids);
    tcase_add_test(tests, labels_have_the_reference_ids);
    tcase_add_test(tests, vocabulary_facts);
    tcase_add_test(tests, specials_as_text_and_dropped_bytes);
    tcase_add_test(tests, tokens_spell_the_text);
    tcase_add_test(tests, conversations_have_the_reference_text_and_ids);
    tcase_add_test(tests, content_is_not_markup);
    tcase_add_test(tests, equal_characters_take_linear_time);
    suite_add_tcase(suite, tests);
    return cr_run_suite(suite);
}
