/* linear: the answers of a Laplace posterior by the linearised model.
 *
 *   f(x) ~ N(z(x), T J P^-1 J^T),  p(y|x) = mean of softmax over draws of f       (laplace.h; jacobian.h for J)
 *
 * The logit draws of an example are keyed by (seed, example): an answer never depends on its neighbours. Private to
 * runtime/eval.
 */
#ifndef CR_EVAL_LINEAR_H
#define CR_EVAL_LINEAR_H

#include "credence/kernels/rng.h"
#include "runtime/data/batch.h"
#include "runtime/eval/jacobian.h"
#include "runtime/posterior/laplace_set.h"

/* Logit draws where the user says nothing. */
enum { CR_LINEAR_DRAWS = 10000 };

struct cr_linear_answer {
    double probs[CR_LABELS_MAX], expected_entropy;
};

struct cr_linear_question {
    const struct cr_laplace_set *set;
    const struct cr_rng_ops *rng;
    double s2, temperature;
    uint64_t seed;
    uint32_t n_draws;
};

/* Of one example: f32 logits [n_classes], rows of log p(class) [n_classes][stride]. False when they are not finite. */
bool cr_linear_answer(const struct cr_linear_question *q, uint32_t example, const float *logits, const float *jacobian,
                      size_t stride, uint32_t n_classes, struct cr_linear_answer *out);

#endif
