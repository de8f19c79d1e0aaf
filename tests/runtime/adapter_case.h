/* adapter_case: adapters of a model without weights, saved in a directory of their own. */
#ifndef CR_TESTS_ADAPTER_CASE_H
#define CR_TESTS_ADAPTER_CASE_H

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "runtime/adapter/adapter.h"
#include "runtime/core/alloc.h"
#include "tests/support/shape_model.h"

static char dir[] = "/tmp/credence-adapter-XXXXXX";
static char config_path[128], tensors_path[128], gguf_path[128];
static struct cr_model model;
static struct cr_adapter *adapter, *again;
static struct cr_error err;
static char logged[1024];

static inline void log_line(void *ctx, enum cr_log_level level, const char *line)
{
    (void)ctx, (void)level;
    snprintf(logged, sizeof logged, "%s", line);
}

static const struct cr_host host = {.log = log_line};

static inline void setup(void)
{
    ck_assert_ptr_nonnull(mkdtemp(dir));
    snprintf(config_path, sizeof config_path, "%s/adapter_config.json", dir);
    snprintf(tensors_path, sizeof tensors_path, "%s/adapter_model.safetensors", dir);
    snprintf(gguf_path, sizeof gguf_path, "%s/a.gguf", dir);
    model = cr_shape_model("llama");
    logged[0] = '\0';
}

static inline void teardown(void)
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
static inline void make(uint32_t rank, double alpha, uint32_t targets)
{
    CHECK_OK(cr_adapter_create(&model, rank, alpha, 0.125, targets, 42, false, &adapter, &err));
    for (uint32_t i = 0; i < CR_SHAPE_LAYERS * CR_N_PROJ; i++) {
        struct cr_lora *slot = &adapter->slots[i];
        for (uint32_t j = 0; slot->rank > 0 && j < slot->n_out * slot->rank; j++) {
            slot->b[j] = (float)(i * 10000 + j) * 0.5f;
        }
    }
}

static inline void check_same(const struct cr_adapter *x, const struct cr_adapter *y)
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

#endif
