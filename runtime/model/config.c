#include "runtime/model/config.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const struct cr_architecture architectures[] = {
    {"llama", CR_ROPE_NORM, .permuted_qk = true},
    {"qwen2", CR_ROPE_NEOX, .qkv_bias = true},
};

enum { N_ARCHITECTURES = sizeof architectures / sizeof architectures[0] };

const struct cr_architecture *cr_architecture_find(const char *name, size_t n)
{
    for (size_t i = 0; i < N_ARCHITECTURES; i++) {
        if (strlen(architectures[i].name) == n && memcmp(architectures[i].name, name, n) == 0) {
            return &architectures[i];
        }
    }
    return NULL;
}

/* Bounds that no real model passes; they keep every product below far from overflow. */
enum { MAX_LAYERS = 512, MAX_WIDTH = 1 << 18, MAX_HEADS = 4096, MAX_HEAD_DIM = 512, MAX_CONTEXT = 1 << 20 };

static cr_status bad(const struct cr_gguf *g, const char *key, unsigned long long value, const char *expected,
                     struct cr_error *err)
{
    return cr_fail(err, CR_E_INPUT, "%s: key %s: %llu, expected %s", cr_gguf_label(g), key, value, expected);
}

/* Key "<architecture>.<suffix>" as an integer in 1...max. A per-layer array is refused unless all equal. */
static cr_status get_u32(const struct cr_gguf *g, const char *arch, const char *suffix, bool required, uint32_t max,
                         uint32_t *out, struct cr_error *err)
{
    char key[96], range[48];
    snprintf(key, sizeof key, "%s.%s", arch, suffix);
    struct cr_gguf_value v;
    uint32_t value = *out;
    if (cr_gguf_find(g, key, &v) && v.type == CR_GGUF_ARRAY) {
        CR_TRY(cr_gguf_array(g, key, CR_GGUF_KIND_INTEGER, true, &v, err));
        int64_t first = v.n > 0 ? cr_gguf_array_int(&v, 0) : 0;
        for (uint64_t i = 1; i < v.n; i++) {
            if (cr_gguf_array_int(&v, i) != first) {
                return cr_fail(err, CR_E_INPUT, "%s: key %s: layers of different sizes are not supported",
                               cr_gguf_label(g), key);
            }
        }
        value = first < 0 || first > UINT32_MAX ? 0 : (uint32_t)first;
    } else {
        CR_TRY(cr_gguf_u32(g, key, required, &value, err));
    }
    if (value < 1 || value > max) {
        snprintf(range, sizeof range, "1...%u", max);
        return bad(g, key, value, range, err);
    }
    *out = value;
    return CR_OK;
}

static cr_status get_positive(const struct cr_gguf *g, const char *arch, const char *suffix, bool required, float *out,
                              struct cr_error *err)
{
    char key[96];
    snprintf(key, sizeof key, "%s.%s", arch, suffix);
    CR_TRY(cr_gguf_f32(g, key, required, out, err));
    if (!(*out > 0) || !isfinite(*out)) {
        return cr_fail(err, CR_E_INPUT, "%s: key %s: %g, expected a positive number", cr_gguf_label(g), key,
                       (double)*out);
    }
    return CR_OK;
}

static cr_status read_architecture(const struct cr_gguf *g, struct cr_model_config *c, struct cr_error *err)
{
    const char *text;
    size_t n;
    CR_TRY(cr_gguf_str(g, "general.architecture", true, &text, &n, err));
    const struct cr_architecture *found = cr_architecture_find(text, n);
    if (found != NULL) {
        memcpy(c->architecture, found->name, n + 1);
        c->rope_style = found->rope_style;
        c->permuted_qk = found->permuted_qk;
        c->qkv_bias = found->qkv_bias;
        return CR_OK;
    }
    char shown[CR_ESCAPE_BYTES], have[128] = "";
    for (size_t i = 0, end = 0; i < N_ARCHITECTURES && end < sizeof have; i++) {
        end += (size_t)snprintf(have + end, sizeof have - end, "%s%s", i > 0 ? ", " : "", architectures[i].name);
    }
    return cr_fail(err, CR_E_INPUT, "%s: key general.architecture: \"%s\" is not supported (have %s)", cr_gguf_label(g),
                   cr_escape(shown, sizeof shown, text, n), have);
}

static cr_status read_heads(const struct cr_gguf *g, struct cr_model_config *c, struct cr_error *err)
{
    const char *a = c->architecture;
    CR_TRY(get_u32(g, a, "attention.head_count", true, MAX_HEADS, &c->n_heads, err));
    c->n_kv = c->n_heads;
    CR_TRY(get_u32(g, a, "attention.head_count_kv", false, MAX_HEADS, &c->n_kv, err));
    char key[96];
    if (c->n_heads % c->n_kv != 0) {
        snprintf(key, sizeof key, "%s.attention.head_count_kv", a);
        return bad(g, key, c->n_kv, "a divisor of head_count", err);
    }
    struct cr_gguf_value v;
    snprintf(key, sizeof key, "%s.attention.key_length", a);
    if (!cr_gguf_find(g, key, &v) && c->n_embd % c->n_heads != 0) {
        snprintf(key, sizeof key, "%s.attention.head_count", a);
        return bad(g, key, c->n_heads, "a divisor of embedding_length", err);
    }
    c->head_dim = c->n_embd / c->n_heads;
    if (c->head_dim == 0) {
        c->head_dim = 1;
    }
    CR_TRY(get_u32(g, a, "attention.key_length", false, MAX_HEAD_DIM, &c->head_dim, err));
    if (c->head_dim % 2 != 0 || c->head_dim > MAX_HEAD_DIM) {
        snprintf(key, sizeof key, "%s.attention.key_length", a);
        return bad(g, key, c->head_dim, "an even number of at most 512", err);
    }
    uint32_t value_length = c->head_dim;
    CR_TRY(get_u32(g, a, "attention.value_length", false, MAX_HEAD_DIM, &value_length, err));
    if (value_length != c->head_dim) {
        snprintf(key, sizeof key, "%s.attention.value_length", a);
        return bad(g, key, value_length, "the key length", err);
    }
    c->n_rot = c->head_dim;
    CR_TRY(get_u32(g, a, "rope.dimension_count", false, c->head_dim, &c->n_rot, err));
    if (c->n_rot % 2 != 0) {
        snprintf(key, sizeof key, "%s.rope.dimension_count", a);
        return bad(g, key, c->n_rot, "an even number", err);
    }
    return CR_OK;
}

/* Linear scaling, for long also written without its type, or under an older key alone. */
static cr_status read_linear(const struct cr_gguf *g, struct cr_model_config *c, bool required, struct cr_error *err)
{
    const char *a = c->architecture;
    float factor = 1.0f;
    if (!required) {
        CR_TRY(get_positive(g, a, "rope.scale_linear", false, &factor, err));
    }
    CR_TRY(get_positive(g, a, "rope.scaling.factor", required, &factor, err));
    c->rope_freq_scale = 1.0 / (double)factor;
    return CR_OK;
}

static cr_status read_rope(const struct cr_gguf *g, struct cr_model_config *c, struct cr_error *err)
{
    const char *a = c->architecture;
    float base = 10000.0f;
    CR_TRY(get_positive(g, a, "rope.freq_base", false, &base, err));
    c->rope_base = (double)base;
    c->rope_freq_scale = 1.0;
    char key[96];
    snprintf(key, sizeof key, "%s.rope.scaling.type", a);
    const char *type = NULL;
    size_t n = 0;
    CR_TRY(cr_gguf_str(g, key, false, &type, &n, err));
    if (type == NULL || (n == 6 && memcmp(type, "linear", 6) == 0)) {
        return read_linear(g, c, type != NULL, err);
    }
    if (n == 4 && memcmp(type, "none", 4) == 0) {
        return CR_OK;
    }
    char shown[CR_ESCAPE_BYTES];
    return cr_fail(err, CR_E_INPUT, "%s: key %s: scaling \"%s\" is not supported (have none, linear, rope_freqs)",
                   cr_gguf_label(g), key, cr_escape(shown, sizeof shown, type, n));
}

/* The vocabulary is the rows of the embedding; fewer tokens than rows is padding, more is an error. */
static cr_status read_vocab(const struct cr_gguf *g, struct cr_model_config *c, struct cr_error *err)
{
    const struct cr_gguf_tensor *embd = cr_gguf_tensor_find(g, "token_embd.weight");
    if (embd == NULL) {
        return cr_fail(err, CR_E_INPUT, "%s: tensor token_embd.weight is missing", cr_gguf_label(g));
    }
    if (embd->n_dims != 2 || embd->ne[0] != c->n_embd || embd->ne[1] > INT32_MAX) {
        return cr_fail(
            err, CR_E_INPUT,
            "%s: tensor token_embd.weight: %u dimensions, rows of %llu, expected 2 and %u (embedding_length)",
            cr_gguf_label(g), embd->n_dims, (unsigned long long)embd->ne[0], c->n_embd);
    }
    c->n_vocab = (uint32_t)embd->ne[1];
    struct cr_gguf_value tokens;
    CR_TRY(cr_gguf_array(g, "tokenizer.ggml.tokens", CR_GGUF_KIND_STRING, false, &tokens, err));
    if (tokens.n > c->n_vocab) {
        return cr_fail(err, CR_E_INPUT, "%s: key tokenizer.ggml.tokens: %llu tokens, but token_embd.weight has %u rows",
                       cr_gguf_label(g), (unsigned long long)tokens.n, c->n_vocab);
    }
    c->tied = cr_gguf_tensor_find(g, "output.weight") == NULL;
    return CR_OK;
}

static cr_status refuse_experts(const struct cr_gguf *g, const char *arch, struct cr_error *err)
{
    char key[96];
    uint32_t n = 0;
    snprintf(key, sizeof key, "%s.expert_count", arch);
    CR_TRY(cr_gguf_u32(g, key, false, &n, err));
    return n == 0 ? CR_OK : bad(g, key, n, "0: mixtures of experts are not supported", err);
}

cr_status cr_model_config_read(const struct cr_gguf *g, struct cr_model_config *config, struct cr_error *err)
{
    struct cr_model_config c = {0};
    CR_TRY(read_architecture(g, &c, err));
    const char *a = c.architecture;
    CR_TRY(refuse_experts(g, a, err));
    CR_TRY(get_u32(g, a, "block_count", true, MAX_LAYERS, &c.n_layers, err));
    CR_TRY(get_u32(g, a, "embedding_length", true, MAX_WIDTH, &c.n_embd, err));
    CR_TRY(get_u32(g, a, "feed_forward_length", true, MAX_WIDTH, &c.n_ff, err));
    CR_TRY(get_u32(g, a, "context_length", true, UINT32_MAX, &c.n_ctx, err));
    c.n_ctx = c.n_ctx > MAX_CONTEXT ? MAX_CONTEXT : c.n_ctx;
    CR_TRY(read_heads(g, &c, err));
    CR_TRY(get_positive(g, a, "attention.layer_norm_rms_epsilon", true, &c.norm_eps, err));
    CR_TRY(read_rope(g, &c, err));
    CR_TRY(read_vocab(g, &c, err));
    *config = c;
    return CR_OK;
}
