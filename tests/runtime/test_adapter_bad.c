/* Adapters that must be refused (AD cases of the reliability list), each by a message that names what is wrong. */
#include <check.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "credence/kernels/dequant.h"
#include "runtime/adapter/adapter.h"
#include "runtime/core/alloc.h"
#include "runtime/io/file.h"
#include "runtime/io/gguf_write.h"
#include "runtime/io/safetensors.h"
#include "runtime/io/sys.h"
#include "tests/support/io_test.h"
#include "tests/support/kernel_test.h"
#include "tests/support/shape_model.h"

static char dir[] = "/tmp/credence-bad-XXXXXX";
static char config_path[128], tensors_path[128], gguf_path[128];
static struct cr_model model;
static struct cr_adapter *loaded;
static struct cr_error err;

static int no_sync(int fd)
{
    (void)fd;
    return 0;
}

/* A good adapter of rank 2 on q_proj and v_proj in both forms. */
static void setup(void)
{
    static struct cr_sys quick; /* nothing here is about durability */
    struct cr_adapter *adapter = NULL;
    quick = cr_sys_real;
    quick.fsync = no_sync;
    cr_sys_set(&quick);
    ck_assert_ptr_nonnull(mkdtemp(dir));
    snprintf(config_path, sizeof config_path, "%s/adapter_config.json", dir);
    snprintf(tensors_path, sizeof tensors_path, "%s/adapter_model.safetensors", dir);
    snprintf(gguf_path, sizeof gguf_path, "%s/a.gguf", dir);
    model = cr_shape_model("llama");
    ck_assert_int_eq(cr_adapter_create(&model, 2, 4, 0, 1 << CR_PROJ_Q | 1 << CR_PROJ_V, 1, false, &adapter, &err),
                     CR_OK);
    ck_assert_int_eq(cr_adapter_save_peft(adapter, &model, dir, "adamw", &err), CR_OK);
    ck_assert_int_eq(cr_adapter_save_gguf(adapter, &model, gguf_path, &err), CR_OK);
    cr_adapter_destroy(adapter);
}

static void teardown(void)
{
    ck_assert_ptr_null(loaded);
    unlink(config_path);
    unlink(tensors_path);
    unlink(gguf_path);
    rmdir(dir);
    ck_assert_int_eq(cr_alloc_live(), 0);
}

static void set_config(const char *key, json_t *value)
{
    json_t *config = json_load_file(config_path, 0, NULL);
    if (value == NULL) {
        json_object_del(config, key);
    } else {
        json_object_set_new(config, key, value);
    }
    json_dump_file(config, config_path, 0);
    json_decref(config);
}

static cr_status load(const char *path)
{
    return cr_adapter_load(path, &model, false, false, NULL, &loaded, &err);
}

static void expect(cr_status status, cr_status wanted, const char *says)
{
    ck_assert_msg(status == wanted && strstr(err.message, says) != NULL, "status %d: %s (expected %s)", status,
                  err.message, says);
    ck_assert_ptr_null(strchr(err.message, '\n'));
}

static const struct {
    const char *id, *key, *value, *says; /* value NULL: the key is taken out */
} bad_configs[] = {
    {"AD-01", "peft_type", "\"PROMPT_TUNING\"", "\"peft_type\" is \"PROMPT_TUNING\""},
    {"AD-01", "peft_type", NULL, "peft_type"},
    {"AD-01", "task_type", "\"SEQ_CLS\"", "task_type"},
    {"AD-06", "r", "0", "\"r\" is 0"},
    {"AD-06", "r", "-3", "\"r\" is -3"},
    {"AD-06", "r", "1000000", "\"r\" is 1000000"},
    {"AD-06", "r", "2.0", "r"},
    {"AD-06", "r", "9223372036854775807", "\"r\" is 9223372036854775807"},
    {"AD-07", "lora_alpha", "0", "\"lora_alpha\" is 0"},
    {"AD-07", "lora_alpha", "-16", "\"lora_alpha\" is -16"},
    {"AD-07", "lora_alpha", "1e39", "\"lora_alpha\" is 1e+39"},
    {"AD-07", "lora_alpha", "1e-60", "\"lora_alpha\" is 1e-60"},
    {"AD-07", "lora_alpha", "\"16\"", "lora_alpha"},
    {"AD-07", "lora_dropout", "1.0", "\"lora_dropout\" is 1"},
    {"AD-08", "target_modules", "[]", "\"target_modules\" is empty"},
    {"AD-08", "target_modules", "[\"c_attn\"]", "entry 0 is \"c_attn\""},
    {"AD-08", "target_modules", "[\"q_proj\",\"lm_head\"]", "entry 1 is \"lm_head\""},
    {"AD-08", "target_modules", "[1]", "entry 0"},
    {"AD-08", "target_modules", "\"\"", "empty"},
    {"AD-10", "target_modules", "[\"q_proj\"]", "v_proj.lora_A.weight is not among target_modules"},
    {"AD-10", "target_modules", "[\"q_proj\",\"v_proj\",\"k_proj\"]", "no tensor for k_proj"},
    {"AD-10", "r", "4", "has rank 2, but adapter_config.json says 4"},
    {"AD-10", "rank_pattern", "{\"v_proj\":4}", "v_proj.lora_A.weight has rank 2, but adapter_config.json says 4"},
    {"AD-10", "rank_pattern", "{\"v_proj\":0}", "gives rank 0"},
    {"AD-10", "rank_pattern", "{\"v_proj\":2.5}", "gives rank 2.5"},
    {"AD-07", "alpha_pattern", "{\"v_proj\":-1}", "gives alpha -1"},
    {"AD-10", "layers_to_transform", "[1,2]",
     "layers.0.self_attn.q_proj.lora_A.weight is left out by layers_to_transform"},
    {"AD-10", "layers_to_transform", "0", "layers.1.self_attn.q_proj.lora_A.weight is left out by layers_to_transform"},
    {"AD-10", "exclude_modules", "[\"lm_head\",\"v_proj\"]", "v_proj.lora_A.weight is left out by exclude_modules"},
    {"AD-12", "exclude_modules", "\".*v_proj\"", "\"exclude_modules\" is .*v_proj"},
    {"AD-12", "rank_pattern", "{\".*v_proj\":2}", "only plain module names"},
    {"AD-12", "rank_pattern", "[]", "\"rank_pattern\" is not an object"},
    {"AD-12", "use_dora", "true", "\"use_dora\" is true"},
    {"AD-12", "use_qalora", "true", "\"use_qalora\" is true"},
    {"AD-12", "bias", "\"all\"", "\"bias\" is all"},
    {"AD-12", "bias", "\"lora_only\"", "\"bias\" is lora_only"},
    {"AD-12", "lora_bias", "true", "\"lora_bias\""},
    {"AD-12", "modules_to_save", "[\"lm_head\"]", "\"modules_to_save\""},
    {"AD-12", "fan_in_fan_out", "true", "\"fan_in_fan_out\""},
    {"AD-12", "layer_replication", "[[0,1]]", "\"layer_replication\""},
    {"AD-12", "init_lora_weights", "\"pissa_niter_4\"", "\"init_lora_weights\" is pissa_niter_4"},
    {"AD-12", "trainable_token_indices", "[3]", "\"trainable_token_indices\""},
    {"AD-12", "loftq_config", "{\"loftq_bits\":4}", "\"loftq_config\""},
};

START_TEST(bad_configurations)
{
    const char *text = bad_configs[_i].value;
    json_t *value = text != NULL ? json_loads(text, JSON_DECODE_ANY, NULL) : NULL;
    ck_assert(text == NULL || value != NULL);
    set_config(bad_configs[_i].key, value);
    expect(load(dir), CR_E_INPUT, bad_configs[_i].says);
}
END_TEST

/* Harmless settings of other versions. */
static const char *const good_configs[][2] = {
    {"use_new_thing", "false"},
    {"modules_to_save", "[]"},
    {"eva_config", "null"},
    {"target_modules", "\"all-linear\""},
    {"target_modules", "null"},
    {"r", "2"},
    {"peft_version", "\"0.18.0\""},
    {"layers_to_transform", "[0,1,2]"},
    {"layers_to_transform", "[]"},
    {"exclude_modules", "[\"lm_head\",\"my_v_proj\",\"proj\"]"},
    {"exclude_modules", "\"\""},
    {"init_lora_weights", "\"gaussian\""},
    {"target_modules", "[\"model.layers.0.self_attn.q_proj\",\"v_proj\"]"},
    {"task_type", "null"},
    {"rank_pattern", "{\"k_proj\":64}"},
};

START_TEST(harmless_configurations)
{
    set_config(good_configs[_i][0], json_loads(good_configs[_i][1], JSON_DECODE_ANY, NULL));
    ck_assert_msg(load(dir) == CR_OK, "%s", err.message);
    cr_adapter_destroy(loaded);
    loaded = NULL;
}
END_TEST

#define Q0 "base_model.model.model.layers.0.self_attn.q_proj.lora_"

/* One change to the tensors: the pair of layer 0, q_proj. */
static const struct {
    const char *id, *name_a, *name_b;
    uint64_t rows_a, cols_a, rows_b, cols_b;
    float first;
    const char *says;
} bad_tensors[] = {
    {"AD-02", Q0 "A.weight", Q0 "B.weight", 2, 32, 32, 3, 1, "q_proj.lora_A.weight has rank 2"},
    {"AD-03", Q0 "A.weight", NULL, 2, 32, 0, 0, 1, "lora_A.weight has no partner"},
    {"AD-03", NULL, Q0 "B.weight", 0, 0, 32, 2, 1, "lora_B.weight has no partner"},
    {"AD-04", "base_model.model.model.layers.3.self_attn.q_proj.lora_A.weight", NULL, 2, 32, 0, 0, 1,
     "layer 3, the base"},
    {"AD-04", "base_model.model.model.layers.99999.self_attn.q_proj.lora_A.weight", NULL, 2, 32, 0, 0, 1,
     "layer 99999"},
    {"AD-04", "base_model.model.model.layers.4294967296.self_attn.q_proj.lora_A.weight", NULL, 2, 32, 0, 0, 1,
     "tensor"},
    {"AD-04", "base_model.model.lm_head.lora_A.weight", NULL, 2, 32, 0, 0, 1, "no such projection"},
    {"AD-04", "base_model.model.model.layers.00.self_attn.q_proj.lora_A.weight", NULL, 2, 32, 0, 0, 1,
     "no such projection"},
    {"AD-04", "base_model.model.bert.encoder.layer.0.attention.self.query.lora_A.weight", NULL, 2, 32, 0, 0, 1,
     "no such projection"},
    {"AD-12", "base_model.model.model.embed_tokens.lora_embedding_A", NULL, 2, 32, 0, 0, 1, "adapted embeddings"},
    {"AD-12", "base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector", NULL, 2, 32, 0, 0, 1, "DoRA"},
    {"AD-12", "base_model.model.score.weight", NULL, 2, 32, 0, 0, 1, "a whole weight"},
    {"AD-05", Q0 "A.weight", Q0 "B.weight", 2, 31, 32, 2, 1, "q_proj.lora_A.weight has shape 2 x 31, 2 x 32 expected"},
    {"AD-05", Q0 "A.weight", Q0 "B.weight", 2, 32, 16, 2, 1, "q_proj.lora_B.weight has shape 16 x 2, 32 x 2 expected"},
    {"AD-05", Q0 "A.weight", Q0 "B.weight", 32, 2, 2, 32, 1, "q_proj.lora_A.weight"},
    {"AD-06", Q0 "A.weight", Q0 "B.weight", 0, 32, 32, 0, 1, "has rank 0"},
    {"AD-06", Q0 "A.weight", Q0 "B.weight", 33, 32, 32, 33, 1, "has rank 33"},
    {"AD-06", Q0 "A.weight", Q0 "B.weight", 257, 32, 32, 257, 1, "has rank 257"},
    {"AD-09", Q0 "A.weight", Q0 "B.weight", 2, 32, 32, 2, NAN, "q_proj.lora_A.weight"},
    {"AD-09", Q0 "A.weight", Q0 "B.weight", 2, 32, 32, 2, INFINITY, "q_proj.lora_A.weight"},
    {"empty", NULL, NULL, 0, 0, 0, 0, 1, "no adapter tensors"},
};

START_TEST(bad_tensors_are_named)
{
    static float data[300 * 40];
    struct cr_safetensors_writer *w = cr_safetensors_writer_create();
    const uint64_t a[2] = {bad_tensors[_i].rows_a, bad_tensors[_i].cols_a};
    const uint64_t b[2] = {bad_tensors[_i].rows_b, bad_tensors[_i].cols_b};
    data[0] = bad_tensors[_i].first;
    if (bad_tensors[_i].name_a != NULL) {
        ck_assert_int_eq(cr_safetensors_writer_tensor(w, bad_tensors[_i].name_a, CR_ST_F32, 2, a, data, &err), CR_OK);
    }
    if (bad_tensors[_i].name_b != NULL) {
        ck_assert_int_eq(cr_safetensors_writer_tensor(w, bad_tensors[_i].name_b, CR_ST_F32, 2, b, data, &err), CR_OK);
    }
    ck_assert_int_eq(cr_safetensors_writer_write(w, tensors_path, &err), CR_OK);
    cr_safetensors_writer_destroy(w);
    set_config("target_modules", json_null());
    expect(load(dir), CR_E_INPUT, bad_tensors[_i].says);
}
END_TEST

START_TEST(other_dtypes) /* AD-15 */
{
    const char *header = "{\"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight\":{\"dtype\":\"F64\","
                         "\"shape\":[1,1],\"data_offsets\":[0,8]}}";
    uint8_t bytes[300] = {0};
    size_t n = strlen(header);
    bytes[0] = (uint8_t)n;
    memcpy(bytes + 8, header, n);
    cr_test_put_file(tensors_path, bytes, 8 + n + 8);
    expect(load(dir), CR_E_INPUT, "dtype F64, F32, F16 or BF16 expected");
}
END_TEST

START_TEST(missing_files) /* AD-10 */
{
    char pickle[160];
    unlink(tensors_path);
    expect(load(dir), CR_E_IO, "adapter_model.safetensors");
    snprintf(pickle, sizeof pickle, "%s/adapter_model.bin", dir);
    cr_test_put_file(pickle, "x", 1);
    expect(load(dir), CR_E_INPUT, "pickle");
    unlink(pickle);
    unlink(config_path);
    expect(load(dir), CR_E_IO, "adapter_config.json");
    expect(load("/nonexistent/adapter"), CR_E_IO, "/nonexistent/adapter");
}
END_TEST

START_TEST(bad_records)
{
    struct cr_safetensors_writer *w = cr_safetensors_writer_create();
    ck_assert_int_eq(cr_safetensors_writer_metadata(w, "credence.base_xxh3", "0123456789ABCDEF", &err), CR_OK);
    ck_assert_int_eq(cr_safetensors_writer_write(w, tensors_path, &err), CR_OK);
    cr_safetensors_writer_destroy(w);
    expect(load(dir), CR_E_INPUT, "credence.base_xxh3 is \"0123456789ABCDEF\"");
}
END_TEST

/* AD-13: cut anywhere, any bit of the header turned. The one thing that may still load is a changed text of the
 * metadata. */
START_TEST(damaged_files)
{
    const char *path = _i == 0 ? tensors_path : gguf_path;
    const char *what = _i == 0 ? dir : gguf_path;
    uint8_t *bytes = NULL;
    size_t n = 0, n_header = 0;
    ck_assert_int_eq(cr_file_read(path, 1 << 20, &bytes, &n, &err), CR_OK);
    for (size_t cut = 0; cut < n; cut += cut < 3000 ? 7 : 101) {
        cr_test_put_file(path, bytes, cut);
        ck_assert_msg(load(what) == CR_E_INPUT, "cut at %zu: %s", cut, err.message);
    }
    size_t metadata_end = 0;
    if (_i == 0) {
        memcpy(&n_header, bytes, 8);
        n_header += 8;
        const uint8_t *end = memchr(bytes + 10, '}', n_header - 10);
        metadata_end = (size_t)(end - bytes);
    } else {
        n_header = 900; /* keys and the first tensor descriptions */
    }
    for (size_t at = 0; at < n_header; at += _i == 0 ? 3 : 1) {
        bytes[at] ^= (uint8_t)(1 << at % 7);
        cr_test_put_file(path, bytes, n);
        cr_status status = load(what);
        if (status == CR_OK) {
            cr_adapter_destroy(loaded);
            loaded = NULL;
            ck_assert_msg(_i == 1 || at < metadata_end, "byte %zu changed and accepted", at);
        } else {
            ck_assert_msg(status == CR_E_INPUT || status == CR_E_BUSY, "byte %zu: %s", at, err.message);
        }
        bytes[at] ^= (uint8_t)(1 << at % 7);
    }
    cr_free(bytes);
}
END_TEST

/* What a GGUF adapter says: architecture, type, kind, alpha, and the tensors. */
static const struct {
    const char *id, *architecture, *type, *kind;
    float alpha;
    int dtype;
    const char *name;
    uint64_t ne[3];
    float first;
    const char *says;
} bad_gguf[] = {
    {"AD-01", "qwen2", "adapter", "lora", 4, CR_Q_F32, NULL, {0}, 0, "general.architecture is \"qwen2\", \"llama\""},
    {"AD-01", "llama", "model", "lora", 4, CR_Q_F32, NULL, {0}, 0, "general.type is \"model\", \"adapter\""},
    {"AD-12", "llama", "adapter", "loha", 4, CR_Q_F32, NULL, {0}, 0, "adapter.type is \"loha\", \"lora\""},
    {"AD-07", "llama", "adapter", "lora", 0, CR_Q_F32, NULL, {0}, 0, "adapter.lora.alpha is 0"},
    {"AD-07", "llama", "adapter", "lora", -1, CR_Q_F32, NULL, {0}, 0, "adapter.lora.alpha is -1"},
    {"AD-07", "llama", "adapter", "lora", NAN, CR_Q_F32, NULL, {0}, 0, "adapter.lora.alpha"},
    {"AD-07", "llama", "adapter", "lora", INFINITY, CR_Q_F32, NULL, {0}, 0, "adapter.lora.alpha"},
    {"empty", "llama", "adapter", "lora", 4, CR_Q_F32, NULL, {0}, 0, "no adapter tensors"},
    {"AD-04", "llama", "adapter", "lora", 4, CR_Q_F32, "token_embd.weight.lora_a", {32, 2, 1}, 0, "seven projections"},
    {"AD-04", "llama", "adapter", "lora", 4, CR_Q_F32, "blk.0.attn_q.weight", {32, 32, 1}, 0, "seven projections"},
    {"AD-04", "llama", "adapter", "lora", 4, CR_Q_F32, "blk.7.attn_q.weight.lora_a", {32, 2, 1}, 0, "layer 7"},
    {"AD-03", "llama", "adapter", "lora", 4, CR_Q_F32, "blk.1.attn_q.weight.lora_a", {32, 2, 1}, 0, "no partner"},
    {"AD-05", "llama", "adapter", "lora", 4, CR_Q_F32, "blk.0.attn_q.weight.lora_a", {16, 2, 1}, 0, "has shape 2 x 16"},
    {"AD-05", "llama", "adapter", "lora", 4, CR_Q_F32, "blk.0.attn_q.weight.lora_a", {32, 2, 2}, 0, "2 expected"},
    {"AD-02", "llama", "adapter", "lora", 4, CR_Q_F32, "blk.0.attn_q.weight.lora_a", {32, 4, 1}, 0, "has rank 4"},
    {"AD-09", "llama", "adapter", "lora", 4, CR_Q_F32, "blk.0.attn_q.weight.lora_a", {32, 2, 1}, NAN, "element 0"},
    {"AD-15", "llama", "adapter", "lora", 4, CR_Q_Q8_0, "blk.0.attn_q.weight.lora_a", {32, 2, 1}, 0, "type 8"},
};

START_TEST(bad_gguf_adapters)
{
    static float a[4096], b[32 * 2];
    struct cr_gguf_writer *w = cr_gguf_writer_create();
    const uint64_t ne_b[2] = {2, 32};
    a[0] = bad_gguf[_i].first;
    ck_assert_int_eq(cr_gguf_writer_kv_str(w, "general.architecture", bad_gguf[_i].architecture, &err), CR_OK);
    ck_assert_int_eq(cr_gguf_writer_kv_str(w, "general.type", bad_gguf[_i].type, &err), CR_OK);
    ck_assert_int_eq(cr_gguf_writer_kv_str(w, "adapter.type", bad_gguf[_i].kind, &err), CR_OK);
    ck_assert_int_eq(cr_gguf_writer_kv_f32(w, "adapter.lora.alpha", bad_gguf[_i].alpha, &err), CR_OK);
    if (bad_gguf[_i].name != NULL) {
        const uint64_t *ne = bad_gguf[_i].ne;
        const struct cr_qtype_info *info = cr_qtype_info(bad_gguf[_i].dtype);
        size_t bytes = ne[0] * ne[1] * ne[2] / info->block_values * info->block_bytes;
        ck_assert_int_eq(
            cr_gguf_writer_tensor(w, bad_gguf[_i].name, bad_gguf[_i].dtype, ne[2] > 1 ? 3 : 2, ne, a, bytes, &err),
            CR_OK);
        ck_assert_int_eq(cr_gguf_writer_tensor(w, "blk.0.attn_q.weight.lora_b", CR_Q_F32, 2, ne_b, b, sizeof b, &err),
                         CR_OK);
    }
    ck_assert_int_eq(cr_gguf_writer_write(w, gguf_path, &err), CR_OK);
    cr_gguf_writer_destroy(w);
    expect(load(gguf_path), CR_E_INPUT, bad_gguf[_i].says);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("adapter_bad");
    TCase *tcase = tcase_create("adapter_bad");
    suite_add_tcase(suite, tcase);
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_set_timeout(tcase, 60);
    tcase_add_loop_test(tcase, bad_configurations, 0, sizeof bad_configs / sizeof bad_configs[0]);
    tcase_add_loop_test(tcase, harmless_configurations, 0, sizeof good_configs / sizeof good_configs[0]);
    tcase_add_loop_test(tcase, bad_tensors_are_named, 0, sizeof bad_tensors / sizeof bad_tensors[0]);
    tcase_add_test(tcase, other_dtypes);
    tcase_add_test(tcase, missing_files);
    tcase_add_test(tcase, bad_records);
    tcase_add_loop_test(tcase, damaged_files, 0, 2);
    tcase_add_loop_test(tcase, bad_gguf_adapters, 0, sizeof bad_gguf / sizeof bad_gguf[0]);
    return cr_run_suite(suite);
}
