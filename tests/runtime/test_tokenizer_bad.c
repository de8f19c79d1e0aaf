/* Vocabularies that must be refused, or taken although unusual; allocation failures; changed bytes. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "credence/credence.h"
#include "runtime/core/alloc.h"
#include "runtime/tokenizer/chat.h"
#include "tests/support/kernel_test.h"
#include "tests/support/vocab_test.h"

static struct cr_test_vocab vocab;

enum change {
    MODEL_BERT,
    MODEL_ABSENT,
    PRE_UNKNOWN,
    MERGE_ONE_PART,
    MERGE_THREE_PARTS,
    MERGE_LEFT_UNKNOWN,
    MERGE_JOINED_UNKNOWN,
    TYPE_TOO_LARGE,
    TYPE_NEGATIVE,
    TYPES_TOO_FEW,
    TYPES_AS_FLOATS,
    BOS_BEYOND,
    EOS_BEYOND,
    PAD_BEYOND,
    ONE_TOKEN,
    NO_TOKENS,
    TOKENS_NOT_STRINGS,
    EMBEDDING_TOO_SHORT,
    SPECIAL_TOO_LONG,
    TEMPLATE_NOT_STRING,
    SPM_SCORES_ABSENT,
    SPM_SCORES_I32,
    SPM_SCORES_F64,
    SPM_SCORES_TOO_FEW,
    SPM_SCORE_NAN,
    SPM_BYTE_TOKEN_TEXT,
    SPM_BYTE_MISSING,
    N_CHANGES
};

static const char *const expected[N_CHANGES] = {
    [MODEL_BERT] = "tokenizer.ggml.model: \"bert\" unsupported (have gpt2, llama)",
    [MODEL_ABSENT] = "tokenizer.ggml.model",
    [PRE_UNKNOWN] = "tokenizer.ggml.pre: \"tekken\\x1b\" unsupported (have default, gpt-2, ",
    [MERGE_ONE_PART] = "tokenizer.ggml.merges[1]: \"ab\" is not two parts",
    [MERGE_THREE_PARTS] = "tokenizer.ggml.merges[1]: \"a b c\" is not two parts",
    [MERGE_LEFT_UNKNOWN] = "tokenizer.ggml.merges[1]: \"zz\" is not a token",
    [MERGE_JOINED_UNKNOWN] = "tokenizer.ggml.merges[1]: \"ac\" is not a token",
    [TYPE_TOO_LARGE] = "tokenizer.ggml.token_type[5]: 7, expected 0 to 6",
    [TYPE_NEGATIVE] = "tokenizer.ggml.token_type[5]: -1, expected 0 to 6",
    [TYPES_TOO_FEW] = "tokenizer.ggml.token_type: 2 entries, expected 257",
    [TYPES_AS_FLOATS] = "tokenizer.ggml.token_type",
    [BOS_BEYOND] = "tokenizer.ggml.bos_token_id: id 257, expected 0 to 256",
    [EOS_BEYOND] = "tokenizer.ggml.eos_token_id: id 4294967295, expected 0 to 256",
    [PAD_BEYOND] = "tokenizer.ggml.padding_token_id: id 257, expected 0 to 256",
    [ONE_TOKEN] = "tokenizer.ggml.bos_token_id: absent, and the default is 11, expected 0 to 0",
    [NO_TOKENS] = "tokenizer.ggml.tokens: 0 tokens",
    [TOKENS_NOT_STRINGS] = "tokenizer.ggml.tokens",
    [EMBEDDING_TOO_SHORT] = "tokenizer.ggml.tokens: 257 tokens, but token_embd.weight has 256 rows",
    [SPECIAL_TOO_LONG] = "tokenizer.ggml.tokens[257]: special token of 257 bytes, at most 256",
    [TEMPLATE_NOT_STRING] = "tokenizer.chat_template",
    [SPM_SCORES_ABSENT] = "tokenizer.ggml.scores",
    [SPM_SCORES_I32] = "tokenizer.ggml.scores",
    [SPM_SCORES_F64] = "tokenizer.ggml.scores: elements of type f64, expected f32",
    [SPM_SCORES_TOO_FEW] = "tokenizer.ggml.scores: 2 entries, expected 259",
    [SPM_SCORE_NAN] = "tokenizer.ggml.scores[7]: not a finite number",
    [SPM_BYTE_TOKEN_TEXT] = "tokenizer.ggml.tokens[4]: \"<0xzz>\" is a byte token, expected <0xXX>",
    [SPM_BYTE_MISSING] = "tokenizer.ggml.tokens: byte token <0x00> is missing, and so is an unknown token",
};

static void start(bool spm)
{
    if (spm) {
        cr_vocab_spm(&vocab);
    } else {
        cr_vocab_bpe(&vocab, "gpt-2");
        cr_vocab_merge(&vocab, "a", "b");
    }
}

static void change_spm(enum change change)
{
    switch (change) {
    case SPM_SCORES_ABSENT:
    case SPM_SCORES_I32:
    case SPM_SCORES_F64:
    case SPM_SCORES_TOO_FEW:
        vocab.has_scores = false;
        break;
    case SPM_SCORE_NAN:
        vocab.scores[7] = NAN;
        break;
    case SPM_BYTE_TOKEN_TEXT:
        vocab.tokens[4] = "<0xzz>";
        break;
    case SPM_BYTE_MISSING:
        vocab.tokens[0] = "none"; /* the unknown token becomes a normal one */
        vocab.types[0] = 1;
        vocab.tokens[3] = "no byte";
        vocab.types[3] = 1;
        break;
    default:
        break;
    }
}

/* Changes that the vocabulary itself can express. */
static void change_vocab(enum change change)
{
    static char long_text[258];
    static const char *const merges[] = {[MERGE_ONE_PART] = "ab",
                                         [MERGE_THREE_PARTS] = "a b c",
                                         [MERGE_LEFT_UNKNOWN] = "zz a",
                                         [MERGE_JOINED_UNKNOWN] = "a c"};
    switch (change) {
    case MODEL_BERT:
        vocab.model = "bert";
        break;
    case MODEL_ABSENT:
        break;
    case PRE_UNKNOWN:
        vocab.pre = "tekken\x1b";
        break;
    case MERGE_ONE_PART:
    case MERGE_THREE_PARTS:
    case MERGE_LEFT_UNKNOWN:
    case MERGE_JOINED_UNKNOWN:
        vocab.merges[vocab.n_merges++] = merges[change];
        break;
    case TYPE_TOO_LARGE:
        vocab.types[5] = 7;
        break;
    case TYPE_NEGATIVE:
        vocab.types[5] = -1;
        break;
    case TYPES_TOO_FEW:
    case TYPES_AS_FLOATS:
        vocab.has_types = false;
        break;
    case BOS_BEYOND:
        vocab.bos = 257;
        break;
    case EOS_BEYOND:
        vocab.eos = 0xFFFFFFFF;
        break;
    case PAD_BEYOND:
        vocab.pad = 257;
        break;
    case ONE_TOKEN:
        vocab.n_tokens = 1;
        vocab.n_merges = 0;
        vocab.bos = vocab.eos = -1;
        break;
    case NO_TOKENS:
        vocab.n_tokens = vocab.n_merges = 0;
        vocab.has_types = false;
        break;
    case SPECIAL_TOO_LONG:
        memset(long_text, 'x', 257);
        cr_vocab_add(&vocab, long_text, 3, 0);
        break;
    default:
        change_spm(change);
        break;
    }
}

static struct cr_gguf_writer *write_without_tokens(bool tokens_as_numbers)
{
    const int32_t numbers[3] = {1, 2, 3};
    struct cr_gguf_writer *w = cr_gguf_writer_create();
    if (tokens_as_numbers) {
        cr_gguf_writer_kv_str(w, "tokenizer.ggml.model", "gpt2", NULL);
    }
    cr_gguf_writer_kv_i32_array(w, "tokenizer.ggml.tokens", numbers, 3, NULL);
    return w;
}

/* An array of n f64 zeros as the format stores it. */
static void put_f64_array(struct cr_gguf_writer *w, const char *key, uint32_t n)
{
    static uint8_t bytes[12 + 8 * CR_TEST_MAX_TOKENS];
    memset(bytes, 0, sizeof bytes);
    bytes[0] = CR_GGUF_F64;
    bytes[4] = (uint8_t)n;
    bytes[5] = (uint8_t)(n >> 8);
    cr_gguf_writer_kv_raw(w, key, CR_GGUF_ARRAY, bytes, 12 + 8 * (size_t)n, NULL);
}

static struct cr_gguf_writer *write_change(enum change change)
{
    static float rows[256];
    const uint64_t ne[2] = {1, 256};
    start(change >= SPM_SCORES_ABSENT);
    change_vocab(change);
    struct cr_gguf_writer *w = change == MODEL_ABSENT         ? write_without_tokens(false)
                               : change == TOKENS_NOT_STRINGS ? write_without_tokens(true)
                                                              : cr_vocab_write(&vocab);
    switch (change) {
    case TYPES_TOO_FEW:
        cr_gguf_writer_kv_i32_array(w, "tokenizer.ggml.token_type", vocab.types, 2, NULL);
        break;
    case TYPES_AS_FLOATS:
        cr_gguf_writer_kv_f32_array(w, "tokenizer.ggml.token_type", vocab.scores, vocab.n_tokens, NULL);
        break;
    case EMBEDDING_TOO_SHORT:
        cr_gguf_writer_tensor(w, "token_embd.weight", 0, 2, ne, rows, sizeof rows, NULL);
        break;
    case TEMPLATE_NOT_STRING:
        cr_gguf_writer_kv_u32(w, "tokenizer.chat_template", 1, NULL);
        break;
    case SPM_SCORES_I32:
        cr_gguf_writer_kv_i32_array(w, "tokenizer.ggml.scores", vocab.types, vocab.n_tokens, NULL);
        break;
    case SPM_SCORES_F64:
        put_f64_array(w, "tokenizer.ggml.scores", (uint32_t)vocab.n_tokens);
        break;
    case SPM_SCORES_TOO_FEW:
        cr_gguf_writer_kv_f32_array(w, "tokenizer.ggml.scores", vocab.scores, 2, NULL);
        break;
    default:
        break;
    }
    return w;
}

START_TEST(refused)
{
    struct cr_error err = {0};
    struct cr_test_tokenizer t;
    cr_status status = cr_test_open_writer(&t, write_change((enum change)_i), &err);
    ck_assert_msg(status == CR_E_INPUT, "change %d: status %d", _i, status);
    ck_assert_ptr_null(t.tok);
    ck_assert_msg(strstr(err.message, expected[_i]) != NULL, "change %d: %s", _i, err.message);
    ck_assert_msg(strncmp(err.message, "tiny.gguf: ", 11) == 0 && strstr(err.message + 1, "tiny.gguf") == NULL, "%s",
                  err.message);
    ck_assert_ptr_null(strchr(err.message, '\n'));
    cr_test_close(&t);
    ck_assert_int_eq(cr_alloc_live(), 0);
}
END_TEST

START_TEST(taken)
{
    struct cr_test_tokenizer t;
    cr_vocab_bpe(&vocab, NULL); /* no tokenizer.ggml.pre */
    cr_test_open(&t, &vocab);
    ck_assert_str_eq(cr_tokenizer_pre(t.tok), "default");
    cr_test_close(&t);

    /* Holes and repeated texts; embedding rows padded above the list. */
    start(false);
    cr_vocab_add(&vocab, "", 5, 0);
    cr_vocab_add(&vocab, "", 5, 0);
    cr_vocab_add(&vocab, "ab", 1, 0); /* 259, again */
    static float rows[300];
    const uint64_t ne[2] = {1, 300};
    struct cr_gguf_writer *w = cr_vocab_write(&vocab);
    struct cr_error err = {0};
    ck_assert_int_eq(cr_gguf_writer_tensor(w, "token_embd.weight", 0, 2, ne, rows, sizeof rows, &err), CR_OK);
    ck_assert_msg(cr_test_open_writer(&t, w, &err) == CR_OK, "%s", err.message);
    ck_assert_int_eq(cr_tokenizer_find(t.tok, "ab", 2), 259);
    ck_assert_int_eq(cr_tokenizer_find(t.tok, "", 0), -1);
    size_t n = 1;
    ck_assert_ptr_nonnull(cr_tokenizer_text(t.tok, 258, &n));
    ck_assert_uint_eq(n, 0);
    ck_assert_ptr_null(cr_tokenizer_text(t.tok, 260, &n));
    ck_assert_uint_eq(cr_tokenizer_decode(t.tok, 260, NULL, 0), 0);
    cr_test_close(&t);
}
END_TEST

static cr_status use_everything(const struct cr_gguf *gguf, struct cr_ids *ids, struct cr_error *err)
{
    struct cr_tokenizer *tok = NULL;
    struct cr_chat chat = {0};
    struct cr_chat_rendering rendering = {0};
    const struct cr_chat_message turns[2] = {{"user", 4, "Hi <x>", 6}, {"assistant", 9, "ab ab", 5}};
    cr_status status;
    CR_TRY_OUT(status, cr_tokenizer_open(gguf, &tok, err));
    CR_TRY_OUT(status, cr_tokenize(tok, "ab abe\xCC\x81 12\xFF", 12, CR_TOK_SPECIAL | CR_TOK_NFC, ids, NULL, err));
    CR_TRY_OUT(status, cr_chat_init(&chat, tok, NULL, NULL, err));
    CR_TRY_OUT(status, cr_chat_render(&chat, turns, 2, true, &rendering, err));
    CR_TRY_OUT(status, cr_chat_encode(&chat, tok, &rendering, ids, NULL, NULL, err));
out:
    cr_chat_rendering_deinit(&rendering);
    cr_chat_deinit(&chat);
    cr_tokenizer_close(tok);
    return status;
}

/* Each allocation fails once, then each and all later ones: E5, nothing leaked, the list of ids as it was. */
START_TEST(allocation_failures)
{
    start(_i / 2 != 0);
    cr_vocab_add(&vocab, "<x>", 4, 0);
    vocab.chat_template = "{{ '<|im_start|>system\nBe kind.<|im_end|>\n' }}";
    struct cr_test_tokenizer t;
    cr_test_open(&t, &vocab);
    struct cr_ids ids = {0};
    struct cr_error err = {0};
    ck_assert_int_eq(cr_ids_push(&ids, 42, &err), CR_OK);
    const long live = cr_alloc_live();
    long n_failures = 0;
    for (long at = 1;; at++) {
        cr_alloc_fail_at(at, _i % 2 != 0);
        err.message[0] = '\0';
        ids.n = 1;
        const long before = cr_alloc_count();
        cr_status status = use_everything(t.gguf, &ids, &err);
        cr_alloc_fail_at(0, false);
        ck_assert_int_eq(ids.ids[0], 42);
        ck_assert_int_eq(cr_alloc_live(), live);
        if (cr_alloc_count() - before < at) {
            ck_assert_int_eq(status, CR_OK);
            break;
        }
        if (status != CR_OK) { /* compiling an expression to machine code may fail unnoticed: it is then interpreted */
            ck_assert_msg(status == CR_E_MEMORY && err.message[0] != '\0', "allocation %ld: %d %s", at, status,
                          err.message);
            n_failures++;
        }
        ck_assert_int_lt(at, 10000);
    }
    printf("%ld allocation failures\n", n_failures);
    ck_assert_int_gt(n_failures, 15);
    cr_ids_deinit(&ids);
    cr_test_close(&t);
}
END_TEST

/* Each byte of a small file changed in four ways: any verdict, no crash, and what opens can be used. */
START_TEST(changed_bytes)
{
    const bool spm = _i != 0;
    start(spm);
    vocab.n_tokens = spm ? 40 : 60;
    vocab.n_merges = 0;
    if (spm) {
        vocab.unk = 0;
    }
    cr_vocab_add(&vocab, "<x>", 4, 0);
    if (!spm) {
        cr_vocab_merge(&vocab, "!", "\"");
    }
    vocab.chat_template = "<|im_start|>";
    struct cr_test_tokenizer t;
    cr_test_open(&t, &vocab);
    const uint8_t changes[4] = {0xFF, 0x01, 0x80, 0x20};
    long n_opened = 0, n_refused = 0;
    for (size_t i = 0; i < t.n_bytes; i++) {
        for (size_t c = 0; c < 4; c++) {
            struct cr_gguf *gguf = NULL;
            struct cr_ids ids = {0};
            struct cr_error err = {0};
            t.bytes[i] ^= changes[c];
            if (cr_gguf_parse(t.bytes, t.n_bytes, "x", &gguf, &err) == CR_OK) {
                cr_status status = use_everything(gguf, &ids, &err);
                n_opened += status == CR_OK;
                n_refused += status == CR_E_INPUT;
                ck_assert_msg(status == CR_OK || status == CR_E_INPUT, "%d %s", status, err.message);
            }
            cr_ids_deinit(&ids);
            cr_gguf_close(gguf);
            t.bytes[i] ^= changes[c];
        }
    }
    printf("%s: %ld changed files taken, %ld refused\n", spm ? "llama" : "gpt2", n_opened, n_refused);
    ck_assert(n_opened > 100 && n_refused > 100);
    cr_test_close(&t);
}
END_TEST

static bool swallow(void *ctx, const char *text, size_t n)
{
    (void)ctx;
    (void)text;
    return n > 0;
}

/* Options of the public call: sized as those of the others. */
START_TEST(options)
{
    static const struct cr_tokenize_options bad[] = {
        {.size = 0, .model = "absent"}, {.size = sizeof bad[0] + 1, .model = "absent"}, {.size = sizeof bad[0]}};
    static const char *const parts[] = {"options: size 0", "options: size", "model expected"};
    struct cr_error err;
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(cr_tokenize_text(&bad[i], NULL, "a", 1, swallow, NULL, &err), CR_E_USAGE);
        ck_assert_ptr_nonnull(strstr(err.message, parts[i]));
    }
    ck_assert_int_eq(cr_tokenize_text(NULL, NULL, "a", 1, swallow, NULL, &err), CR_E_USAGE);
    struct cr_tokenize_options absent = {.size = sizeof absent, .model = "absent"};
    ck_assert_int_eq(cr_tokenize_text(&absent, NULL, "a", 1, swallow, NULL, &err), CR_E_IO);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("bad vocabularies");
    TCase *tests = tcase_create("files");
    tcase_set_timeout(tests, 60);
    tcase_add_loop_test(tests, refused, 0, N_CHANGES);
    tcase_add_test(tests, taken);
    tcase_add_test(tests, options);
    tcase_add_loop_test(tests, allocation_failures, 0, 4);
    tcase_add_loop_test(tests, changed_bytes, 0, 2);
    suite_add_tcase(suite, tests);
    return cr_run_suite(suite);
}
