/* engine_test: models, adapters, batches and engines for tests of the model, without files or training. */
#ifndef CR_TESTS_ENGINE_TEST_H
#define CR_TESTS_ENGINE_TEST_H

#include "kernels/lowrank/lora.h"
#include "runtime/model/engine.h"
#include "tests/support/tiny_model.h"

/* A model parsed from owned memory. */
struct cr_test_model {
    uint8_t *bytes;
    struct cr_model *model;
};

struct cr_test_model cr_test_model_make(const struct cr_tiny_spec *spec);
void cr_test_model_free(struct cr_test_model *m);

/* Adapters on the projections of `targets` (bits of enum cr_proj) with both matrices random in +-range. */
struct cr_test_lora {
    struct cr_lora *lora; /* [n_layers * CR_N_PROJ] */
    float *params, *grads;
    size_t n_params;
};

struct cr_test_lora cr_test_lora_make(const struct cr_model *model, uint32_t targets, uint32_t rank, float scale,
                                      float range);
void cr_test_lora_free(struct cr_test_lora *l);

/* Sequences of random ids packed in the order given; every token but the last of a sequence is a loss row when
 * n_labels is 0, else the last token is, with answer = sequence % n_labels. example numbers are those given. */
struct cr_token_batch cr_test_batch_make(const uint32_t *lengths, const uint32_t *examples, size_t n, uint32_t n_labels,
                                         float weight);
void cr_test_batch_free(struct cr_token_batch *batch);

#endif
