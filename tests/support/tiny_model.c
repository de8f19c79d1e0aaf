#include "tests/support/tiny_model.h"

#include <stdio.h>
#include <string.h>

#include "credence/kernels/dequant.h"
#include "runtime/core/alloc.h"
#include "runtime/io/quantize.h"
#include "tests/support/gguf_test.h"
#include "tests/support/kernel_test.h"

uint32_t cr_tiny_width(int type)
{
    const struct cr_qtype_info *info = cr_qtype_info(type);
    return info != NULL && info->block_values == 256 ? 256 : 64;
}

/* Blocks that the writer borrows until the file is made. */
struct pool {
    void *blocks[256];
    size_t n;
};

static void *pool_alloc(struct pool *pool, size_t bytes)
{
    void *p = pool->n < 256 ? cr_zalloc(1, bytes) : NULL;
    if (p != NULL) {
        pool->blocks[pool->n++] = p;
    }
    return p;
}

static cr_status add_matrix(struct cr_gguf_writer *w, struct pool *pool, struct cr_rng *rng, const char *name, int type,
                            size_t n_cols, size_t n_rows, float range, struct cr_error *err)
{
    const struct cr_qtype_info *info = cr_qtype_info(type);
    size_t row_bytes = n_cols / info->block_values * info->block_bytes;
    char *data = pool_alloc(pool, n_rows * row_bytes);
    float *row = pool_alloc(pool, n_cols * sizeof(float));
    if (data == NULL || row == NULL) {
        return cr_fail(err, CR_E_MEMORY, "tiny model: no memory");
    }
    for (size_t i = 0; i < n_rows; i++) {
        cr_fill_f32(rng, row, n_cols, -range, range);
        if (!cr_quantize_row(type, row, n_cols, data + i * row_bytes)) {
            return cr_fail(err, CR_E_USAGE, "tiny model: no encoder for type %d", type);
        }
    }
    uint64_t ne[2] = {n_cols, n_rows};
    return cr_gguf_writer_tensor(w, name, type, 2, ne, data, n_rows * row_bytes, err);
}

static cr_status add_vector(struct cr_gguf_writer *w, struct pool *pool, struct cr_rng *rng, const char *name, size_t n,
                            float low, float high, struct cr_error *err)
{
    float *data = pool_alloc(pool, n * sizeof(float));
    if (data == NULL) {
        return cr_fail(err, CR_E_MEMORY, "tiny model: no memory");
    }
    cr_fill_f32(rng, data, n, low, high);
    uint64_t ne = n;
    return cr_gguf_writer_tensor(w, name, CR_Q_F32, 1, &ne, data, n * sizeof(float), err);
}

/* Code point of a byte in byte-level BPE vocabularies, as UTF-8. */
static void byte_piece(unsigned byte, char out[8])
{
    unsigned code = byte, next = 256;
    for (unsigned b = 0; b < 256; b++) {
        bool printable = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
        if (b == byte) {
            code = printable ? b : next;
            break;
        }
        next += !printable;
    }
    if (code < 0x80) {
        snprintf(out, 8, "%c", (char)code);
    } else {
        snprintf(out, 8, "%c%c", (char)(0xc0 | code >> 6), (char)(0x80 | (code & 0x3f)));
    }
}

static cr_status add_tokenizer(struct cr_gguf_writer *w, struct cr_error *err)
{
    static char text[CR_TINY_TOKENS][24], merge_text[26][8];
    const char *tokens[CR_TINY_TOKENS], *merges[26];
    int32_t types[CR_TINY_TOKENS];
    static const char *markers[3] = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};
    for (unsigned i = 0; i < CR_TINY_TOKENS; i++) {
        if (i < 256) {
            byte_piece(i, text[i]);
        } else if (i < 282) {
            snprintf(text[i], sizeof text[i], "\xc4\xa0%c", (char)('A' + (i - 256)));
            snprintf(merge_text[i - 256], sizeof merge_text[0], "\xc4\xa0 %c", (char)('A' + (i - 256)));
            merges[i - 256] = merge_text[i - 256];
        } else {
            snprintf(text[i], sizeof text[i], "%s", markers[i - 282]);
        }
        tokens[i] = text[i];
        types[i] = i < 282 ? 1 : 3;
    }
    CR_TRY(cr_gguf_writer_kv_str(w, "tokenizer.ggml.model", "gpt2", err));
    CR_TRY(cr_gguf_writer_kv_str(w, "tokenizer.ggml.pre", "gpt-2", err));
    CR_TRY(cr_gguf_writer_kv_str_array(w, "tokenizer.ggml.tokens", tokens, CR_TINY_TOKENS, err));
    CR_TRY(cr_gguf_writer_kv_i32_array(w, "tokenizer.ggml.token_type", types, CR_TINY_TOKENS, err));
    CR_TRY(cr_gguf_writer_kv_str_array(w, "tokenizer.ggml.merges", merges, 26, err));
    CR_TRY(cr_gguf_writer_kv_u32(w, "tokenizer.ggml.bos_token_id", 283, err));
    CR_TRY(cr_gguf_writer_kv_u32(w, "tokenizer.ggml.eos_token_id", 282, err));
    CR_TRY(cr_test_kv_bool(w, "tokenizer.ggml.add_bos_token", false, err));
    return cr_gguf_writer_kv_str(w, "tokenizer.chat_template",
                                 "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + "
                                 "message['content'] + '<|im_end|>' + '\n'}}{% endfor %}",
                                 err);
}

struct sizes {
    const char *arch;
    uint32_t n_layers, width, ff, n_heads, n_kv;
};

static cr_status add_config(struct cr_gguf_writer *w, const struct cr_tiny_spec *spec, const struct sizes *s,
                            struct cr_error *err)
{
    const struct {
        const char *suffix;
        uint32_t value;
    } counts[] = {
        {"context_length", 512},        {"embedding_length", s->width},       {"block_count", s->n_layers},
        {"feed_forward_length", s->ff}, {"attention.head_count", s->n_heads}, {"attention.head_count_kv", s->n_kv}};
    char key[96];
    CR_TRY(cr_gguf_writer_kv_str(w, "general.architecture", s->arch, err));
    CR_TRY(cr_gguf_writer_kv_str(w, "general.name", "tiny", err));
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        snprintf(key, sizeof key, "%s.%s", s->arch, counts[i].suffix);
        CR_TRY(cr_gguf_writer_kv_u32(w, key, counts[i].value, err));
    }
    snprintf(key, sizeof key, "%s.attention.layer_norm_rms_epsilon", s->arch);
    CR_TRY(cr_gguf_writer_kv_f32(w, key, 1e-5f, err));
    snprintf(key, sizeof key, "%s.rope.freq_base", s->arch);
    CR_TRY(cr_gguf_writer_kv_f32(w, key, 10000.0f, err));
    if (spec->linear_scaling > 0) {
        snprintf(key, sizeof key, "%s.rope.scaling.type", s->arch);
        CR_TRY(cr_gguf_writer_kv_str(w, key, "linear", err));
        snprintf(key, sizeof key, "%s.rope.scaling.factor", s->arch);
        CR_TRY(cr_gguf_writer_kv_f32(w, key, spec->linear_scaling, err));
    }
    return CR_OK;
}

static cr_status add_layer(struct cr_gguf_writer *w, struct pool *pool, struct cr_rng *rng, int type,
                           const struct sizes *s, uint32_t layer, struct cr_error *err)
{
    uint32_t kv = s->width / s->n_heads * s->n_kv;
    const struct {
        const char *name;
        uint32_t n_in, n_out;
    } m[] = {{"attn_q", s->width, s->width},      {"attn_k", s->width, kv},      {"attn_v", s->width, kv},
             {"attn_output", s->width, s->width}, {"ffn_gate", s->width, s->ff}, {"ffn_up", s->width, s->ff},
             {"ffn_down", s->ff, s->width}};
    char name[64];
    for (size_t i = 0; i < sizeof m / sizeof m[0]; i++) {
        float range = 1.7f / __builtin_sqrtf((float)m[i].n_in);
        snprintf(name, sizeof name, "blk.%u.%s.weight", layer, m[i].name);
        CR_TRY(add_matrix(w, pool, rng, name, type, m[i].n_in, m[i].n_out, range, err));
        if (i < 3 && strcmp(s->arch, "qwen2") == 0) {
            snprintf(name, sizeof name, "blk.%u.%s.bias", layer, m[i].name);
            CR_TRY(add_vector(w, pool, rng, name, m[i].n_out, -0.3f, 0.3f, err));
        }
    }
    snprintf(name, sizeof name, "blk.%u.attn_norm.weight", layer);
    CR_TRY(add_vector(w, pool, rng, name, s->width, 0.6f, 1.4f, err));
    snprintf(name, sizeof name, "blk.%u.ffn_norm.weight", layer);
    return add_vector(w, pool, rng, name, s->width, 0.6f, 1.4f, err);
}

static cr_status build(struct cr_gguf_writer *w, struct pool *pool, const struct cr_tiny_spec *spec,
                       struct cr_error *err)
{
    uint32_t width = cr_tiny_width(spec->type);
    struct sizes s = {spec->architecture != NULL ? spec->architecture : "llama",
                      spec->n_layers > 0 ? spec->n_layers : 2,
                      width,
                      2 * width,
                      spec->n_heads > 0 ? spec->n_heads : 4,
                      spec->n_kv > 0 ? spec->n_kv : 2};
    struct cr_rng rng = cr_rng_make(1000 + spec->seed);
    CR_TRY(add_config(w, spec, &s, err));
    CR_TRY(add_tokenizer(w, err));
    CR_TRY(add_matrix(w, pool, &rng, "token_embd.weight", spec->type, width, CR_TINY_VOCAB, 0.5f, err));
    if (spec->untied) {
        CR_TRY(add_matrix(w, pool, &rng, "output.weight", spec->type, width, CR_TINY_VOCAB, 0.3f, err));
    }
    CR_TRY(add_vector(w, pool, &rng, "output_norm.weight", width, 0.6f, 1.4f, err));
    if (spec->rope_factors) {
        CR_TRY(add_vector(w, pool, &rng, "rope_freqs.weight", width / s.n_heads / 2, 1.0f, 8.0f, err));
    }
    for (uint32_t layer = 0; layer < s.n_layers; layer++) {
        CR_TRY(add_layer(w, pool, &rng, spec->type, &s, layer, err));
    }
    return CR_OK;
}

static cr_status make(const struct cr_tiny_spec *spec, const char *path, uint8_t **data, size_t *n,
                      struct cr_error *err)
{
    struct pool pool = {.n = 0};
    struct cr_gguf_writer *w = cr_gguf_writer_create();
    cr_status status = w == NULL ? cr_fail(err, CR_E_MEMORY, "tiny model: no memory") : CR_OK;
    if (status == CR_OK) {
        status = build(w, &pool, spec, err);
    }
    if (status == CR_OK) {
        status = path != NULL ? cr_gguf_writer_write(w, path, err) : cr_gguf_writer_to_memory(w, data, n, err);
    }
    cr_gguf_writer_destroy(w);
    for (size_t i = 0; i < pool.n; i++) {
        cr_free(pool.blocks[i]);
    }
    return status;
}

cr_status cr_tiny_model_bytes(const struct cr_tiny_spec *spec, uint8_t **data, size_t *n, struct cr_error *err)
{
    return make(spec, NULL, data, n, err);
}

cr_status cr_tiny_model_file(const struct cr_tiny_spec *spec, const char *path, struct cr_error *err)
{
    return make(spec, path, NULL, NULL, err);
}
