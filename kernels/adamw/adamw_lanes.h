/* adamw: the template of all tiers. Plain arrays, so unaligned vectors, and the tail goes through a padded copy. */
#ifndef CR_ADAMW_LANES_H
#define CR_ADAMW_LANES_H

#include <string.h>

#include "credence/kernels/adamw.h"
#include "kernels/common/lanes.h"
#include "credence/kernels/math.h"
#include "kernels/common/tiers.h"

/* The scalars of a step, each made in double and rounded once. */
struct scalars {
    float clip, beta1, rest1, beta2, rest2, keep, step, correct2, eps;
};

static struct scalars scalars_of(const struct cr_adamw_args *args)
{
    double t = (double)args->t;
    return (struct scalars){
        .clip = (float)args->clip,
        .beta1 = (float)args->beta1,
        .rest1 = (float)(1.0 - args->beta1),
        .beta2 = (float)args->beta2,
        .rest2 = (float)(1.0 - args->beta2),
        .keep = (float)(1.0 - args->lr * args->weight_decay),
        .step = (float)(args->lr / (1.0 - cr_pow(args->beta1, t))),
        .correct2 = (float)(1.0 / (1.0 - cr_pow(args->beta2, t))),
        .eps = (float)args->eps,
    };
}

CR_INLINE void update(const struct scalars *c, float *w, float *m, float *v, const float *grad)
{
    lanes g = lanes_loadu(grad) * c->clip;
    lanes first = lanes_loadu(m) * c->beta1 + g * c->rest1;
    lanes second = lanes_loadu(v) * c->beta2 + g * g * c->rest2;
    lanes scale = lanes_sqrt(second * c->correct2) + c->eps;
    lanes_storeu(m, first);
    lanes_storeu(v, second);
    lanes_storeu(w, lanes_loadu(w) * c->keep - first * c->step / scale);
}

static void step(const struct cr_adamw_args *args, size_t begin, size_t end)
{
    struct scalars c = scalars_of(args);
    size_t i = begin;
    for (; i + LANES_N <= end; i += LANES_N) {
        update(&c, args->w + i, args->m + i, args->v + i, args->grad + i);
    }
    if (i < end) {
        size_t bytes = (end - i) * sizeof(float);
        float w[LANES_N] = {0}, m[LANES_N] = {0}, v[LANES_N] = {0}, g[LANES_N] = {0};
        memcpy(w, args->w + i, bytes);
        memcpy(m, args->m + i, bytes);
        memcpy(v, args->v + i, bytes);
        memcpy(g, args->grad + i, bytes);
        update(&c, w, m, v, g);
        memcpy(args->w + i, w, bytes);
        memcpy(args->m + i, m, bytes);
        memcpy(args->v + i, v, bytes);
    }
}

/* Chains of the sum of squares: element e goes to chain e mod 16; vector i of `acc` holds LANES_N / 2 chains. */
enum { CHAINS = 16, VECTORS = 2 * CHAINS / LANES_N };

CR_INLINE void add_squares(lanes_d acc[VECTORS], const float *g)
{
    for (int i = 0; i < VECTORS; i += 2) {
        lanes x = lanes_loadu(g + i / 2 * LANES_N);
        lanes_d low = lanes_low_d(x), high = lanes_high_d(x);
        acc[i] += low * low;
        acc[i + 1] += high * high;
    }
}

static double chunk_squares(const float *g, size_t n)
{
    lanes_d acc[VECTORS] = {{0}};
    size_t i = 0;
    for (; i + CHAINS <= n; i += CHAINS) {
        add_squares(acc, g + i);
    }
    if (i < n) {
        float tail[CHAINS] = {0};
        memcpy(tail, g + i, (n - i) * sizeof(float));
        add_squares(acc, tail);
    }
    double sum[CHAINS];
    memcpy(sum, acc, sizeof sum);
    for (int half = CHAINS / 2; half > 0; half /= 2) {
        for (int j = 0; j < half; j++) {
            sum[j] += sum[j + half];
        }
    }
    return sum[0];
}

static void norm2(const struct cr_adamw_args *args, size_t begin, size_t end)
{
    for (size_t i = begin; i < end; i += CR_ADAMW_CHUNK) {
        size_t n = end - i < CR_ADAMW_CHUNK ? end - i : CR_ADAMW_CHUNK;
        args->partial[i / CR_ADAMW_CHUNK] = chunk_squares(args->grad + i, n);
    }
}

static void fill(struct cr_adamw_ops *ops)
{
    static const struct cr_adamw_ops table = {.step = step, .norm2 = norm2};
    *ops = table;
}

#endif
