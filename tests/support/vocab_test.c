#include "tests/support/vocab_test.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/core/alloc.h"
#include "tests/support/gguf_test.h"

static void must(cr_status status, const struct cr_error *err)
{
    ck_assert_msg(status == CR_OK, "%s", err->message);
}

static void clear(struct cr_test_vocab *v, const char *model, const char *pre)
{
    memset(v, 0, sizeof *v);
    v->model = model;
    v->pre = pre;
    v->has_types = true;
    v->bos = v->eos = v->unk = v->pad = v->add_bos = v->add_space_prefix = -1;
}

int32_t cr_vocab_add(struct cr_test_vocab *v, const char *text, int32_t type, float score)
{
    size_t n = strlen(text) + 1;
    ck_assert(v->n_tokens < CR_TEST_MAX_TOKENS && v->n_storage + n <= sizeof v->storage);
    memcpy(v->storage + v->n_storage, text, n);
    v->tokens[v->n_tokens] = v->storage + v->n_storage;
    v->types[v->n_tokens] = type;
    v->scores[v->n_tokens] = score;
    v->n_storage += n;
    return (int32_t)v->n_tokens++;
}

int32_t cr_vocab_merge(struct cr_test_vocab *v, const char *left, const char *right)
{
    char text[256];
    int n = snprintf(text, sizeof text, "%s %s", left, right);
    ck_assert(n < (int)sizeof text && v->n_merges < CR_TEST_MAX_TOKENS &&
              v->n_storage + (size_t)n + 1 <= sizeof v->storage);
    memcpy(v->storage + v->n_storage, text, (size_t)n + 1);
    v->merges[v->n_merges++] = v->storage + v->n_storage;
    v->n_storage += (size_t)n + 1;
    snprintf(text, sizeof text, "%s%s", left, right);
    for (size_t i = 0; i < v->n_tokens; i++) {
        if (strcmp(v->tokens[i], text) == 0) {
            return (int32_t)i;
        }
    }
    return cr_vocab_add(v, text, 1, 0);
}

void cr_vocab_bpe(struct cr_test_vocab *v, const char *pre)
{
    clear(v, "gpt2", pre);
    v->bos = v->eos = 0;
    unsigned next = 0x100;
    for (unsigned byte = 0; byte < 256; byte++) {
        bool printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
        unsigned c = printable ? byte : next++;
        char text[3] = {(char)c, 0, 0};
        if (c >= 0x80) {
            text[0] = (char)(0xC0 | c >> 6);
            text[1] = (char)(0x80 | (c & 0x3F));
        }
        cr_vocab_add(v, text, 1, 0);
    }
}

void cr_vocab_spm(struct cr_test_vocab *v)
{
    clear(v, "llama", NULL);
    v->has_scores = true;
    cr_vocab_add(v, "<unk>", 2, 0);
    cr_vocab_add(v, "<s>", 3, 0);
    cr_vocab_add(v, "</s>", 3, 0);
    for (unsigned byte = 0; byte < 256; byte++) {
        char text[8];
        snprintf(text, sizeof text, "<0x%02X>", byte);
        cr_vocab_add(v, text, 6, 0);
    }
}

static void put_id(struct cr_gguf_writer *w, const char *key, int64_t id)
{
    struct cr_error err;
    if (id >= 0) {
        must(cr_gguf_writer_kv_u32(w, key, (uint32_t)id, &err), &err);
    }
}

static void put_bool(struct cr_gguf_writer *w, const char *key, int value)
{
    struct cr_error err;
    if (value >= 0) {
        must(cr_test_kv_bool(w, key, value != 0, &err), &err);
    }
}

static void put_str(struct cr_gguf_writer *w, const char *key, const char *value)
{
    struct cr_error err;
    if (value != NULL) {
        must(cr_gguf_writer_kv_str(w, key, value, &err), &err);
    }
}

struct cr_gguf_writer *cr_vocab_write(const struct cr_test_vocab *v)
{
    struct cr_error err;
    struct cr_gguf_writer *w = cr_gguf_writer_create();
    ck_assert_ptr_nonnull(w);
    put_str(w, "general.architecture", "llama");
    put_str(w, "tokenizer.ggml.model", v->model);
    put_str(w, "tokenizer.ggml.pre", v->pre);
    must(cr_gguf_writer_kv_str_array(w, "tokenizer.ggml.tokens", v->tokens, v->n_tokens, &err), &err);
    if (v->has_types) {
        must(cr_gguf_writer_kv_i32_array(w, "tokenizer.ggml.token_type", v->types, v->n_tokens, &err), &err);
    }
    if (v->has_scores) {
        must(cr_gguf_writer_kv_f32_array(w, "tokenizer.ggml.scores", v->scores, v->n_tokens, &err), &err);
    }
    if (strcmp(v->model, "gpt2") == 0) {
        must(cr_gguf_writer_kv_str_array(w, "tokenizer.ggml.merges", v->merges, v->n_merges, &err), &err);
    }
    put_id(w, "tokenizer.ggml.bos_token_id", v->bos);
    put_id(w, "tokenizer.ggml.eos_token_id", v->eos);
    put_id(w, "tokenizer.ggml.unknown_token_id", v->unk);
    put_id(w, "tokenizer.ggml.padding_token_id", v->pad);
    put_bool(w, "tokenizer.ggml.add_bos_token", v->add_bos);
    put_bool(w, "tokenizer.ggml.add_space_prefix", v->add_space_prefix);
    put_str(w, "tokenizer.chat_template", v->chat_template);
    return w;
}

cr_status cr_test_open_writer(struct cr_test_tokenizer *t, struct cr_gguf_writer *writer, struct cr_error *err)
{
    memset(t, 0, sizeof *t);
    must(cr_gguf_writer_to_memory(writer, &t->bytes, &t->n_bytes, err), err);
    cr_gguf_writer_destroy(writer);
    must(cr_gguf_parse(t->bytes, t->n_bytes, "tiny.gguf", &t->gguf, err), err);
    return cr_tokenizer_open(t->gguf, &t->tok, err);
}

void cr_test_open(struct cr_test_tokenizer *t, const struct cr_test_vocab *v)
{
    struct cr_error err = {0};
    must(cr_test_open_writer(t, cr_vocab_write(v), &err), &err);
}

void cr_test_close(struct cr_test_tokenizer *t)
{
    cr_tokenizer_close(t->tok);
    cr_gguf_close(t->gguf);
    cr_free(t->bytes);
    memset(t, 0, sizeof *t);
}

const char *cr_test_ids(const struct cr_tokenizer *tok, const char *text, size_t n, unsigned flags)
{
    static char shown[4096];
    struct cr_error err = {0};
    struct cr_ids ids = {0};
    size_t dropped = 0;
    must(cr_tokenize(tok, text, n, flags, &ids, &dropped, &err), &err);
    size_t used = 0;
    shown[0] = '\0';
    for (size_t i = 0; i < ids.n && used < sizeof shown - 16; i++) {
        used += (size_t)snprintf(shown + used, sizeof shown - used, "%s%d", i == 0 ? "" : " ", ids.ids[i]);
    }
    if (dropped > 0 && used < sizeof shown - 40) {
        snprintf(shown + used, sizeof shown - used, " dropped=%zu", dropped);
    }
    cr_ids_deinit(&ids);
    return shown;
}
