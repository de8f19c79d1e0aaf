/* ivon: the definition, element by element. */
#include <math.h>
#include <string.h>

#include "kernels/common/half.h"
#include "kernels/common/tiers.h"
#include "kernels/ivon/ivon_scalars.h"

static float fused(float a, float b, float c)
{
    return __builtin_fmaf(a, b, c);
}

static float eps_at(const float *given, const struct cr_noise *noise, size_t e)
{
    return given != NULL ? given[e] : cr_normal_at(noise, e);
}

/* inverse: 1 / (h + wd) */
static void emit(const struct cr_ivon_args *a, const struct ivon_scalars *c, float mean, float inverse, size_t e)
{
    if (a->next == NULL && a->next_high == NULL) {
        return;
    }
    float next = fused(eps_at(a->eps_next, &a->noise_next, e), __builtin_sqrtf(c->inv_ess * inverse), mean);
    if (a->next != NULL) {
        a->next[e] = next;
    }
    if (a->next_high != NULL) {
        a->next_high[e] = cr_f32_to_bf16(next);
        a->next_low[e] = cr_f32_to_bf16(next - cr_bf16_to_f32(a->next_high[e]));
    }
}

static void perturb(const struct cr_ivon_args *args, size_t begin, size_t end)
{
    struct ivon_scalars c = ivon_scalars_of(args);
    for (size_t e = begin; e < end; e++) {
        emit(args, &c, args->mean[e], 1.0f / (args->hess[e] + c.decay), e);
    }
}

/* The statistics of sample `sample`, the earlier ones included. */
static void sample_at(const struct cr_ivon_args *a, const struct ivon_scalars *c, size_t e, float *grad, float *curv)
{
    if (a->grad == NULL) {
        *grad = a->avg_grad[e];
        *curv = a->avg_curv[e];
        return;
    }
    float g = a->grad[e] * c->scale;
    float x = (a->gradsq ? g : eps_at(a->eps, &a->noise, e)) * g;
    if (a->sample > 1) {
        g = fused(g - a->avg_grad[e], c->inv_sample, a->avg_grad[e]);
        x = fused(x - a->avg_curv[e], c->inv_sample, a->avg_curv[e]);
    }
    *grad = g;
    *curv = x;
}

static void accumulate(const struct cr_ivon_args *args, size_t begin, size_t end)
{
    struct ivon_scalars c = ivon_scalars_of(args);
    for (size_t e = begin; e < end; e++) {
        sample_at(args, &c, e, &args->avg_grad[e], &args->avg_curv[e]);
    }
    if (args->next != NULL || args->next_high != NULL) {
        perturb(args, begin, end);
    }
}

static bool step_at(const struct cr_ivon_args *args, const struct ivon_scalars *c, size_t e)
{
    float g, curv, h = args->hess[e], mean = args->mean[e];
    sample_at(args, c, e, &g, &curv);
    float a = h + c->decay;
    float f = curv * (args->gradsq ? c->ess : __builtin_sqrtf(c->ess * a));
    float d = (f - h) * c->rest2;
    h = fused(d, fused(0.5f, d / a, 1.0f), h);
    float m = fused(c->rest1, g, c->beta1 * args->momentum[e]);
    float inverse = 1.0f / (h + c->decay);
    float x = fused(c->decay, mean, m * c->debias) * inverse;
    float cut = x > c->radius ? c->radius : x < -c->radius ? -c->radius : x;
    mean = fused(-c->rate, cut, mean);
    args->momentum[e] = m;
    args->hess[e] = h;
    args->mean[e] = mean;
    emit(args, c, mean, inverse, e);
    return cut != x && x == x;
}

enum { CHAINS = CR_RNG_BLOCK };

static void step(const struct cr_ivon_args *args, size_t begin, size_t end)
{
    struct ivon_scalars c = ivon_scalars_of(args);
    for (size_t at = begin; at < end; at += CR_IVON_CHUNK) {
        float chain[CHAINS] = {0}, least = INFINITY;
        uint32_t n_clipped = 0;
        for (size_t e = at; e < end && e < at + CR_IVON_CHUNK; e++) {
            n_clipped += step_at(args, &c, e);
            chain[e % CHAINS] += args->hess[e];
            least = args->hess[e] < least ? args->hess[e] : least;
        }
        if (args->stats != NULL) {
            double sum = 0;
            for (size_t i = 0; i < CHAINS; i++) {
                sum += (double)chain[i];
            }
            args->stats[at / CR_IVON_CHUNK] = (struct cr_ivon_stats){sum, least, n_clipped};
        }
    }
}

static void fill(struct cr_ivon_ops *ops)
{
    static const struct cr_ivon_ops table = {.perturb = perturb, .accumulate = accumulate, .step = step};
    *ops = table;
}

CR_TIER_VARIANT(ivon, ref)
