#include "runtime/optim/schedule.h"

#include <math.h>

#include "credence/kernels/math.h"

uint64_t cr_schedule_warmup(double warmup, uint64_t n_steps)
{
    double steps = warmup < 1 ? warmup * (double)n_steps : warmup;
    uint64_t whole = (uint64_t)steps;
    return (double)whole < steps ? whole + 1 : whole;
}

double cr_schedule_lr(const struct cr_schedule *schedule, uint64_t step)
{
    uint64_t n = schedule->n_steps;
    uint64_t w = schedule->n_warmup;
    if (step < w) {
        return schedule->lr * ((double)step / (double)w);
    }
    if (schedule->kind == CR_LR_CONSTANT) {
        return schedule->lr;
    }
    if (step >= n) {
        return 0;
    }
    double length = (double)(n - w);
    if (schedule->kind == CR_LR_COSINE) {
        return schedule->lr * (0.5 * (1.0 + cr_cos(M_PI * ((double)(step - w) / length))));
    }
    return schedule->lr * ((double)(n - step) / length);
}
