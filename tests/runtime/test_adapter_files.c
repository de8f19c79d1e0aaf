/* Adapters: both file forms and back. */
#include <check.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/adapter/adapter.h"
#include "runtime/io/gguf.h"
#include "runtime/io/safetensors.h"
#include "tests/runtime/adapter_case.h"
#include "tests/support/kernel_test.h"
#include "tests/support/shape_model.h"

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

int main(void)
{
    Suite *suite = suite_create("adapter files");
    TCase *tcase = tcase_create("adapter files");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_set_timeout(tcase, 20);
    tcase_add_loop_test(tcase, peft_round_trip, 0, 2);
    tcase_add_loop_test(tcase, rows_of_q_and_k_are_reordered, 0, 2);
    tcase_add_test(tcase, the_configuration_is_peft);
    tcase_add_loop_test(tcase, gguf_round_trip, 0, 2);
    tcase_add_test(tcase, ranks_and_scales_may_differ);
    tcase_add_test(tcase, rank_stabilised_scale);
    tcase_add_test(tcase, half_formats_are_read);
    tcase_add_test(tcase, another_base_is_refused);
    suite_add_tcase(suite, tcase);
    return cr_run_suite(suite);
}
