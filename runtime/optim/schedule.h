/* schedule: the learning rate of each optimiser step.
 *
 *   warm-up  step < w          lr * step / w                      (the first step of a warm-up has rate 0)
 *   linear   step >= w         lr * (n - step) / (n - w)
 *   cosine                     lr * (1 + cos(pi (step - w) / (n - w))) / 2
 *   constant                   lr
 *
 * step counts from 0, n = steps of the run, w = warm-up steps. All in double, without the C library's cosine.
 */
#ifndef CR_OPTIM_SCHEDULE_H
#define CR_OPTIM_SCHEDULE_H

#include <stdint.h>

#include "credence/credence.h"

struct cr_schedule {
    enum cr_lr_schedule kind;
    double lr;
    uint64_t n_steps, n_warmup;
};

/* Warm-up steps of the setting: below 1 a fraction of n_steps, rounded up, else that many steps. */
uint64_t cr_schedule_warmup(double warmup, uint64_t n_steps);

/* Rate of step (0-based). Steps from n_steps on have the rate of n_steps. */
double cr_schedule_lr(const struct cr_schedule *schedule, uint64_t step);

#endif
