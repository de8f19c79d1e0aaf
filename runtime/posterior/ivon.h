/* ivon: the posterior N(mean, 1 / (ess (h + wd))) of a flat parameter vector while it is trained, on many threads.
 *
 * Formulas in credence/kernels/ivon.h. The vector is a list of parts (one matrix each); what lies between them is never
 * touched. A part belongs to a group, and each group has settings of its own. Element e of a part draws from the
 * stream (seed, purpose, step, sample, tensor of the part), so its noise depends on nothing else: not on threads, other
 * parts or packing. 1 - beta2 and the other scalars are made in double. All results are the same bits for any number of
 * threads.
 *
 * A step with S samples: perturb(step, 0); then for s = 0 ... S-2 a gradient at `next` and accumulate(step, s), which
 * emits the point of sample s + 1; then a gradient and step(step), which emits the first point of step + 1. One noise
 * serves all micro-batches: their gradients are summed first. Workers: each accumulates all S samples of its own noise
 * (`worker` tells the streams apart) and its own data, cr_ivon_merge_drivers averages, each steps with grad NULL.
 */
#ifndef CR_POSTERIOR_IVON_H
#define CR_POSTERIOR_IVON_H

#include "credence/kernels/ivon.h"
#include "credence/parallel.h"
#include "runtime/adapter/adapter.h"

/* Second words of the keys: noise of training, draws from a finished posterior. */
enum { CR_NOISE_TRAINING = 0x69766f6e, CR_NOISE_DRAW = 0x64726177 };

/* Parts of an adapter: A of every slot is group 0, B group 1. */
enum { CR_IVON_GROUP_A, CR_IVON_GROUP_B, CR_IVON_GROUPS };

struct cr_ivon_group {
    double lr_factor; /* times the rate of the step */
    double ess, hess_init, beta1, beta2, weight_decay;
    double clip_radius; /* infinity: none */
};

/* Whether a number is one that the kernels take as ess: it and its inverse normal in f32. */
static inline bool cr_ivon_takes(double ess)
{
    return ess >= 0x1p-126 && ess <= 0x1p126;
}

struct cr_ivon_part {
    size_t begin, n; /* floats of the vector */
    uint32_t tensor; /* of the noise */
    uint32_t group;
};

struct cr_ivon_settings {
    struct cr_ivon_group groups[CR_IVON_GROUPS];
    bool gradsq, debias, rescale_lr;
    uint32_t n_samples; /* >= 1 */
    uint64_t seed;
    uint32_t worker;
};

/* What a step left behind, over all parts. */
struct cr_ivon_counts {
    double sum_hess; /* of the new h */
    double min_hess;
    uint64_t n_clipped; /* elements beyond their clip radius */
};

/* A range of a part: what one call of a kernel works on. */
struct cr_ivon_item {
    uint32_t part;
    uint32_t n_stats; /* chunks before it, all parts */
    size_t begin, end;
};

struct cr_ivon {
    struct cr_ivon_ops ops;
    const struct cr_parallel *parallel; /* borrowed */
    struct cr_ivon_settings settings;
    struct cr_ivon_part *parts;  /* owned */
    struct cr_ivon_item *items;  /* owned */
    struct cr_ivon_stats *stats; /* owned: one an item */
    size_t n_parts, n_items;
    size_t n;                      /* floats of the vector */
    size_t n_elements;             /* of the parts */
    float *mean, *momentum, *hess; /* owned: [n] */
    float *avg_grad, *avg_curv;    /* owned: [n]; NULL while one sample is all */
    uint64_t t;                    /* steps taken */
    const float *eps; /* [n] unit normals instead of the streams, for the gradient at hand and for perturb; or NULL */
};

/* The parts of an adapter in parameter order. Returns owned (cr_free), NULL when memory cannot be had. */
struct cr_ivon_part *cr_ivon_parts_of(const struct cr_adapter *adapter, size_t *n_parts);

/* Whether variances exist: refuses (CR_E_INPUT, the number of the parameter) a curvature of a part that is not finite
 * or, with the weight decay of its group, not above 0. */
cr_status cr_ivon_check_hess(const float *hess, const struct cr_ivon_part *parts, size_t n_parts,
                             const struct cr_ivon_group *groups, struct cr_error *err);

/* Bytes that cr_ivon_init allocates for n floats in n_parts parts. */
uint64_t cr_ivon_bytes(uint64_t n, uint64_t n_parts, const struct cr_ivon_settings *settings, bool merges);

/* mean = start [n], momentum 0, h = hess_init. merges: make the averages even for one sample, for
 * cr_ivon_merge_drivers.
 * parts are copied. Errors: CR_E_MEMORY; CR_E_USAGE for settings out of range. */
cr_status cr_ivon_init(struct cr_ivon *ivon, const float *start, size_t n, const struct cr_ivon_part *parts,
                       size_t n_parts, const struct cr_ivon_settings *settings, bool merges, enum cr_tier tier,
                       const struct cr_parallel *parallel, struct cr_error *err);
void cr_ivon_deinit(struct cr_ivon *ivon); /* zeroed: no effect */

/* next [n] = the point at which the gradient of this step and sample (from 0) is taken. */
void cr_ivon_perturb(const struct cr_ivon *ivon, uint64_t step, uint32_t sample, float *next);

/* Takes the gradient of one sample into the averages; next as in perturb for sample + 1, or NULL. */
void cr_ivon_accumulate(struct cr_ivon *ivon, uint64_t step, uint32_t sample, const float *grad, float *next);

/* The update. grad: of the last sample, or NULL when all are in the averages. clip scales the gradient in the momentum
 * only. next [n] (or NULL): first point of step + 1. */
struct cr_ivon_counts cr_ivon_step(struct cr_ivon *ivon, uint64_t step, const float *grad, double lr, double clip,
                                   float *next);

/* cr_ivon_merge of n_workers >= 1 drivers of one shape. Errors: CR_E_MEMORY; CR_E_USAGE for a driver without averages.
 */
cr_status cr_ivon_merge_drivers(struct cr_ivon *const *workers, size_t n_workers, struct cr_error *err);

/* out [n] = one draw from N(mean, temperature / (ess (h + wd))) on the calling thread's `parallel`. The draw is a
 * function of (seed, stream, sample) and the tensor; with eps not NULL, of eps [n]. */
struct cr_ivon_draw {
    const float *mean, *hess;
    const struct cr_ivon_part *parts;
    size_t n_parts;
    const struct cr_ivon_group *groups; /* [CR_IVON_GROUPS]: ess and weight_decay are looked at */
    double temperature;
    uint64_t seed;
    uint32_t stream, sample;
    const float *eps;
};
void cr_ivon_draw(const struct cr_ivon_ops *ops, const struct cr_ivon_draw *draw, float *out);

/* Sets the `share` of all elements with the smallest |mean| sqrt(ess (h + wd)) to a certain zero: mean 0, h infinite.
 * Of equals the first go. Returns how many. Errors: CR_E_MEMORY. Source: arXiv 2506.14280. */
cr_status cr_ivon_prune(float *mean, float *hess, const struct cr_ivon_part *parts, size_t n_parts,
                        const struct cr_ivon_group *groups, double share, size_t *n_pruned, struct cr_error *err);

#endif
