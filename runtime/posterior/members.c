#include "runtime/posterior/members.h"

#include <math.h>

#include "credence/kernels/math.h"

/* Purpose of the normals in the key; odd step between seeds (2^32 / golden ratio), which no small difference meets. */
enum { NORMAL_STREAM = 0x6d656d62 };
#define SEED_STEP 0x9e3779b9u
#define LEAST_PROBABILITY 1e-300

uint64_t cr_members_seed(uint64_t seed, uint32_t member)
{
    uint32_t low = (uint32_t)seed + member * SEED_STEP;
    return (seed & ~UINT64_C(0xffffffff)) | low;
}

double cr_members_spread(enum cr_members_init init, double gain, size_t n_in, size_t rank)
{
    if (init == CR_MEMBERS_NORMAL) {
        return gain;
    }
    /* The plain adapter's bound is made in f32: so is this one. */
    return init == CR_MEMBERS_PEFT ? (double)(1.0f / sqrtf((float)n_in)) : gain * sqrt(6 / (double)(n_in + rank));
}

void cr_members_start(const struct cr_rng_ops *ops, enum cr_members_init init, double gain, uint64_t member_seed,
                      uint32_t tensor, size_t rank, size_t n_in, float *a)
{
    float spread = (float)cr_members_spread(init, gain, n_in, rank);
    uint32_t low = (uint32_t)member_seed, high = (uint32_t)(member_seed >> 32);
    if (init != CR_MEMBERS_NORMAL) {
        cr_uniform_f32((const uint32_t[2]){low, tensor ^ high}, -spread, spread, a, rank * n_in);
        return;
    }
    struct cr_noise noise = {.key = {low, high ^ (uint32_t)NORMAL_STREAM}, .tensor = tensor};
    ops->normals(&noise, a, 0, rank * n_in);
    for (size_t i = 0; i < rank * n_in; i++) {
        a[i] *= spread;
    }
}

void cr_members_near(const struct cr_rng_ops *ops, const struct cr_noise *noise, const float *base, double spread,
                     size_t n, float *out)
{
    ops->normals(noise, out, 0, n);
    for (size_t i = 0; i < n; i++) {
        out[i] = (float)((double)base[i] + spread * (double)out[i]);
    }
}

/* Cross-entropy of one example; scale times its gradient to d_logits. */
static double loss_of(const double *logits, size_t n, size_t label, double scale, double *d_logits)
{
    double most = logits[0], sum = 0, at_label = logits[label];
    for (size_t c = 1; c < n; c++) {
        most = logits[c] > most ? logits[c] : most;
    }
    for (size_t c = 0; c < n; c++) {
        sum += cr_exp(logits[c] - most);
    }
    for (size_t c = 0; c < n && d_logits != NULL; c++) {
        d_logits[c] = scale * (cr_exp(logits[c] - most) / sum - (c == label ? 1 : 0));
    }
    return cr_ln(sum) - (at_label - most);
}

double cr_members_loss(const double *logits, const uint32_t *labels, size_t n_members, size_t n_examples,
                       size_t n_classes, double *d_logits)
{
    double sum = 0, scale = 1 / ((double)n_members * (double)n_examples);
    for (size_t i = 0; i < n_members * n_examples; i++) {
        double *d = d_logits != NULL ? d_logits + i * n_classes : NULL;
        sum += loss_of(logits + i * n_classes, n_classes, labels[i % n_examples], scale, d);
    }
    return sum * scale;
}

double cr_members_clip(const double *norm2, size_t n_members, double max_norm)
{
    double sum = 0;
    for (size_t m = 0; m < n_members; m++) {
        sum += norm2[m];
    }
    double factor = max_norm / (sqrt(sum) + 1e-6);
    return max_norm == 0 || factor > 1 ? 1 : factor;
}

static size_t argmax(const double *p, size_t n)
{
    size_t best = 0;
    for (size_t c = 1; c < n; c++) {
        best = p[c] > p[best] ? c : best;
    }
    return best;
}

/* KL(p||q) + KL(q||p) = sum (p - q) (ln p - ln q); every term is >= 0. */
static double symmetric_kl(const double *p, const double *q, size_t n)
{
    double sum = 0;
    for (size_t c = 0; c < n; c++) {
        if (p[c] != q[c]) {
            sum += (p[c] - q[c]) * (cr_ln(fmax(p[c], LEAST_PROBABILITY)) - cr_ln(fmax(q[c], LEAST_PROBABILITY)));
        }
    }
    return sum;
}

void cr_members_compare(const double *probs, size_t n_members, size_t n_classes, struct cr_members_diversity *sum)
{
    for (size_t a = 0; a < n_members; a++) {
        const double *p = probs + a * n_classes;
        for (size_t b = a + 1; b < n_members; b++) {
            const double *q = probs + b * n_classes;
            sum->n_pairs++;
            sum->n_disagree += argmax(p, n_classes) != argmax(q, n_classes);
            double half = 0.5 * symmetric_kl(p, q, n_classes);
            sum->half_kl += half;
            sum->distance += sqrt(half);
        }
    }
}

double cr_members_disagreement(const struct cr_members_diversity *sum)
{
    return sum->n_pairs > 0 ? (double)sum->n_disagree / (double)sum->n_pairs : (double)NAN;
}

double cr_members_distance(const struct cr_members_diversity *sum)
{
    return sum->n_pairs > 0 ? sum->distance / (double)sum->n_pairs : (double)NAN;
}
