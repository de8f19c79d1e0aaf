/* gguf_case: a small GGUF file of every kind of value, written and parsed. */
#ifndef CR_TESTS_GGUF_CASE_H
#define CR_TESTS_GGUF_CASE_H

#include <check.h>

#include "credence/kernels/dequant.h"
#include "runtime/io/gguf.h"
#include "runtime/io/gguf_write.h"
#include "runtime/io/quantize.h"
#include "tests/support/gguf_test.h"

static struct cr_error err;

#define OK(expression) ck_assert_msg((expression) == CR_OK, "%s: %s", #expression, err.message)

/* A writer with keys of every kind and two tensors (Q8_0 [64, 2] and F32 [5]). */
static inline struct cr_gguf_writer *make_writer(void)
{
    static float values[128];
    static uint8_t blocks[4 * 34];
    static const char *const words[] = {"hello", "", "w\xc3\xb6rld"};
    static const float floats[] = {1.5f, -2.0f};
    static const int32_t ints[] = {-1, 0, 2147483647};
    for (int i = 0; i < 128; i++) {
        values[i] = (float)i - 64.0f;
    }
    ck_assert(cr_quantize_row(CR_Q_Q8_0, values, 128, blocks));
    struct cr_gguf_writer *w = cr_gguf_writer_create();
    OK(cr_gguf_writer_kv_str(w, "general.architecture", "llama", &err));
    OK(cr_gguf_writer_kv_u32(w, "llama.block_count", 30, &err));
    OK(cr_gguf_writer_kv_f32(w, "llama.rope.freq_base", 10000.0f, &err));
    OK(cr_test_kv_bool(w, "llama.attention.causal", true, &err));
    OK(cr_gguf_writer_kv_str_array(w, "tokenizer.ggml.tokens", words, 3, &err));
    OK(cr_gguf_writer_kv_f32_array(w, "tokenizer.ggml.scores", floats, 2, &err));
    OK(cr_gguf_writer_kv_i32_array(w, "tokenizer.ggml.token_type", ints, 3, &err));
    OK(cr_gguf_writer_kv_strn(w, "odd", "a\0b", 3, &err));
    OK(cr_gguf_writer_tensor(w, "blk.0.w", CR_Q_Q8_0, 2, (const uint64_t[]){64, 2}, blocks, sizeof blocks, &err));
    OK(cr_gguf_writer_tensor(w, "norm", CR_Q_F32, 1, (const uint64_t[]){5}, values, 20, &err));
    return w;
}

static inline struct cr_gguf *parse(const uint8_t *data, size_t n)
{
    struct cr_gguf *g = NULL;
    OK(cr_gguf_parse(data, n, "memory", &g, &err));
    return g;
}

#endif
