/* Adapters: making, settings, export, memory. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "runtime/adapter/adapter.h"
#include "runtime/core/alloc.h"
#include "runtime/io/safetensors.h"
#include "tests/runtime/adapter_case.h"
#include "tests/support/kernel_test.h"
#include "tests/support/shape_model.h"

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
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_set_timeout(tcase, 20);
    tcase_add_test(tcase, targets_by_name);
    tcase_add_test(tcase, a_new_adapter);
    tcase_add_test(tcase, settings_are_checked);
    tcase_add_test(tcase, export_needs_no_model);
    tcase_add_test(tcase, export_of_an_adapter_without_record);
    tcase_add_test(tcase, memory_can_fail);
    suite_add_tcase(suite, tcase);
    return cr_run_suite(suite);
}
