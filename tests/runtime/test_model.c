/* Opening models: every refusal names file, key or tensor, value and what is expected (GG-46 ... GG-63). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "credence/kernels/dequant.h"
#include "runtime/core/alloc.h"
#include "runtime/model/model.h"
#include "tests/support/gguf_test.h"
#include "tests/support/kernel_test.h"
#include "tests/support/tiny_model.h"

/* One change to a valid tiny llama file: a key replaced, or a tensor renamed, reshaped or damaged. */
struct change {
    const char *id;  /* with a dash in front also the ending of the file's name */
    const char *key; /* replaced by `value` of `type`, or dropped when type is DROP */
    enum { DROP = -1, U32, F32, STR } type;
    uint32_t u32;
    float f32;
    const char *str;
    const char *tensor; /* dropped; or with `poison`, its first value (norm) or scale (matrix) made NaN */
    bool poison;
    cr_status status;
    const char *says; /* part of the message */
};

static const struct change changes[] = {
    {"GG-46 missing", "general.architecture", DROP, 0, 0, NULL, NULL, false, CR_E_INPUT, "general.architecture"},
    {"GG-46 number", "general.architecture", U32, 7, 0, NULL, NULL, false, CR_E_INPUT, "general.architecture"},
    {"GG-46 unknown", "general.architecture", STR, 0, 0, "mamba", NULL, false, CR_E_INPUT, "have llama, qwen2"},
    {"GG-47 zero", "llama.block_count", U32, 0, 0, NULL, NULL, false, CR_E_INPUT, "llama.block_count: 0"},
    {"GG-47 513", "llama.block_count", U32, 513, 0, NULL, NULL, false, CR_E_INPUT, "1...512"},
    {"GG-47 huge", "llama.block_count", U32, 1000000000, 0, NULL, NULL, false, CR_E_INPUT, "1...512"},
    {"GG-48", "llama.embedding_length", U32, 96, 0, NULL, NULL, false, CR_E_INPUT, "token_embd.weight"},
    {"GG-49 zero", "llama.attention.head_count", U32, 0, 0, NULL, NULL, false, CR_E_INPUT, "head_count: 0"},
    {"GG-49 odd", "llama.attention.head_count", U32, 6, 0, NULL, NULL, false, CR_E_INPUT, "divisor"},
    {"GG-50 zero", "llama.attention.head_count_kv", U32, 0, 0, NULL, NULL, false, CR_E_INPUT, "head_count_kv: 0"},
    {"GG-50 odd", "llama.attention.head_count_kv", U32, 3, 0, NULL, NULL, false, CR_E_INPUT, "divisor of head_count"},
    {"GG-51", "llama.feed_forward_length", U32, 96, 0, NULL, NULL, false, CR_E_INPUT, "ffn_gate"},
    {"GG-53 missing", NULL, 0, 0, 0, NULL, "blk.1.ffn_up.weight", false, CR_E_INPUT, "blk.1.ffn_up.weight is missing"},
    {"GG-55", NULL, 0, 0, 0, NULL, "blk.0.attn_norm.weight", true, CR_E_INPUT, "value 0 is not finite"},
    {"GG-56", NULL, 0, 0, 0, NULL, "blk.1.attn_v.weight", true, CR_E_INPUT, "block 0"},
    {"GG-60 zero", "llama.rope.freq_base", F32, 0, 0, NULL, NULL, false, CR_E_INPUT, "rope.freq_base"},
    {"GG-60 negative", "llama.rope.freq_base", F32, 0, -1, NULL, NULL, false, CR_E_INPUT, "rope.freq_base"},
    {"GG-60 nan", "llama.rope.freq_base", F32, 0, __builtin_nanf(""), NULL, NULL, false, CR_E_INPUT, "rope.freq_base"},
    {"GG-61 zero", "llama.attention.layer_norm_rms_epsilon", F32, 0, 0, NULL, NULL, false, CR_E_INPUT, "epsilon"},
    {"GG-61 negative", "llama.attention.layer_norm_rms_epsilon", F32, 0, -1, NULL, NULL, false, CR_E_INPUT, "epsilon"},
    {"GG-62 zero", "llama.context_length", U32, 0, 0, NULL, NULL, false, CR_E_INPUT, "context_length: 0"},
    {"GG-62 capped", "llama.context_length", U32, UINT32_MAX, 0, NULL, NULL, false, CR_OK, NULL},
    {"yarn", "llama.rope.scaling.type", STR, 0, 0, "yarn", NULL, false, CR_E_INPUT, "\"yarn\" is not supported"},
    {"GG-57", "split.count", U32, 3, 0, NULL, NULL, false, CR_E_INPUT, "3 parts, expected one file"},
    {"-00001-of-00003.gguf", "split.count", U32, 3, 0, NULL, NULL, false, CR_E_IO, "part 2 is missing"},
    {"-a-rather-long-name.gguf", "split.count", U32, 3, 0, NULL, NULL, false, CR_E_INPUT, "3 parts, expected one file"},
    {"experts", "llama.expert_count", U32, 8, 0, NULL, NULL, false, CR_E_INPUT, "expert_count: 8"},
    {"no experts", "llama.expert_count", U32, 0, 0, NULL, NULL, false, CR_OK, NULL},
    {"key length", "llama.attention.key_length", U32, 7, 0, NULL, NULL, false, CR_E_INPUT, "key_length: 7"},
    {"value length", "llama.attention.value_length", U32, 8, 0, NULL, NULL, false, CR_E_INPUT, "value_length: 8"},
    {"angles by base", "llama.rope.freq_base", F32, 0, 1e-30f, NULL, NULL, false, CR_E_INPUT, "at most 1e8"},
    {"angles by factor", "llama.rope.scaling.factor", F32, 0, 1e-9f, NULL, NULL, false, CR_E_INPUT, "at most 1e8"},
    {"angles in bounds", "llama.rope.scaling.factor", F32, 0, 1e-3f, NULL, NULL, false, CR_OK, NULL},
    {"scaling without a type", "llama.rope.scaling.factor", F32, 0, 4, NULL, NULL, false, CR_OK, NULL},
    {"scaling by its older key", "llama.rope.scale_linear", F32, 0, 4, NULL, NULL, false, CR_OK, NULL},
    {"unchanged", NULL, 0, 0, 0, NULL, NULL, false, CR_OK, NULL},
};
enum { N_CHANGES = sizeof changes / sizeof changes[0] };

static cr_status copy_keys(struct cr_gguf_writer *w, const struct cr_gguf *g, const struct change *c,
                           struct cr_error *err)
{
    for (size_t i = 0; i < cr_gguf_n_kv(g); i++) {
        if (c->key == NULL || strcmp(cr_gguf_key(g, i), c->key) != 0) {
            CR_TRY(cr_test_kv_copy(w, g, i, err));
        }
    }
    if (c->key == NULL || c->type == DROP) {
        return CR_OK;
    }
    return c->type == U32   ? cr_gguf_writer_kv_u32(w, c->key, c->u32, err)
           : c->type == F32 ? cr_gguf_writer_kv_f32(w, c->key, c->f32, err)
                            : cr_gguf_writer_kv_str(w, c->key, c->str, err);
}

/* A tensor's bytes with the change applied; NULL: leave the tensor out. Owned. */
static uint8_t *changed_tensor(const struct cr_gguf_tensor *t, const struct change *c)
{
    bool meant = c->tensor != NULL && strcmp(t->name, c->tensor) == 0;
    if (meant && !c->poison) {
        return NULL;
    }
    uint8_t *data = malloc(t->bytes);
    memcpy(data, t->data, t->bytes);
    if (meant && t->type == CR_Q_F32) {
        memset(data, 0xff, 4);
    } else if (meant) {
        data[0] = 0x00; /* a half of 0x7e00 */
        data[1] = 0x7e;
    }
    return data;
}

START_TEST(changed)
{
    const struct change *c = &changes[_i];
    struct cr_tiny_spec spec = {.type = CR_Q_Q4_0};
    struct cr_error err = {0};
    uint8_t *bytes, *kept[64];
    size_t n, n_kept = 0;
    struct cr_gguf *g;
    ck_assert(cr_tiny_model_bytes(&spec, &bytes, &n, &err) == CR_OK);
    ck_assert(cr_gguf_parse(bytes, n, "tiny", &g, &err) == CR_OK);
    struct cr_gguf_writer *w = cr_gguf_writer_create();
    ck_assert_msg(copy_keys(w, g, c, &err) == CR_OK, "%s", err.message);
    for (size_t i = 0; i < cr_gguf_n_tensors(g); i++) {
        const struct cr_gguf_tensor *t = cr_gguf_tensor_at(g, i);
        uint8_t *data = changed_tensor(t, c);
        if (data != NULL) {
            kept[n_kept++] = data;
            ck_assert(cr_gguf_writer_tensor(w, t->name, t->type, t->n_dims, t->ne, data, t->bytes, &err) == CR_OK);
        }
    }
    const char *ending = c->id[0] == '-' ? c->id : "";
    char path[64];
    snprintf(path, sizeof path, "/tmp/credence-model-XXXXXX%s", ending);
    int fd = mkstemps(path, (int)strlen(ending));
    ck_assert(fd >= 0);
    close(fd);
    ck_assert_msg(cr_gguf_writer_write(w, path, &err) == CR_OK, "%s", err.message);
    struct cr_model *model = NULL;
    long live = cr_alloc_live();
    cr_status status = cr_model_open(path, &model, &err);
    unlink(path);
    ck_assert_msg(status == c->status, "%s: status %d, expected %d (%s)", c->id, status, c->status, err.message);
    if (status != CR_OK) {
        ck_assert_msg(strstr(err.message, path) != NULL, "%s: no file name in: %s", c->id, err.message);
        ck_assert_msg(strstr(err.message, c->says) != NULL, "%s: no \"%s\" in: %s", c->id, c->says, err.message);
        ck_assert_int_eq(cr_alloc_live(), live);
    }
    if (status == CR_OK && c->type == F32) { /* the scalings among them */
        ck_assert(model->config.rope_freq_scale == 1 / (double)c->f32);
    }
    cr_model_close(model);
    cr_gguf_writer_destroy(w);
    cr_gguf_close(g);
    cr_free(bytes);
    while (n_kept > 0) {
        free(kept[--n_kept]);
    }
}
END_TEST

static void count_lines(void *ctx, enum cr_log_level level, const char *line)
{
    (void)line;
    *(int *)ctx += level == CR_LOG_WARNING;
}

/* GG-53 unknown tensor, GG-63 bytes behind the last tensor: accepted with a warning each. */
START_TEST(warnings)
{
    struct cr_tiny_spec spec = {.type = CR_Q_Q8_0};
    struct cr_error err = {0};
    uint8_t *bytes;
    size_t n;
    ck_assert(cr_tiny_model_bytes(&spec, &bytes, &n, &err) == CR_OK);
    uint8_t *longer = calloc(1, n + 64);
    memcpy(longer, bytes, n);
    struct cr_gguf *g;
    ck_assert(cr_gguf_parse(longer, n + 64, "longer", &g, &err) == CR_OK);
    struct cr_model *model;
    ck_assert(cr_model_from_gguf(g, "longer", true, &model, &err) == CR_OK);
    int n_warnings = 0;
    struct cr_host host = {.log = count_lines, .ctx = &n_warnings};
    cr_model_warn(model, &host);
    ck_assert_int_eq(n_warnings, 1);
    cr_model_close(model);
    free(longer);
    cr_free(bytes);
}
END_TEST

/* Every allocation of opening fails once: CR_E_MEMORY, nothing leaks. */
START_TEST(out_of_memory)
{
    struct cr_tiny_spec spec = {.type = CR_Q_Q8_0};
    struct cr_error err = {0};
    char path[] = "/tmp/credence-model-XXXXXX";
    close(mkstemp(path));
    ck_assert(cr_tiny_model_file(&spec, path, &err) == CR_OK);
    long live = cr_alloc_live();
    for (long at = 1;; at++) {
        struct cr_model *model;
        cr_alloc_fail_at(at, false);
        long before = cr_alloc_count();
        cr_status status = cr_model_open(path, &model, &err);
        bool reached = cr_alloc_count() - before >= at;
        cr_alloc_fail_at(0, false);
        if (status == CR_OK) {
            cr_model_close(model);
        }
        ck_assert_int_eq(cr_alloc_live(), live);
        if (!reached) {
            break;
        }
        ck_assert_int_eq(status, CR_E_MEMORY);
    }
    unlink(path);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("model");
    TCase *tcase = tcase_create("open");
    tcase_set_timeout(tcase, 60);
    tcase_add_loop_test(tcase, changed, 0, N_CHANGES);
    tcase_add_test(tcase, warnings);
    tcase_add_test(tcase, out_of_memory);
    suite_add_tcase(suite, tcase);
    return cr_run_suite(suite);
}
