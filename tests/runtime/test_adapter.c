/* Adapters: making, both file forms and back, export, memory. */
#include <check.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/adapter/adapter.h"
#include "runtime/core/alloc.h"
#include "runtime/io/gguf.h"
#include "runtime/io/safetensors.h"
#include "tests/support/shape_model.h"

static char dir[] = "/tmp/credence-adapter-XXXXXX";
static char config_path[128], tensors_path[128], gguf_path[128];
static struct cr_model model;
static struct cr_adapter *adapter, *again;
static struct cr_error err;
static char logged[1024];

static void log_line(void *ctx, enum cr_log_level level, const char *line)
{
    (void)ctx, (void)level;
    snprintf(logged, sizeof logged, "%s", line);
}

static const struct cr_host host = {.log = log_line};

static void setup(void)
{
    ck_assert_ptr_nonnull(mkdtemp(dir));
    snprintf(config_path, sizeof config_path, "%s/adapter_config.json", dir);
    snprintf(tensors_path, sizeof tensors_path, "%s/adapter_model.safetensors", dir);
    snprintf(gguf_path, sizeof gguf_path, "%s/a.gguf", dir);
    model = cr_shape_model("llama");
    logged[0] = '\0';
}

static void teardown(void)
{
    cr_adapter_destroy(adapter);
    cr_adapter_destroy(again);
    unlink(config_path);
    unlink(tensors_path);
    unlink(gguf_path);
    rmdir(dir);
    ck_assert_int_eq(cr_alloc_live(), 0);
}

#define CHECK_OK(call) ck_assert_msg((call) == CR_OK, "%s", err.message)

enum { QKV_DOWN = 1 << CR_PROJ_Q | 1 << CR_PROJ_K | 1 << CR_PROJ_V | 1 << CR_PROJ_DOWN };

/* B becomes a ramp, so that every row is known by its values. */
static void make(uint32_t rank, double alpha, uint32_t targets)
{
    CHECK_OK(cr_adapter_create(&model, rank, alpha, 0.125, targets, 42, false, &adapter, &err));
    for (uint32_t i = 0; i < CR_SHAPE_LAYERS * CR_N_PROJ; i++) {
        struct cr_lora *slot = &adapter->slots[i];
        for (uint32_t j = 0; slot->rank > 0 && j < slot->n_out * slot->rank; j++) {
            slot->b[j] = (float)(i * 10000 + j) * 0.5f;
        }
    }
}

static void check_same(const struct cr_adapter *x, const struct cr_adapter *y)
{
    ck_assert_uint_eq(x->n_layers, y->n_layers);
    ck_assert_uint_eq(x->n_params, y->n_params);
    ck_assert_uint_eq(x->n_trainable, y->n_trainable);
    ck_assert_uint_eq(x->rank, y->rank);
    ck_assert_uint_eq(x->targets, y->targets);
    ck_assert(x->alpha == y->alpha);
    ck_assert_uint_eq(x->base_hash, y->base_hash);
    ck_assert_mem_eq(x->params, y->params, x->n_params * sizeof *x->params);
    for (uint32_t i = 0; i < x->n_layers * CR_N_PROJ; i++) {
        ck_assert_uint_eq(x->slots[i].rank, y->slots[i].rank);
        ck_assert_uint_eq(x->slots[i].tensor_id, i);
        if (x->slots[i].rank > 0) {
            ck_assert_uint_eq(x->slots[i].n_in, y->slots[i].n_in);
            ck_assert_uint_eq(x->slots[i].n_out, y->slots[i].n_out);
            ck_assert(x->slots[i].scale == y->slots[i].scale);
        }
    }
}

START_TEST(targets_by_name)
{
    uint32_t targets = 77;
    CHECK_OK(cr_targets_parse("q_proj,v_proj", &targets, &err));
    ck_assert_uint_eq(targets, 1 << CR_PROJ_Q | 1 << CR_PROJ_V);
    CHECK_OK(cr_targets_parse("attn_output, ffn_down,self_attn.k_proj ", &targets, &err));
    ck_assert_uint_eq(targets, 1 << CR_PROJ_O | 1 << CR_PROJ_DOWN | 1 << CR_PROJ_K);
    CHECK_OK(cr_targets_parse("all", &targets, &err));
    ck_assert_uint_eq(targets, 127);
    const char *bad[] = {"", "q_proj,", "q_proj,lm_head", "all,q_proj", "q_pro", "q_proj v_proj"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        ck_assert_int_eq(cr_targets_parse(bad[i], &targets, &err), CR_E_USAGE);
        ck_assert_uint_eq(targets, 127);
    }
    ck_assert_ptr_nonnull(strstr(err.message, "q_proj v_proj"));
}
END_TEST

START_TEST(a_new_adapter)
{
    CHECK_OK(cr_adapter_create(&model, 5, 10, 0.1, QKV_DOWN, 7, true, &adapter, &err));
    ck_assert_uint_eq(adapter->rank, 5);
    ck_assert_uint_eq(adapter->base_hash, model.base_hash);
    /* rank * (in + out) of q k v down, three layers */
    size_t expected = 3 * 5 * ((32 + 32) + (32 + 16) * 2 + (48 + 32));
    ck_assert_uint_eq(adapter->n_trainable, expected);
    ck_assert_ptr_null(cr_adapter_slot(adapter, 0, CR_PROJ_O)->a);
    ck_assert_uint_eq(cr_adapter_slot(adapter, 0, CR_PROJ_O)->rank, 0);
    const float *end = adapter->params;
    double sum = 0, square = 0;
    size_t n = 0;
    for (uint32_t i = 0; i < CR_SHAPE_LAYERS * CR_N_PROJ; i++) {
        const struct cr_lora *slot = &adapter->slots[i];
        if (slot->rank == 0) {
            continue;
        }
        ck_assert_ptr_eq(slot->a, end); /* parameter order, every matrix on a cache line */
        ck_assert_uint_eq((uintptr_t)slot->a % 64, 0);
        ck_assert_uint_eq((uintptr_t)slot->b % 64, 0);
        ck_assert_ptr_eq(slot->b, slot->a + (slot->n_in * 5 + 15) / 16 * 16);
        ck_assert_ptr_eq(slot->grad_b, adapter->grads + (slot->b - adapter->params));
        ck_assert(slot->scale == 2.0f);
        float bound = 1.0f / sqrtf((float)slot->n_in);
        for (uint32_t j = 0; j < slot->n_in * 5; j++) {
            ck_assert(fabsf(slot->a[j]) <= bound);
            sum += slot->a[j] / bound;
            square += (slot->a[j] / bound) * (slot->a[j] / bound);
            n++;
        }
        for (uint32_t j = 0; j < slot->n_out * 5; j++) {
            ck_assert(slot->b[j] == 0);
        }
        end = slot->b + (slot->n_out * 5 + 15) / 16 * 16;
    }
    ck_assert_uint_eq((size_t)(end - adapter->params), adapter->n_params);
    /* uniform on +-1: mean 0 +- 1/sqrt(3n), mean square 1/3 +- sqrt(4/45/n); five standard deviations */
    ck_assert_double_lt(fabs(sum / (double)n), 5 / sqrt(3.0 * (double)n));
    ck_assert_double_lt(fabs(square / (double)n - 1.0 / 3), 5 * sqrt(4.0 / 45 / (double)n));
    CHECK_OK(cr_adapter_create(&model, 5, 10, 0.1, QKV_DOWN, 7, false, &again, &err));
    check_same(adapter, again);
    ck_assert_ptr_null(again->grads);
    cr_adapter_destroy(again);
    CHECK_OK(cr_adapter_create(&model, 5, 10, 0.1, QKV_DOWN, 8, false, &again, &err));
    ck_assert(again->params[0] != adapter->params[0]);
    ck_assert(adapter->slots[0].a[0] != adapter->slots[CR_N_PROJ].a[0]);
}
END_TEST

START_TEST(settings_are_checked)
{
    const struct {
        uint32_t rank;
        double alpha, dropout;
        uint32_t targets;
    } bad[] = {{0, 16, 0, 1},       {257, 16, 0, 1}, {33, 16, 0, 1},   {8, 0, 0, 1},    {8, -1, 0, 1}, {8, NAN, 0, 1},
               {8, INFINITY, 0, 1}, {8, 16, 1, 1},   {8, 16, -0.1, 1}, {8, 16, NAN, 1}, {8, 16, 0, 0}, {8, 16, 0, 128}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        ck_assert_int_eq(cr_adapter_create(&model, bad[i].rank, bad[i].alpha, bad[i].dropout, bad[i].targets, 0, false,
                                           &adapter, &err),
                         CR_E_USAGE);
        ck_assert_ptr_null(adapter);
    }
    CHECK_OK(cr_adapter_create(&model, 48, 16, 0, 1 << CR_PROJ_DOWN, 0, false, &adapter, &err)); /* 32 x 48 */
}
END_TEST

static const char *const architectures[] = {"llama", "qwen2"};

START_TEST(peft_round_trip)
{
    model = cr_shape_model(architectures[_i]);
    make(4, 6, 127);
    CHECK_OK(cr_adapter_save_peft(adapter, &model, dir, "adamw", &err));
    CHECK_OK(cr_adapter_load(dir, &model, true, false, &host, &again, &err));
    check_same(adapter, again);
    ck_assert(again->dropout == 0.125);
    ck_assert_ptr_nonnull(again->grads);
    ck_assert_str_eq(logged, "");
    /* a second save gives the same bytes */
    struct cr_safetensors *st;
    CHECK_OK(cr_safetensors_open(tensors_path, &st, &err));
    ck_assert_str_eq(cr_safetensors_metadata(st, "format", NULL), "pt");
    ck_assert_str_eq(cr_safetensors_metadata(st, "credence.base_xxh3", NULL), "0123456789abcdef");
    ck_assert_str_eq(cr_safetensors_metadata(st, "credence.method", NULL), "adamw");
    ck_assert_uint_eq(cr_safetensors_n(st), 3 * 7 * 2);
    cr_safetensors_close(st);
}
END_TEST

/* The row order is checked against the formula itself, written for the file's side. */
START_TEST(rows_of_q_and_k_are_reordered)
{
    struct cr_safetensors *st;
    model = cr_shape_model(architectures[_i]);
    make(4, 8, QKV_DOWN);
    CHECK_OK(cr_adapter_save_peft(adapter, &model, dir, NULL, &err));
    CHECK_OK(cr_safetensors_open(tensors_path, &st, &err));
    for (int p = 0; p < CR_N_PROJ; p++) {
        char name[128];
        const struct cr_lora *slot = cr_adapter_slot(adapter, 1, (enum cr_proj)p);
        if (slot->rank == 0) {
            continue;
        }
        snprintf(name, sizeof name, "base_model.model.model.layers.1.%s.lora_B.weight",
                 cr_proj_hf_path((enum cr_proj)p));
        const struct cr_st_tensor *t = cr_safetensors_find(st, name);
        ck_assert_ptr_nonnull(t);
        ck_assert_uint_eq(t->shape[0], slot->n_out);
        ck_assert_uint_eq(t->shape[1], 4);
        float *rows = malloc(t->n * sizeof *rows);
        CHECK_OK(cr_safetensors_read_f32(st, t, rows, &err));
        bool moved = _i == 0 && (p == CR_PROJ_Q || p == CR_PROJ_K);
        const uint32_t d = CR_SHAPE_HEAD;
        for (uint32_t h = 0; h < slot->n_out / d; h++) {
            for (uint32_t j = 0; j < d / 2; j++) {
                for (uint32_t s = 0; s < 2; s++) {
                    uint32_t gguf_row = h * d + 2 * j + s;
                    uint32_t hf_row = moved ? h * d + s * d / 2 + j : gguf_row;
                    ck_assert_mem_eq(rows + hf_row * 4, slot->b + gguf_row * 4, 4 * sizeof(float));
                }
            }
        }
        free(rows);
    }
    cr_safetensors_close(st);
}
END_TEST

START_TEST(the_configuration_is_peft)
{
    make(4, 6, QKV_DOWN);
    CHECK_OK(cr_adapter_save_peft(adapter, &model, dir, NULL, &err));
    json_t *config = json_load_file(config_path, 0, NULL);
    json_t *expected = json_loads(
        "{\"alpha_pattern\":{},\"auto_mapping\":null,\"base_model_name_or_path\":null,\"bias\":\"none\","
        "\"fan_in_fan_out\":false,\"inference_mode\":true,\"init_lora_weights\":true,\"layers_pattern\":null,"
        "\"layers_to_transform\":null,\"loftq_config\":{},\"lora_alpha\":6,\"lora_dropout\":0.125,"
        "\"megatron_config\":null,\"megatron_core\":\"megatron.core\",\"modules_to_save\":null,\"peft_type\":\"LORA\","
        "\"r\":4,\"rank_pattern\":{},\"revision\":null,\"target_modules\":[\"q_proj\",\"k_proj\",\"v_proj\","
        "\"down_proj\"],\"task_type\":\"CAUSAL_LM\",\"use_dora\":false,\"use_rslora\":false}",
        0, NULL);
    ck_assert_ptr_nonnull(expected);
    ck_assert(json_equal(config, expected));
    json_decref(config);
    json_decref(expected);
}
END_TEST

START_TEST(gguf_round_trip)
{
    struct cr_gguf *g;
    struct cr_gguf_value v;
    model = cr_shape_model(architectures[_i]);
    make(4, 6, 127);
    CHECK_OK(cr_adapter_save_gguf(adapter, &model, gguf_path, &err));
    CHECK_OK(cr_adapter_load(gguf_path, &model, false, false, &host, &again, &err));
    check_same(adapter, again);
    CHECK_OK(cr_gguf_open(gguf_path, &g, &err));
    const struct cr_gguf_tensor *t = cr_gguf_tensor_find(g, "blk.2.ffn_down.weight.lora_b");
    ck_assert_ptr_nonnull(t);
    ck_assert_uint_eq(t->n_dims, 2);
    ck_assert_uint_eq(t->ne[0], 4);
    ck_assert_uint_eq(t->ne[1], CR_SHAPE_EMBD);
    t = cr_gguf_tensor_find(g, "blk.2.ffn_down.weight.lora_a");
    ck_assert_uint_eq(t->ne[0], CR_SHAPE_FF);
    ck_assert_uint_eq(t->ne[1], 4);
    t = cr_gguf_tensor_find(g, "blk.0.attn_q.weight.lora_b"); /* rows as they are in the model file */
    ck_assert_mem_eq(t->data, adapter->slots[0].b, t->bytes);
    ck_assert(cr_gguf_find(g, "adapter.lora.alpha", &v));
    ck_assert_int_eq(v.type, CR_GGUF_F32);
    ck_assert_uint_eq(cr_gguf_n_tensors(g), 3 * 7 * 2);
    cr_gguf_close(g);
}
END_TEST

START_TEST(ranks_and_scales_may_differ)
{
    make(4, 6, 1 << CR_PROJ_Q | 1 << CR_PROJ_V);
    json_t *config;
    CHECK_OK(cr_adapter_save_peft(adapter, &model, dir, NULL, &err));
    config = json_load_file(config_path, 0, NULL);
    json_object_set_new(
        config, "alpha_pattern",
        json_pack("{s:f,s:i}", "layers.1.self_attn.v_proj", 1.5, "^model\\.layers\\.2\\.self_attn\\.q_proj", 40));
    json_dump_file(config, config_path, 0);
    CHECK_OK(cr_adapter_load(dir, &model, false, false, &host, &again, &err));
    ck_assert(cr_adapter_slot(again, 0, CR_PROJ_V)->scale == 1.5f);
    ck_assert(cr_adapter_slot(again, 1, CR_PROJ_V)->scale == 0.375f);
    ck_assert(cr_adapter_slot(again, 2, CR_PROJ_Q)->scale == 10.0f);
    ck_assert(cr_adapter_slot(again, 2, CR_PROJ_V)->scale == 1.5f);
    /* kept by PEFT as patterns, by GGUF in B */
    cr_adapter_destroy(adapter);
    CHECK_OK(cr_adapter_save_peft(again, &model, dir, NULL, &err));
    CHECK_OK(cr_adapter_load(dir, &model, false, false, &host, &adapter, &err));
    check_same(adapter, again);
    cr_adapter_destroy(adapter);
    adapter = NULL;
    CHECK_OK(cr_adapter_save_gguf(again, &model, gguf_path, &err));
    CHECK_OK(cr_adapter_load(gguf_path, &model, false, false, &host, &adapter, &err));
    for (uint32_t i = 0; i < CR_SHAPE_LAYERS * CR_N_PROJ; i++) {
        const struct cr_lora *x = &adapter->slots[i], *y = &again->slots[i];
        for (uint32_t j = 0; x->rank > 0 && j < x->n_out * x->rank; j++) {
            double was = (double)y->scale * y->b[j];
            /* one rounding of B to f32 */
            ck_assert_double_le(fabs((double)x->scale * x->b[j] - was), fabs(was) * 0x1p-23);
        }
    }
    json_decref(config);
}
END_TEST

START_TEST(rank_stabilised_scale)
{
    make(4, 6, 1);
    CHECK_OK(cr_adapter_save_peft(adapter, &model, dir, NULL, &err));
    json_t *config = json_load_file(config_path, 0, NULL);
    json_object_set_new(config, "use_rslora", json_true());
    json_dump_file(config, config_path, 0);
    CHECK_OK(cr_adapter_load(dir, &model, false, false, &host, &again, &err));
    ck_assert(again->slots[0].scale == 3.0f); /* 6 / sqrt(4) */
    cr_adapter_destroy(adapter);
    CHECK_OK(cr_adapter_save_peft(again, &model, dir, NULL, &err));
    CHECK_OK(cr_adapter_load(dir, &model, false, false, &host, &adapter, &err));
    check_same(adapter, again);
    json_decref(config);
}
END_TEST

START_TEST(half_formats_are_read)
{
    struct cr_safetensors_writer *w = cr_safetensors_writer_create();
    static const uint16_t bf16[2 * 32] = {0x3f80, 0xc000}, f16[32 * 2] = {0x3c00, 0xc000};
    const uint64_t shape_a[2] = {2, 32}, shape_b[2] = {32, 2};
    make(2, 4, 1 << CR_PROJ_O);
    CHECK_OK(cr_adapter_save_peft(adapter, &model, dir, NULL, &err));
    for (int layer = 0; layer < 1; layer++) {
        CHECK_OK(cr_safetensors_writer_tensor(w, "base_model.model.model.layers.0.self_attn.o_proj.lora_A.weight",
                                              CR_ST_BF16, 2, shape_a, bf16, &err));
        CHECK_OK(cr_safetensors_writer_tensor(w, "base_model.model.model.layers.0.self_attn.o_proj.lora_B.weight",
                                              CR_ST_F16, 2, shape_b, f16, &err));
    }
    CHECK_OK(cr_safetensors_writer_write(w, tensors_path, &err));
    cr_safetensors_writer_destroy(w);
    CHECK_OK(cr_adapter_load(dir, &model, false, false, &host, &again, &err));
    const struct cr_lora *slot = cr_adapter_slot(again, 0, CR_PROJ_O);
    ck_assert(slot->a[0] == 1.0f && slot->a[1] == -2.0f && slot->b[0] == 1.0f && slot->b[1] == -2.0f);
    ck_assert_uint_eq(again->base_hash, 0);
    ck_assert_ptr_nonnull(strstr(logged, "no record of the base model"));
    ck_assert_uint_eq(cr_adapter_slot(again, 1, CR_PROJ_O)->rank, 0); /* not every layer need be adapted */
}
END_TEST

START_TEST(another_base_is_refused) /* AD-11 */
{
    make(2, 4, 1);
    CHECK_OK(cr_adapter_save_peft(adapter, &model, dir, NULL, &err));
    CHECK_OK(cr_adapter_save_gguf(adapter, &model, gguf_path, &err));
    model.base_hash = 5;
    const char *paths[2] = {dir, gguf_path};
    for (int i = 0; i < 2; i++) {
        ck_assert_int_eq(cr_adapter_load(paths[i], &model, false, false, &host, &again, &err), CR_E_BUSY);
        ck_assert_ptr_null(again);
        ck_assert_ptr_nonnull(strstr(err.message, "0123456789abcdef"));
        CHECK_OK(cr_adapter_load(paths[i], &model, false, true, &host, &again, &err));
        ck_assert_ptr_nonnull(strstr(logged, "0000000000000005"));
        cr_adapter_destroy(again);
        again = NULL;
    }
}
END_TEST

/* PEFT -> GGUF -> PEFT without the model gives the same numbers. */
START_TEST(export_needs_no_model)
{
    char second[160], file[200];
    make(4, 6, QKV_DOWN);
    CHECK_OK(cr_adapter_save_peft(adapter, &model, dir, NULL, &err));
    struct cr_export_options options = {.size = sizeof options, .adapter = dir, .format = "gguf", .output = gguf_path};
    CHECK_OK(cr_export(&options, &host, &err));
    CHECK_OK(cr_adapter_load(gguf_path, &model, false, false, &host, &again, &err));
    check_same(adapter, again);
    ck_assert_int_eq(cr_export(&options, &host, &err), CR_E_USAGE); /* exists */
    options.force = true;
    CHECK_OK(cr_export(&options, &host, &err));
    snprintf(second, sizeof second, "%s/p", dir);
    options =
        (struct cr_export_options){.size = sizeof options, .adapter = gguf_path, .format = "peft", .output = second};
    CHECK_OK(cr_export(&options, &host, &err));
    cr_adapter_destroy(again);
    CHECK_OK(cr_adapter_load(second, &model, false, false, &host, &again, &err));
    check_same(adapter, again);
    ck_assert_int_eq(cr_export(&options, &host, &err), CR_E_USAGE);
    options.format = "onnx";
    ck_assert_int_eq(cr_export(&options, &host, &err), CR_E_USAGE);
    options.format = NULL;
    options.adapter = NULL;
    ck_assert_int_eq(cr_export(&options, &host, &err), CR_E_USAGE);
    options.adapter = "/nonexistent";
    ck_assert_int_eq(cr_export(&options, &host, &err), CR_E_IO);
    snprintf(file, sizeof file, "%s/adapter_config.json", second);
    unlink(file);
    snprintf(file, sizeof file, "%s/adapter_model.safetensors", second);
    unlink(file);
    rmdir(second);
}
END_TEST

START_TEST(export_of_an_adapter_without_record)
{
    struct cr_safetensors_writer *w = cr_safetensors_writer_create();
    static const float zeros[32 * 2];
    const uint64_t shape_a[2] = {2, 32}, shape_b[2] = {32, 2};
    make(2, 4, 1 << CR_PROJ_Q);
    CHECK_OK(cr_adapter_save_peft(adapter, &model, dir, NULL, &err));
    CHECK_OK(cr_safetensors_writer_tensor(w, "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight",
                                          CR_ST_F32, 2, shape_a, zeros, &err));
    CHECK_OK(cr_safetensors_writer_tensor(w, "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight",
                                          CR_ST_F32, 2, shape_b, zeros, &err));
    CHECK_OK(cr_safetensors_writer_write(w, tensors_path, &err));
    cr_safetensors_writer_destroy(w);
    struct cr_export_options options = {.size = sizeof options, .adapter = dir, .format = "gguf", .output = gguf_path};
    ck_assert_int_eq(cr_export(&options, &host, &err), CR_E_USAGE);
    ck_assert_ptr_nonnull(strstr(err.message, "name the base model"));
    ck_assert_int_ne(access(gguf_path, F_OK), 0);
    CHECK_OK(cr_adapter_load(dir, &model, false, false, &host, &again, &err)); /* AD-14: B all zero */
}
END_TEST

START_TEST(memory_can_fail)
{
    make(2, 4, QKV_DOWN);
    CHECK_OK(cr_adapter_save_peft(adapter, &model, dir, "adamw", &err));
    CHECK_OK(cr_adapter_save_gguf(adapter, &model, gguf_path, &err));
    long live = cr_alloc_live();
    for (int job = 0; job < 5; job++) {
        for (long at = 1;; at++) {
            cr_alloc_fail_at(at, true);
            cr_status status = job == 0   ? cr_adapter_create(&model, 2, 4, 0, 127, 1, true, &again, &err)
                               : job == 1 ? cr_adapter_load(dir, &model, true, false, &host, &again, &err)
                               : job == 2 ? cr_adapter_load(gguf_path, &model, true, false, &host, &again, &err)
                               : job == 3 ? cr_adapter_save_peft(adapter, &model, dir, "adamw", &err)
                                          : cr_adapter_save_gguf(adapter, &model, gguf_path, &err);
            cr_alloc_fail_at(0, false);
            if (status == CR_OK) {
                ck_assert_int_gt(at, 3);
                break;
            }
            ck_assert_msg(status == CR_E_MEMORY, "job %d allocation %ld: %s", job, at, err.message);
            ck_assert_ptr_null(again);
            ck_assert_int_eq(cr_alloc_live(), live);
        }
        cr_adapter_destroy(again);
        again = NULL;
    }
    CHECK_OK(cr_adapter_load(dir, &model, false, false, &host, &again, &err)); /* what is there is whole */
    check_same(adapter, again);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("adapter");
    TCase *tcase = tcase_create("adapter");
    suite_add_tcase(suite, tcase);
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_set_timeout(tcase, 20);
    tcase_add_test(tcase, targets_by_name);
    tcase_add_test(tcase, a_new_adapter);
    tcase_add_test(tcase, settings_are_checked);
    tcase_add_loop_test(tcase, peft_round_trip, 0, 2);
    tcase_add_loop_test(tcase, rows_of_q_and_k_are_reordered, 0, 2);
    tcase_add_test(tcase, the_configuration_is_peft);
    tcase_add_loop_test(tcase, gguf_round_trip, 0, 2);
    tcase_add_test(tcase, ranks_and_scales_may_differ);
    tcase_add_test(tcase, rank_stabilised_scale);
    tcase_add_test(tcase, half_formats_are_read);
    tcase_add_test(tcase, another_base_is_refused);
    tcase_add_test(tcase, export_needs_no_model);
    tcase_add_test(tcase, export_of_an_adapter_without_record);
    tcase_add_test(tcase, memory_can_fail);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
