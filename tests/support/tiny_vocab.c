#include "tests/support/tiny_vocab.h"

#include <stdio.h>
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/core/error.h"
#include "tests/support/gguf_test.h"

enum { MAX_TOKENS = 400, PIECE_BYTES = 24 };

struct lists {
    char text[MAX_TOKENS][PIECE_BYTES], merge_text[26][PIECE_BYTES];
    const char *tokens[MAX_TOKENS], *merges[26];
    int32_t types[MAX_TOKENS];
    float scores[MAX_TOKENS];
    int n, n_merges;
};

static void add(struct lists *l, const char *piece, int type, float score)
{
    snprintf(l->text[l->n], PIECE_BYTES, "%s", piece);
    l->tokens[l->n] = l->text[l->n];
    l->types[l->n] = type;
    l->scores[l->n] = score;
    l->n++;
}

/* The printable stand-in of a byte in byte-level vocabularies: itself, or code points from 256 on. */
static void byte_piece(int byte, char out[PIECE_BYTES])
{
    int code = 0, next = 256;
    for (int b = 0; b <= byte; b++) {
        bool printable = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
        code = printable ? b : next++;
    }
    if (code < 0x80) {
        snprintf(out, PIECE_BYTES, "%c", (char)code);
    } else {
        snprintf(out, PIECE_BYTES, "%c%c", (char)(0xc0 | code >> 6), (char)(0x80 | (code & 0x3f)));
    }
}

static void fill_bpe(struct lists *l, int n_labels, const char *lacks)
{
    char piece[PIECE_BYTES];
    for (int b = 0; b < 256; b++) {
        byte_piece(b, piece);
        if (b > 0 && strchr(lacks, b) != NULL) {
            snprintf(piece, sizeof piece, "\xc4\xa2%c", (char)b);
        }
        add(l, piece, 1, 0);
    }
    for (int i = 0; i < 26; i++) {
        bool whole = i < n_labels && strchr(lacks, 'A' + i) == NULL;
        snprintf(piece, sizeof piece, whole ? "\xc4\xa0%c" : "\xc4\xa1%c", (char)('A' + i));
        add(l, piece, 1, 0);
        if (whole) {
            snprintf(l->merge_text[i], PIECE_BYTES, "\xc4\xa0 %c", (char)('A' + i));
            l->merges[l->n_merges++] = l->merge_text[i];
        }
    }
    add(l, "<|endoftext|>", 3, 0);
    add(l, "<|im_start|>", 3, 0);
    add(l, "<|im_end|>", 3, 0);
}

static void fill_spm(struct lists *l, int n_labels)
{
    char piece[PIECE_BYTES];
    add(l, "<unk>", 2, 0);
    add(l, "<s>", 3, 0);
    add(l, "</s>", 3, 0);
    for (int b = 0; b < 256; b++) {
        snprintf(piece, sizeof piece, "<0x%02X>", (unsigned)b);
        add(l, piece, 6, 0);
    }
    for (int c = 33; c < 127; c++) {
        snprintf(piece, sizeof piece, "%c", (char)c);
        add(l, piece, 1, -10);
    }
    add(l, "\xe2\x96\x81", 1, -10);
    for (int i = 0; i < n_labels; i++) {
        snprintf(piece, sizeof piece, "\xe2\x96\x81%c", (char)('A' + i));
        add(l, piece, 1, -1);
    }
}

static cr_status write_keys(struct cr_gguf_writer *w, const struct cr_tiny_vocab_options *options,
                            const struct lists *l, struct cr_error *err)
{
    size_t n = (size_t)l->n;
    CR_TRY(cr_gguf_writer_kv_str(w, "general.architecture", "llama", err));
    CR_TRY(cr_gguf_writer_kv_str(w, "tokenizer.ggml.model", options->spm ? "llama" : "gpt2", err));
    CR_TRY(cr_gguf_writer_kv_str_array(w, "tokenizer.ggml.tokens", l->tokens, n, err));
    CR_TRY(cr_gguf_writer_kv_i32_array(w, "tokenizer.ggml.token_type", l->types, n, err));
    CR_TRY(cr_test_kv_bool(w, "tokenizer.ggml.add_bos_token", options->add_bos, err));
    if (options->spm) {
        CR_TRY(cr_gguf_writer_kv_f32_array(w, "tokenizer.ggml.scores", l->scores, n, err));
    } else {
        CR_TRY(cr_gguf_writer_kv_str(w, "tokenizer.ggml.pre", "gpt-2", err));
        CR_TRY(cr_gguf_writer_kv_str_array(w, "tokenizer.ggml.merges", l->merges, (size_t)l->n_merges, err));
        CR_TRY(cr_gguf_writer_kv_u32(w, "tokenizer.ggml.bos_token_id", CR_TINY_IM_START, err));
        CR_TRY(cr_gguf_writer_kv_u32(w, "tokenizer.ggml.eos_token_id", CR_TINY_EOS, err));
    }
    if (options->no_template) {
        return CR_OK;
    }
    return cr_gguf_writer_kv_str(w, "tokenizer.chat_template",
                                 "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + "
                                 "message['content'] + '<|im_end|>' + '\n'}}{% endfor %}",
                                 err);
}

static struct cr_gguf_writer *build(const struct cr_tiny_vocab_options *options)
{
    static const struct cr_tiny_vocab_options none;
    const struct cr_tiny_vocab_options *o = options != NULL ? options : &none;
    struct cr_error err = {0};
    struct cr_gguf_writer *w = cr_gguf_writer_create();
    struct lists *l = cr_zalloc(1, sizeof *l);
    if (w != NULL && l != NULL) {
        int n_labels = o->n_labels > 0 ? o->n_labels : 26;
        if (o->spm) {
            fill_spm(l, n_labels);
        } else {
            fill_bpe(l, n_labels, o->lacks != NULL ? o->lacks : "");
        }
        if (write_keys(w, o, l, &err) != CR_OK) {
            fprintf(stderr, "tiny vocabulary: %s\n", err.message);
            cr_gguf_writer_destroy(w);
            w = NULL;
        }
    }
    cr_free(l);
    return w;
}

bool cr_tiny_vocab_open(struct cr_tiny_vocab *vocab, const struct cr_tiny_vocab_options *options)
{
    struct cr_error err = {0};
    struct cr_gguf_writer *w = build(options);
    memset(vocab, 0, sizeof *vocab);
    bool ok = w != NULL && cr_gguf_writer_to_memory(w, &vocab->bytes, &vocab->n_bytes, &err) == CR_OK &&
              cr_gguf_parse(vocab->bytes, vocab->n_bytes, "tiny vocabulary", &vocab->gguf, &err) == CR_OK &&
              cr_tokenizer_open(vocab->gguf, &vocab->tokenizer, &err) == CR_OK;
    cr_gguf_writer_destroy(w);
    if (!ok) {
        fprintf(stderr, "tiny vocabulary: %s\n", err.message);
        cr_tiny_vocab_close(vocab);
    }
    return ok;
}

void cr_tiny_vocab_close(struct cr_tiny_vocab *vocab)
{
    cr_tokenizer_close(vocab->tokenizer);
    cr_gguf_close(vocab->gguf);
    cr_free(vocab->bytes);
    memset(vocab, 0, sizeof *vocab);
}

bool cr_tiny_vocab_write(const char *path, const struct cr_tiny_vocab_options *options)
{
    struct cr_error err = {0};
    struct cr_gguf_writer *w = build(options);
    bool ok = w != NULL && cr_gguf_writer_write(w, path, &err) == CR_OK;
    cr_gguf_writer_destroy(w);
    return ok;
}
