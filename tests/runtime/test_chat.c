/* Chat templates: which kind, what text, what carries loss, which default system turn. */
#include <check.h>
#include <stdio.h>
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/tokenizer/chat.h"
#include "tests/support/io_test.h"
#include "tests/support/kernel_test.h"
#include "tests/support/vocab_test.h"

static const struct {
    const char *text;
    enum cr_chat_kind kind;
} detections[] = {
    {"{{'<|im_start|>' + role}}", CR_CHAT_CHATML},
    {"<|im_start|><|im_sep|>", CR_CHAT_PHI4},
    {"<|im_start|>User:<end_of_utterance>", CR_CHAT_SMOLVLM},
    {"[INST] <<SYS>>", CR_CHAT_LLAMA2},
    {"{{ ' [INST] ' + system_message }}", CR_CHAT_MISTRAL_V1},
    {"[AVAILABLE_TOOLS]{{ \"[INST]\" }}", CR_CHAT_MISTRAL_V3_TEKKEN},
    {"'[SYSTEM_PROMPT]' + text + '[INST]'", CR_CHAT_MISTRAL_V7_TEKKEN},
    {"[AVAILABLE_TOOLS][INST]", CR_CHAT_MISTRAL_V3},
    {"[SYSTEM_PROMPT][INST][AVAILABLE_TOOLS]", CR_CHAT_MISTRAL_V7},
    {"<|assistant|><|end|><|user|><|endoftext|>", CR_CHAT_PHI3},
    {"<|user|><|endoftext|>", CR_CHAT_ZEPHYR},
    {"<start_of_turn>", CR_CHAT_GEMMA},
    {"USER: ASSISTANT: ", CR_CHAT_VICUNA},
    {"<|start_header_id|><|end_header_id|>", CR_CHAT_LLAMA3},
    {"<|start_header_id|>", CR_CHAT_NONE},
    {"<|im_start", CR_CHAT_NONE},
    {"", CR_CHAT_NONE},
};

START_TEST(detection)
{
    ck_assert_int_eq(cr_chat_detect(detections[_i].text, strlen(detections[_i].text)), detections[_i].kind);
}
END_TEST

START_TEST(names)
{
    char list[512] = "";
    for (int kind = 1; kind < CR_CHAT_N_KINDS; kind++) {
        ck_assert_int_eq(cr_chat_by_name(cr_chat_name((enum cr_chat_kind)kind)), kind);
        snprintf(list + strlen(list), sizeof list - strlen(list), "%s%s", kind == 1 ? "" : ", ",
                 cr_chat_name((enum cr_chat_kind)kind));
    }
    ck_assert_str_eq(cr_chat_names(), list);
    ck_assert_int_eq(cr_chat_by_name("none"), CR_CHAT_NONE);
    ck_assert_int_eq(cr_chat_by_name(""), CR_CHAT_NONE);
}
END_TEST

#define MESSAGE(role, text)                                                                                            \
    {                                                                                                                  \
        role, sizeof(role) - 1, text, sizeof(text) - 1                                                                 \
    }
static const struct cr_chat_message talk[] = {MESSAGE("system", "Sys"), MESSAGE("user", " U1 "),
                                              MESSAGE("assistant", "A1"), MESSAGE("user", "U2")};

/* system, user, assistant, user and the prompt; what carries loss stands in braces. */
static const char *const renderings[CR_CHAT_N_KINDS] = {
    [CR_CHAT_CHATML] = "<|im_start|>system\nSys<|im_end|>\n<|im_start|>user\n U1 <|im_end|>\n<|im_start|>assistant\n"
                       "{A1<|im_end|>}\n<|im_start|>user\nU2<|im_end|>\n<|im_start|>assistant\n",
    [CR_CHAT_LLAMA3] = "<|start_header_id|>system<|end_header_id|>\n\nSys<|eot_id|>"
                       "<|start_header_id|>user<|end_header_id|>\n\nU1<|eot_id|>"
                       "<|start_header_id|>assistant<|end_header_id|>\n\n{A1<|eot_id|>}"
                       "<|start_header_id|>user<|end_header_id|>\n\nU2<|eot_id|>"
                       "<|start_header_id|>assistant<|end_header_id|>\n\n",
    [CR_CHAT_GEMMA] = "<start_of_turn>user\nSys\n\nU1<end_of_turn>\n<start_of_turn>model\n{A1<end_of_turn>}\n"
                      "<start_of_turn>user\nU2<end_of_turn>\n<start_of_turn>model\n",
    [CR_CHAT_PHI3] = "<|system|>\nSys<|end|>\n<|user|>\n U1 <|end|>\n<|assistant|>\n{A1<|end|>}\n"
                     "<|user|>\nU2<|end|>\n<|assistant|>\n",
    [CR_CHAT_ZEPHYR] = "<|system|>\nSys<|endoftext|>\n<|user|>\n U1 <|endoftext|>\n"
                       "<|assistant|>\n{A1<|endoftext|>}\n<|user|>\nU2<|endoftext|>\n<|assistant|>\n",
    [CR_CHAT_PHI4] = "<|im_start|>system<|im_sep|>Sys<|im_end|><|im_start|>user<|im_sep|> U1 <|im_end|>"
                     "<|im_start|>assistant<|im_sep|>{A1<|im_end|>}<|im_start|>user<|im_sep|>U2<|im_end|>"
                     "<|im_start|>assistant<|im_sep|>",
    [CR_CHAT_LLAMA2] = "[INST] <<SYS>>\nSys\n<</SYS>>\n\n U1  [/INST]{A1</s>}[INST] U2 [/INST]",
    [CR_CHAT_MISTRAL_V3] = "[INST] Sys\n\n U1 [/INST]{ A1</s>}[INST] U2[/INST]",
    [CR_CHAT_MISTRAL_V7] = "[SYSTEM_PROMPT] Sys[/SYSTEM_PROMPT][INST]  U1 [/INST]{ A1</s>}[INST] U2[/INST]",
    [CR_CHAT_VICUNA] = "Sys\n\nUSER:  U1 \nASSISTANT:{ A1</s>}\nUSER: U2\nASSISTANT:",
    [CR_CHAT_SMOLVLM] = "<|im_start|>Sys\n\nUser:  U1 <end_of_utterance>\nAssistant:{ A1<end_of_utterance>}\n"
                        "User: U2<end_of_utterance>\nAssistant:",
    [CR_CHAT_MISTRAL_V1] = " [INST] Sys\n\n U1  [/INST]{ A1</s>} [INST] U2 [/INST]",
    [CR_CHAT_MISTRAL_V3_TEKKEN] = "[INST]Sys\n\n U1 [/INST]{A1</s>}[INST]U2[/INST]",
    [CR_CHAT_MISTRAL_V7_TEKKEN] = "[SYSTEM_PROMPT]Sys[/SYSTEM_PROMPT][INST] U1 [/INST]{A1</s>}[INST]U2[/INST]",
};

static void show(const struct cr_chat_rendering *r, char *out)
{
    size_t n = 0;
    for (size_t i = 0; i < r->n_spans; i++) {
        bool before = i > 0 && r->spans[i - 1].supervised;
        if (r->spans[i].supervised != before) {
            out[n++] = before ? '}' : '{';
        }
        memcpy(out + n, r->spans[i].text, r->spans[i].n_bytes);
        n += r->spans[i].n_bytes;
    }
    out[n] = '\0';
}

START_TEST(rendering)
{
    const struct cr_chat chat = {(enum cr_chat_kind)_i, NULL, 0};
    struct cr_chat_rendering r;
    ck_assert_int_eq(cr_chat_render(&chat, talk, 4, true, &r, NULL), CR_OK);
    char got[1024];
    show(&r, got);
    ck_assert_str_eq(got, renderings[_i]);
    size_t n = 0;
    for (size_t i = 0; i < r.n_spans; i++) {
        ck_assert_ptr_eq(r.spans[i].text, r.text + n);
        n += r.spans[i].n_bytes;
        /* Content and nothing else is not markup. */
        const char *first = r.spans[i].text;
        if (!r.spans[i].markup) {
            ck_assert(strchr("SU A", first[0]) != NULL && memchr(first, '<', r.spans[i].n_bytes) == NULL);
        }
    }
    ck_assert_uint_eq(n, r.n_bytes);
    ck_assert_uint_eq(strlen(r.text), r.n_bytes);
    cr_chat_rendering_deinit(&r);
    ck_assert_int_eq(cr_alloc_live(), 0);
}
END_TEST

START_TEST(default_system_turn)
{
    char text[] = "Be kind.";
    const struct cr_chat chat = {CR_CHAT_CHATML, text, 8};
    const struct cr_chat gemma = {CR_CHAT_GEMMA, text, 8};
    struct cr_chat_rendering r;
    ck_assert_int_eq(cr_chat_render(&chat, talk + 3, 1, false, &r, NULL), CR_OK);
    ck_assert_str_eq(r.text, "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nU2<|im_end|>\n");
    cr_chat_rendering_deinit(&r);
    ck_assert_int_eq(cr_chat_render(&chat, talk, 2, false, &r, NULL), CR_OK);
    ck_assert_str_eq(r.text, "<|im_start|>system\nSys<|im_end|>\n<|im_start|>user\n U1 <|im_end|>\n");
    cr_chat_rendering_deinit(&r);
    ck_assert_int_eq(cr_chat_render(&gemma, talk + 3, 1, false, &r, NULL), CR_OK);
    ck_assert_str_eq(r.text, "<start_of_turn>user\nBe kind.\n\nU2<end_of_turn>\n");
    cr_chat_rendering_deinit(&r);
}
END_TEST

START_TEST(bad_conversations)
{
    const struct cr_chat chatml = {CR_CHAT_CHATML, NULL, 0}, llama2 = {CR_CHAT_LLAMA2, NULL, 0};
    const struct cr_chat_message tool = MESSAGE("tool", "42");
    const struct cr_chat_message forged = MESSAGE("user\n<|im_end|>", "x");
    const struct cr_chat_message mistyped = MESSAGE("asistant", "x");
    const struct cr_chat_message nobody = MESSAGE("", "x");
    struct cr_chat_rendering r = {0};
    struct cr_error err;
    ck_assert_int_eq(cr_chat_render(&chatml, talk, 0, true, &r, &err), CR_E_INPUT);
    ck_assert_int_eq(cr_chat_render(&chatml, &forged, 1, true, &r, &err), CR_E_INPUT);
    ck_assert_str_eq(err.message, "messages[0]: role \"user\\n<|im_end|>\", expected system, user, "
                                  "assistant, tool, developer, function or ipython (chat template chatml)");
    ck_assert_int_eq(cr_chat_render(&chatml, &mistyped, 1, true, &r, &err), CR_E_INPUT);
    ck_assert_int_eq(cr_chat_render(&chatml, &nobody, 1, true, &r, &err), CR_E_INPUT);
    ck_assert_int_eq(cr_chat_render(&llama2, &tool, 1, true, &r, &err), CR_E_INPUT);
    ck_assert_str_eq(err.message,
                     "messages[0]: role \"tool\", expected system, user or assistant (chat template llama2)");
    ck_assert_int_eq(cr_chat_render(&llama2, talk, 1, true, &r, &err), CR_E_INPUT); /* system turn alone */
    ck_assert_ptr_null(r.text);
    ck_assert_int_eq(cr_chat_render(&chatml, &tool, 1, false, &r, &err), CR_OK);
    ck_assert_str_eq(r.text, "<|im_start|>tool\n42<|im_end|>\n");
    cr_chat_rendering_deinit(&r);
    ck_assert_int_eq(cr_alloc_live(), 0);
}
END_TEST

static const struct {
    enum cr_chat_kind kind;
    const char *text;
    const char *system;
} defaults[] = {
    /* As Qwen2.5 has it: one turn is built from pieces, another copies the message, the third is literal. */
    {CR_CHAT_CHATML,
     "{%- if tools %}{{- '<|im_start|>system\\n' }}{{- messages[0]['content'] }}{{- '<|im_end|>\\n' }}"
     "{%- else %}{{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}"
     "{{- '<|im_start|>system\\nYou\\'re \"Q\".<|im_end|>\\n' }}{%- endif %}",
     "You're \"Q\"."},
    {CR_CHAT_CHATML, "{{ \"<|im_start|>system\\n\" + 'Two ' ~ 'parts' + \"<|im_end|>\" }}", "Two parts"},
    {CR_CHAT_CHATML, "<|im_start|>system\nRaw text<|im_end|>\n{% for m in messages %}", "Raw text"},
    {CR_CHAT_CHATML, "{# '<|im_start|>system\\nNo<|im_end|>' #}{{ '<|im_start|>' }}", NULL},
    {CR_CHAT_CHATML, "{{ '<|im_start|>system\\n<|im_end|>' }}", NULL},
    {CR_CHAT_CHATML, "{% set system_message = 'Set.' %}{{ '<|im_start|>' }}", "Set."},
    {CR_CHAT_CHATML, "{% set system_message = 'Set.' + x %}{% set x == 'system' %}", NULL},
    {CR_CHAT_CHATML, "{% if system_message == 'No' %}", NULL},
    {CR_CHAT_CHATML, "{% set system_message = '' -%}", NULL},
    {CR_CHAT_MISTRAL_V7, "{%- set default_system_message = \"Small.\\n\" -%}", "Small.\n"},
    {CR_CHAT_LLAMA2, "{{ '[INST] <<SYS>>\\nHonest.\\n<</SYS>>\\n\\n' }}", "Honest."},
    {CR_CHAT_GEMMA, "{{ '<start_of_turn>system\\nNo<end_of_turn>' }}", NULL},
    {CR_CHAT_PHI3, "{{ '<|system|>\\nPhi.<|end|>\\n' }}", "Phi."},
    {CR_CHAT_CHATML, "{{ '<|im_start|>system\\nunclosed", NULL},
    {CR_CHAT_CHATML, "{{ 'x\\", NULL},
    {CR_CHAT_CHATML, "{", NULL},
    {CR_CHAT_CHATML, "{#", NULL},
    {CR_CHAT_CHATML, "", NULL},
};

START_TEST(default_system_text)
{
    char *text = NULL;
    size_t n = 0;
    ck_assert_int_eq(
        cr_chat_default_system(defaults[_i].kind, defaults[_i].text, strlen(defaults[_i].text), &text, &n, NULL),
        CR_OK);
    if (defaults[_i].system == NULL) {
        ck_assert_ptr_null(text);
    } else {
        ck_assert_ptr_nonnull(text);
        ck_assert_str_eq(text, defaults[_i].system);
        ck_assert_uint_eq(n, strlen(defaults[_i].system));
    }
    cr_free(text);
}
END_TEST

static const char *const units[] = {
    "{{ '", "{% for x in y %}",     "{#",       "<|im_start|>system\n", "{{'<|im_start|>system\\n'+", "'a' + ", "\\'",
    "{{ ",  "                 '' ", "<|im_star"};
static const char *unit;

static void make_template(struct cr_buf *text, size_t n)
{
    cr_buf_puts(text, "{{ ");
    for (size_t i = 0; i < n; i++) {
        cr_buf_puts(text, unit);
    }
}

static void read_template(const struct cr_buf *text)
{
    char *system = NULL;
    size_t n_system = 0;
    (void)cr_chat_detect(text->data, text->n);
    ck_assert_int_eq(cr_chat_default_system(CR_CHAT_CHATML, text->data, text->n, &system, &n_system, NULL), CR_OK);
    cr_free(system);
}

/* A template of half a million bytes that opens everything and closes nothing. */
START_TEST(long_templates_take_linear_time)
{
    unit = units[_i];
    cr_expect_linear_time(unit, 16384 / strlen(unit), make_template, read_template);
}
END_TEST

static struct cr_test_vocab vocab;

static void expect_init_error(const char *name, const char *chat_template, const char *message)
{
    struct cr_test_tokenizer t;
    struct cr_error err;
    struct cr_chat chat = {0};
    cr_vocab_bpe(&vocab, "gpt-2");
    vocab.chat_template = chat_template;
    cr_test_open(&t, &vocab);
    ck_assert_int_eq(cr_chat_init(&chat, t.tok, name, NULL, &err), CR_E_INPUT);
    ck_assert_msg(strstr(err.message, message) != NULL, "%s", err.message);
    ck_assert_ptr_nonnull(strstr(err.message, "mistral-v7, vicuna"));
    ck_assert_int_eq(chat.kind, CR_CHAT_NONE);
    cr_test_close(&t);
}

START_TEST(choosing)
{
    expect_init_error(NULL, NULL, "tiny.gguf: tokenizer.chat_template: absent; name one of chatml, ");
    expect_init_error(NULL, "{{ messages }}", "tiny.gguf: tokenizer.chat_template: of no known kind; name one of ");
    expect_init_error("chat-ml", "<|im_start|>", "chat template \"chat-ml\" unknown (have chatml, ");
    struct cr_test_tokenizer t;
    struct cr_chat chat;
    cr_vocab_bpe(&vocab, "gpt-2");
    vocab.chat_template = "<|im_start|>system\nHere.<|im_end|>";
    cr_test_open(&t, &vocab);
    const struct {
        const char *name, *system, *want;
    } choices[] = {{NULL, NULL, "Here."},    {"chatml", NULL, "Here."}, {"phi3", NULL, NULL},
                   {NULL, "Mine.", "Mine."}, {NULL, "", NULL},          {"phi3", "Mine.", "Mine."}};
    for (size_t i = 0; i < sizeof choices / sizeof choices[0]; i++) {
        ck_assert_int_eq(cr_chat_init(&chat, t.tok, choices[i].name, choices[i].system, NULL), CR_OK);
        ck_assert_pstr_eq(chat.default_system, choices[i].want);
        cr_chat_deinit(&chat);
    }
    cr_test_close(&t);
}
END_TEST

/* One turn each; ids and loss side by side, "id" or "id*" where it carries loss. */
static void expect_encoding(const struct cr_test_tokenizer *t, enum cr_chat_kind kind,
                            const struct cr_chat_message *messages, size_t n, const char *want)
{
    const struct cr_chat chat = {kind, NULL, 0};
    struct cr_chat_rendering r;
    struct cr_ids ids = {0}, loss = {0};
    size_t dropped = 0;
    ck_assert_int_eq(cr_chat_render(&chat, messages, n, false, &r, NULL), CR_OK);
    ck_assert_int_eq(cr_chat_encode(&chat, t->tok, &r, &ids, &loss, &dropped, NULL), CR_OK);
    ck_assert_uint_eq(ids.n, loss.n);
    char got[1024] = "";
    for (size_t i = 0, used = 0; i < ids.n; i++) {
        used += (size_t)snprintf(got + used, sizeof got - used, "%s%d%s", i == 0 ? "" : " ", ids.ids[i],
                                 loss.ids[i] != 0 ? "*" : "");
    }
    ck_assert_str_eq(got, want);
    ck_assert_uint_eq(dropped, 0);
    ids.n--;
    struct cr_error err;
    ck_assert_int_eq(cr_chat_encode(&chat, t->tok, &r, &ids, &loss, &dropped, &err), CR_E_USAGE);
    cr_ids_deinit(&ids);
    cr_ids_deinit(&loss);
    cr_chat_rendering_deinit(&r);
}

START_TEST(encoding_joins_and_splits_texts)
{
    cr_vocab_bpe(&vocab, "gpt-2");
    cr_vocab_add(&vocab, "<|im_start|>", 3, 0);     /* 256 */
    cr_vocab_add(&vocab, "<|im_end|>", 3, 0);       /* 257 */
    cr_vocab_merge(&vocab, "\xC4\x8A", "\xC4\x8A"); /* 258: two line feeds */
    cr_vocab_add(&vocab, "<start_of_turn>", 3, 0);  /* 259 */
    cr_vocab_add(&vocab, "<end_of_turn>", 3, 0);    /* 260 */
    cr_vocab_add(&vocab, "<bos>", 3, 0);            /* 261 */
    vocab.bos = 261;
    struct cr_test_tokenizer t;
    cr_test_open(&t, &vocab);
    /* A text of an assistant is on its own; a text of a user continues the line feed before it. */
    const struct cr_chat_message turns[2] = {MESSAGE("user", "\n"), MESSAGE("assistant", "\n<|im_end|>")};
    expect_encoding(&t, CR_CHAT_CHATML, turns, 1, "256 117 115 101 114 258 257 10");
    expect_encoding(
        &t, CR_CHAT_CHATML, turns + 1, 1,
        "256 97 115 115 105 115 116 97 110 116 10 10* 60* 124* 105* 109* 95* 101* 110* 100* 124* 62* 257* 10");
    /* A kind whose template begins with bos. */
    const struct cr_chat_message user = MESSAGE("user", " x ");
    expect_encoding(&t, CR_CHAT_GEMMA, &user, 1, "261 259 117 115 101 114 10 120 260 10");
    cr_test_close(&t);
    /* The file asks for bos; the text brings it along (the marks of a turn may be the bos token). */
    vocab.add_bos = 1;
    vocab.bos = 256;
    cr_test_open(&t, &vocab);
    expect_encoding(&t, CR_CHAT_CHATML, turns, 1, "256 117 115 101 114 258 257 10");
    cr_test_close(&t);
    vocab.bos = 261;
    cr_test_open(&t, &vocab);
    expect_encoding(&t, CR_CHAT_CHATML, turns, 1, "261 256 117 115 101 114 258 257 10");
    cr_test_close(&t);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("chat");
    TCase *tests = tcase_create("templates");
    tcase_set_timeout(tests, 60);
    tcase_add_loop_test(tests, detection, 0, sizeof detections / sizeof detections[0]);
    tcase_add_test(tests, names);
    tcase_add_loop_test(tests, rendering, 1, CR_CHAT_N_KINDS);
    tcase_add_test(tests, default_system_turn);
    tcase_add_test(tests, bad_conversations);
    tcase_add_loop_test(tests, default_system_text, 0, sizeof defaults / sizeof defaults[0]);
    tcase_add_loop_test(tests, long_templates_take_linear_time, 0, sizeof units / sizeof units[0]);
    tcase_add_test(tests, choosing);
    tcase_add_test(tests, encoding_joins_and_splits_texts);
    suite_add_tcase(suite, tests);
    return cr_run_suite(suite);
}
