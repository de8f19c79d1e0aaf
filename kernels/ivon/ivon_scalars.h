/* ivon_scalars: the scalars of a step, each made in double and rounded once; for the reference and the lanes. */
#ifndef CR_IVON_SCALARS_H
#define CR_IVON_SCALARS_H

#include "credence/kernels/ivon.h"
#include "credence/kernels/math.h"

struct ivon_scalars {
    float ess, inv_ess, decay, scale;
    float beta1, rest1, rest2, debias, rate, radius;
    float inv_sample;
};

static inline struct ivon_scalars ivon_scalars_of(const struct cr_ivon_args *a)
{
    double rate = a->rescale_lr ? a->lr * (a->hess_init + a->weight_decay) : a->lr;
    return (struct ivon_scalars){
        .ess = (float)a->ess,
        .inv_ess = (float)(1.0 / a->ess),
        .decay = (float)a->weight_decay,
        .scale = (float)a->grad_scale,
        .beta1 = (float)a->beta1,
        .rest1 = (float)((1.0 - a->beta1) * a->clip),
        .rest2 = (float)(1.0 - a->beta2),
        .debias = a->debias ? (float)(1.0 / (1.0 - cr_pow(a->beta1, (double)a->t))) : 1.0f,
        .rate = (float)rate,
        .radius = (float)a->clip_radius,
        .inv_sample = (float)(1.0 / (double)(a->sample > 0 ? a->sample : 1)),
    };
}

#endif
