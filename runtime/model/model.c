/* Opening a model: names and shapes of its tensors, finite values, identity of the base. */
#include "runtime/model/model.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "credence/kernels/dequant.h"
#include "kernels/common/halves.h"
#include "runtime/core/alloc.h"
#include "runtime/core/host.h"
#include "runtime/io/hash.h"
#include "runtime/model/config.h"

struct proj_names {
    const char *hf, *hf_path, *gguf;
};

static const struct proj_names names[CR_N_PROJ] = {
    {"q_proj", "self_attn.q_proj", "attn_q"},   {"k_proj", "self_attn.k_proj", "attn_k"},
    {"v_proj", "self_attn.v_proj", "attn_v"},   {"o_proj", "self_attn.o_proj", "attn_output"},
    {"gate_proj", "mlp.gate_proj", "ffn_gate"}, {"up_proj", "mlp.up_proj", "ffn_up"},
    {"down_proj", "mlp.down_proj", "ffn_down"},
};

const char *cr_proj_hf_name(enum cr_proj proj)
{
    return names[proj].hf;
}

const char *cr_proj_hf_path(enum cr_proj proj)
{
    return names[proj].hf_path;
}

const char *cr_proj_gguf_name(enum cr_proj proj)
{
    return names[proj].gguf;
}

static cr_status find(const struct cr_gguf *g, const char *name, const struct cr_gguf_tensor **out,
                      struct cr_error *err)
{
    *out = cr_gguf_tensor_find(g, name);
    if (*out == NULL) {
        return cr_fail(err, CR_E_INPUT, "%s: tensor %s is missing", cr_gguf_label(g), name);
    }
    return CR_OK;
}

static cr_status bad_shape(const struct cr_gguf *g, const struct cr_gguf_tensor *t, size_t n_cols, size_t n_rows,
                           struct cr_error *err)
{
    return cr_fail(err, CR_E_INPUT, "%s: tensor %s: shape [%llu, %llu] in %u dimensions, expected [%zu, %zu]",
                   cr_gguf_label(g), t->name, (unsigned long long)t->ne[0], (unsigned long long)t->ne[1], t->n_dims,
                   n_cols, n_rows);
}

/* A matrix of n_rows x n_cols that the products can multiply. */
static cr_status get_matrix(const struct cr_gguf *g, const char *name, size_t n_cols, size_t n_rows,
                            struct cr_qmat *out, struct cr_error *err)
{
    const struct cr_gguf_tensor *t;
    CR_TRY(find(g, name, &t, err));
    if (t->n_dims != 2 || t->ne[0] != n_cols || t->ne[1] != n_rows) {
        return bad_shape(g, t, n_cols, n_rows, err);
    }
    const struct cr_qtype_info *info = cr_qtype_info(t->type);
    if (info == NULL || !info->computes) {
        return cr_fail(err, CR_E_INPUT, "%s: tensor %s: type %s (%d) cannot be computed with", cr_gguf_label(g), name,
                       info != NULL ? info->name : "unknown", t->type);
    }
    if (n_cols % 32 != 0) {
        return cr_fail(err, CR_E_INPUT, "%s: tensor %s: rows of %zu values, expected a multiple of 32",
                       cr_gguf_label(g), name, n_cols);
    }
    *out = (struct cr_qmat){t->data, n_cols / info->block_values * info->block_bytes, n_rows, n_cols, t->type};
    return CR_OK;
}

/* A vector of n finite f32 values; absent and not required: NULL. */
static cr_status get_vector(const struct cr_gguf *g, const char *name, size_t n, bool required, const float **out,
                            struct cr_error *err)
{
    const struct cr_gguf_tensor *t = cr_gguf_tensor_find(g, name);
    *out = NULL;
    if (t == NULL && !required) {
        return CR_OK;
    }
    CR_TRY(find(g, name, &t, err));
    if (t->n_dims != 1 || t->ne[0] != n) {
        return bad_shape(g, t, n, 1, err);
    }
    if (t->type != CR_Q_F32) {
        const struct cr_qtype_info *info = cr_qtype_info(t->type);
        return cr_fail(err, CR_E_INPUT, "%s: tensor %s: type %s, expected F32", cr_gguf_label(g), name,
                       info != NULL ? info->name : "unknown");
    }
    const float *values = t->data;
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(values[i])) {
            return cr_fail(err, CR_E_INPUT, "%s: tensor %s: value %zu is not finite", cr_gguf_label(g), name, i);
        }
    }
    *out = values;
    return CR_OK;
}

static cr_status get_layer(struct cr_model *model, uint32_t i, struct cr_error *err)
{
    const struct cr_model_config *c = &model->config;
    struct cr_layer *layer = &model->layers[i];
    size_t q = (size_t)c->n_heads * c->head_dim, kv = (size_t)c->n_kv * c->head_dim;
    const size_t n_in[CR_N_PROJ] = {c->n_embd, c->n_embd, c->n_embd, q, c->n_embd, c->n_embd, c->n_ff};
    const size_t n_out[CR_N_PROJ] = {q, kv, kv, c->n_embd, c->n_ff, c->n_ff, c->n_embd};
    char name[64];
    for (int proj = 0; proj < CR_N_PROJ; proj++) {
        snprintf(name, sizeof name, "blk.%u.%s.weight", i, names[proj].gguf);
        CR_TRY(get_matrix(model->gguf, name, n_in[proj], n_out[proj], &layer->proj[proj], err));
        snprintf(name, sizeof name, "blk.%u.%s.bias", i, names[proj].gguf);
        bool required = proj <= CR_PROJ_V && c->qkv_bias;
        CR_TRY(get_vector(model->gguf, name, n_out[proj], required, &layer->bias[proj], err));
    }
    snprintf(name, sizeof name, "blk.%u.attn_norm.weight", i);
    CR_TRY(get_vector(model->gguf, name, c->n_embd, true, &layer->attn_norm, err));
    snprintf(name, sizeof name, "blk.%u.ffn_norm.weight", i);
    return get_vector(model->gguf, name, c->n_embd, true, &layer->ffn_norm, err);
}

/* A block whose scale is not finite would dequantise to values that are not: found here, once. */
static cr_status check_matrix(const struct cr_gguf *g, const struct cr_gguf_tensor *t, struct cr_error *err)
{
    const struct cr_qtype_info *info = cr_qtype_info(t->type);
    const uint8_t *p = t->data;
    size_t n_blocks = t->bytes / info->block_bytes;
    const struct cr_qtype_halves halves = cr_qtype_halves(t->type);
    for (size_t i = 0; i < n_blocks; i++, p += info->block_bytes) {
        bool finite = true;
        if (t->type == CR_Q_F32) {
            finite = (((uint32_t)p[3] << 8 | p[2]) & 0x7f80) != 0x7f80;
        } else if (t->type == CR_Q_BF16) {
            finite = (((uint32_t)p[1] << 8 | p[0]) & 0x7f80) != 0x7f80;
        } else if (t->type == CR_Q_F16) {
            finite = (p[1] & 0x7c) != 0x7c;
        } else {
            for (unsigned h = 0; h < halves.n; h++) {
                finite = finite && (p[halves.at + 2 * h + 1] & 0x7c) != 0x7c;
            }
        }
        if (!finite) {
            return cr_fail(err, CR_E_INPUT, "%s: tensor %s: block %zu has a scale or value that is not finite",
                           cr_gguf_label(g), t->name, i);
        }
    }
    return CR_OK;
}

static cr_status check_values(struct cr_model *model, struct cr_error *err)
{
    struct cr_hash *hash = cr_hash_create();
    if (hash == NULL) {
        return cr_fail(err, CR_E_MEMORY, "%s: no memory for a digest", cr_gguf_label(model->gguf));
    }
    cr_status status = CR_OK;
    for (size_t i = 0; i < cr_gguf_n_tensors(model->gguf) && status == CR_OK; i++) {
        const struct cr_gguf_tensor *t = cr_gguf_tensor_at(model->gguf, i);
        const struct cr_qtype_info *info = cr_qtype_info(t->type);
        if (info != NULL && info->computes) {
            status = check_matrix(model->gguf, t, err);
        }
        cr_hash_update(hash, t->data, t->bytes);
    }
    model->base_hash = cr_hash_64(hash);
    cr_hash_destroy(hash);
    return status;
}

/* The largest angle that cr_rope_table takes is 1e8. */
static cr_status check_angles(const struct cr_model *model, struct cr_error *err)
{
    const struct cr_model_config *c = &model->config;
    for (uint32_t i = 0; i < c->n_rot / 2; i++) {
        double factor = model->rope_factors != NULL ? (double)model->rope_factors[i] : 1;
        double frequency = pow(c->rope_base, -2.0 * i / c->n_rot) * c->rope_freq_scale / factor;
        if (!(factor > 0)) {
            return cr_fail(err, CR_E_INPUT, "%s: tensor rope_freqs.weight: value %u is %g, expected a positive number",
                           cr_gguf_label(model->gguf), i, factor);
        }
        if (!(frequency * c->n_ctx <= 1e8)) {
            return cr_fail(err, CR_E_INPUT,
                           "%s: rope.freq_base, rope.scaling.factor or rope_freqs.weight: position %u is turned by %g "
                           "radians, expected at most 1e8",
                           cr_gguf_label(model->gguf), c->n_ctx, frequency * c->n_ctx);
        }
    }
    return CR_OK;
}

static cr_status fill(struct cr_model *model, bool check, struct cr_error *err)
{
    const struct cr_gguf *g = model->gguf;
    struct cr_model_config *c = &model->config;
    CR_TRY(cr_model_config_read(g, c, err));
    model->layers = cr_zalloc(c->n_layers, sizeof *model->layers);
    if (model->layers == NULL) {
        return cr_fail(err, CR_E_MEMORY, "%s: no memory for %u layers", cr_gguf_label(g), c->n_layers);
    }
    CR_TRY(get_matrix(g, "token_embd.weight", c->n_embd, c->n_vocab, &model->token_embd, err));
    model->output = model->token_embd;
    if (!c->tied) {
        CR_TRY(get_matrix(g, "output.weight", c->n_embd, c->n_vocab, &model->output, err));
    }
    CR_TRY(get_vector(g, "output_norm.weight", c->n_embd, true, &model->output_norm, err));
    CR_TRY(get_vector(g, "rope_freqs.weight", c->n_rot / 2, false, &model->rope_factors, err));
    CR_TRY(check_angles(model, err));
    for (uint32_t i = 0; i < c->n_layers; i++) {
        CR_TRY(get_layer(model, i, err));
    }
    return check ? check_values(model, err) : CR_OK;
}

cr_status cr_model_from_gguf(struct cr_gguf *gguf, const char *path, bool check, struct cr_model **out,
                             struct cr_error *err)
{
    struct cr_model *model = cr_zalloc(1, sizeof *model);
    char *path_copy = cr_strdup(path);
    if (model == NULL || path_copy == NULL) {
        cr_free(model);
        cr_free(path_copy);
        return cr_fail(err, CR_E_MEMORY, "%s: no memory for the model", cr_gguf_label(gguf));
    }
    model->gguf = gguf;
    model->path = path_copy;
    cr_status status = fill(model, check, err);
    if (status != CR_OK) {
        model->gguf = NULL;
        cr_model_close(model);
        return status;
    }
    *out = model;
    return CR_OK;
}

/* What stands before -00001-of-0000N.gguf, the ending of a part; 0 where the name has another. */
static size_t part_stem(const char *path)
{
    static const char ending[] = "-00000-of-00000.gguf";
    size_t n = strlen(path), tail = sizeof ending - 1;
    for (size_t i = 0; n > tail && i < tail; i++) {
        char c = path[n - tail + i];
        if (ending[i] == '0' ? c < '0' || c > '9' : c != ending[i]) {
            return 0;
        }
    }
    return n > tail ? n - tail : 0;
}

static cr_status check_split(const struct cr_gguf *g, const char *path, struct cr_error *err)
{
    uint32_t count = 1;
    CR_TRY(cr_gguf_u32(g, "split.count", false, &count, err));
    if (count <= 1) {
        return CR_OK;
    }
    size_t stem = part_stem(path);
    for (uint32_t part = 1; part <= count && stem > 0; part++) {
        char name[4200];
        int n = snprintf(name, sizeof name, "%.*s-%05u-of-%05u.gguf", (int)stem, path, part, count);
        if (n > 0 && (size_t)n < sizeof name && access(name, R_OK) != 0) {
            char shown[CR_ESCAPE_BYTES];
            return cr_fail(err, CR_E_IO, "%s: key split.count: %u parts, of which part %u is missing (%s)",
                           cr_gguf_label(g), count, part, cr_escape(shown, sizeof shown, name, (size_t)n));
        }
    }
    return cr_fail(err, CR_E_INPUT, "%s: key split.count: %u parts, expected one file (join the parts first)",
                   cr_gguf_label(g), count);
}

cr_status cr_model_open(const char *path, struct cr_model **out, struct cr_error *err)
{
    struct cr_gguf *gguf;
    CR_TRY(cr_gguf_open(path, &gguf, err));
    cr_status status = check_split(gguf, path, err);
    if (status == CR_OK) {
        status = cr_model_from_gguf(gguf, path, true, out, err);
    }
    if (status != CR_OK) {
        cr_gguf_close(gguf);
    }
    return status;
}

static bool uses(const struct cr_model *model, const struct cr_gguf_tensor *t)
{
    const void *whole[] = {model->token_embd.data, model->output.data, model->output_norm, model->rope_factors};
    for (size_t i = 0; i < sizeof whole / sizeof whole[0]; i++) {
        if (t->data == whole[i]) {
            return true;
        }
    }
    unsigned layer;
    if (sscanf(t->name, "blk.%u.", &layer) != 1 || layer >= model->config.n_layers) {
        return false;
    }
    const struct cr_layer *l = &model->layers[layer];
    bool found = t->data == l->attn_norm || t->data == l->ffn_norm;
    for (int proj = 0; proj < CR_N_PROJ; proj++) {
        found |= t->data == l->proj[proj].data || t->data == l->bias[proj];
    }
    return found;
}

void cr_model_warn(const struct cr_model *model, const struct cr_host *host)
{
    const struct cr_gguf *g = model->gguf;
    size_t unused = 0;
    const char *first = NULL;
    for (size_t i = 0; i < cr_gguf_n_tensors(g); i++) {
        const struct cr_gguf_tensor *t = cr_gguf_tensor_at(g, i);
        if (!uses(model, t)) {
            first = unused++ == 0 ? t->name : first;
        }
    }
    if (unused > 0) {
        char shown[CR_ESCAPE_BYTES];
        cr_host_log(host, CR_LOG_WARNING, "%s: %zu tensors are not used, the first is %s", cr_gguf_label(g), unused,
                    cr_escape(shown, sizeof shown, first, strlen(first)));
    }
    if (cr_gguf_trailing_bytes(g) > 0) {
        cr_host_log(host, CR_LOG_WARNING, "%s: %llu bytes behind the last tensor are ignored", cr_gguf_label(g),
                    (unsigned long long)cr_gguf_trailing_bytes(g));
    }
}

void cr_model_label_rows(const struct cr_model *model, enum cr_tier tier, const int32_t *ids, uint32_t n, float *out)
{
    const struct cr_qmat *head = &model->output;
    cr_dequant_fn *dequant = cr_dequant_fn_for(head->type, tier);
    for (uint32_t i = 0; i < n; i++) {
        dequant((const char *)head->data + (size_t)ids[i] * head->row_bytes, 0, head->n_cols, out + i * head->n_cols);
    }
}

void cr_model_close(struct cr_model *model)
{
    if (model != NULL) {
        cr_gguf_close(model->gguf);
        cr_free(model->layers);
        cr_free(model->path);
        cr_free(model);
    }
}
