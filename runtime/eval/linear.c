#include "runtime/eval/linear.h"

#include "credence/kernels/rng.h"

#define NOISE_LOGITS 0x6c6f6769u

bool cr_linear_answer(const struct cr_linear_question *q, uint32_t example, const float *logits, const float *jacobian,
                      size_t stride, uint32_t n_classes, struct cr_linear_answer *out)
{
    double mean[CR_LABELS_MAX], var[CR_LABELS_MAX * CR_LABELS_MAX];
    const struct cr_noise noise = {.key = {(uint32_t)q->seed, NOISE_LOGITS}, .tensor = example};
    cr_laplace_set_var(q->set, q->s2, jacobian, stride, n_classes, var);
    for (uint32_t c = 0; c < n_classes; c++) {
        mean[c] = (double)logits[c];
    }
    for (uint32_t i = 0; i < n_classes * n_classes; i++) {
        var[i] *= q->temperature;
    }
    if (!(cr_laplace_factor_var(var, n_classes) > 0)) {
        return false;
    }
    cr_laplace_predict(mean, var, n_classes, NULL, &noise, q->rng, q->n_draws, out->probs, &out->expected_entropy);
    return true;
}
