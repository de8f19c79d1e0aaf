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

/* An engine; a step of training, which adds to the gradients and losses of the members. */
struct cr_engine *cr_test_engine(const struct cr_engine_options *options);
void cr_test_train(struct cr_engine *e, const struct cr_token_batch *batch, const struct cr_engine_noise *noise,
                   double *loss);

/* logits [n_rows][n_vocab] of every loss row of a text, from the input of the head that a forward pass leaves. */
void cr_test_logits(struct cr_engine *e, const struct cr_token_batch *batch, float *logits);

/* Whether the tier rounds operands to bf16. */
bool cr_test_rounds(enum cr_tier tier);

/* How far the gradient of a tiny model of two layers may be from that of the scalar tier, as 1 - cosine. It passes 7
 * products a layer and way, 28 one after another. Where both operands are rounded to bf16, each adds a relative error
 * of variance 2 (2^-9)^2 / 3; in f32 a sum of at most 128 terms adds 128 (2^-24)^2 / 3. 1 - cosine is half of the
 * total, 3.6e-5 and 2.1e-12; eight times that leaves room for what norms and attention make of it. */
double cr_test_gradient_slack(enum cr_tier tier);

double cr_test_cosine(const float *a, const float *b, size_t n);

/* Loss of a forward pass, in double from the engine's row results. */
typedef double cr_test_loss_fn(struct cr_engine *e, const struct cr_token_batch *batch, uint32_t n_labels);
cr_test_loss_fn cr_test_loss;

/* Central difference of the loss along the gradient of one matrix, against the gradient's own norm. The step moves the
 * loss by about 1e-2, so that f32 rounding of the loss (1e-6) weighs 1e-4 and the cubic term less. */
void cr_test_gradient_by(cr_test_loss_fn *loss_of, struct cr_engine *e, const struct cr_token_batch *batch,
                         uint32_t n_labels, float *param, const float *grad, size_t n, const char *what);

#endif
