#include "runtime/posterior/swag.h"

#include <math.h>
#include <string.h>

#include "credence/kernels/math.h"

/* Steps between snapshots of ten deviations in runs of 700 to 2,700 steps, of which two fifths are left for them. */
enum { USUAL_INTERVAL = 25 };

/* Purposes of the two streams of normals in the key. */
enum { DIAGONAL_STREAM = 0x73777a31, COLUMN_STREAM = 0x73777a32 };

cr_status cr_swag_plan_init(struct cr_swag_plan *plan, uint64_t n_steps, double fraction, uint64_t every, double lr,
                            uint64_t n_anneal, struct cr_error *err)
{
    if (!(fraction >= 0 && fraction < 1)) {
        return cr_fail(err, CR_E_USAGE, "SWAG cannot start after %g of the steps: at least 0, below 1", fraction);
    }
    if (!(lr > 0 && isfinite(lr))) {
        return cr_fail(err, CR_E_USAGE, "SWAG learning rate %g: must be positive", lr);
    }
    double steps = fraction * (double)n_steps;
    struct cr_swag_plan made = {.n_steps = n_steps, .every = every, .n_anneal = n_anneal, .lr = lr};
    made.start = (uint64_t)steps;
    made.start += (double)made.start < steps;
    if (every == 0 || cr_swag_snapshots(&made) == 0) {
        return cr_fail(err, CR_E_USAGE, "no snapshot: one every %llu steps, but %llu of %llu steps are left for them",
                       (unsigned long long)every, (unsigned long long)(n_steps - made.start),
                       (unsigned long long)n_steps);
    }
    *plan = made;
    return CR_OK;
}

uint64_t cr_swag_interval(uint64_t n_left, uint32_t n_rows)
{
    uint64_t least = (uint64_t)n_rows + 1, most = 4 * least;
    uint64_t every = n_left / most + (n_left % most != 0);
    every = every > USUAL_INTERVAL ? every : USUAL_INTERVAL;
    every = every < n_left / least ? every : n_left / least;
    return every > 0 ? every : 1;
}

double cr_swag_lr(const struct cr_swag_plan *plan, uint64_t step, double lr0)
{
    uint64_t k = step - plan->start;
    double t = k < plan->n_anneal ? (double)k / (double)plan->n_anneal : 1;
    if (plan->cosine && t < 1) {
        t = 0.5 * (1 - cr_cos(M_PI * t));
    }
    return plan->lr * t + lr0 * (1 - t);
}

bool cr_swag_due(const struct cr_swag_plan *plan, uint64_t step, uint64_t n_taken)
{
    return step >= plan->start && step < plan->n_steps && (step - plan->start + 1) / plan->every > n_taken;
}

uint64_t cr_swag_snapshots(const struct cr_swag_plan *plan)
{
    return (plan->n_steps - plan->start) / plan->every;
}

uint32_t cr_swag_held(const struct cr_swag *swag)
{
    return swag->n < swag->n_rows ? (uint32_t)swag->n : swag->n_rows;
}

uint32_t cr_swag_rank(const struct cr_swag *swag)
{
    return swag->n > swag->n_rows ? swag->n_rows : swag->n > 0 ? (uint32_t)swag->n - 1 : 0;
}

/* Row number of an age. */
static size_t slot_of(const struct cr_swag *swag, uint32_t age)
{
    return swag->n < swag->n_rows ? age : (size_t)((swag->n + age) % swag->n_rows);
}

const uint16_t *cr_swag_row(const struct cr_swag *swag, uint32_t age)
{
    return swag->rows + slot_of(swag, age) * swag->row_stride;
}

/* A kernel's range of elements, in items of a chunk. */
struct job {
    const struct cr_dplr_ops *ops;
    const struct cr_dplr_collect_args *collect;
    const struct cr_dplr_args *sample;
    size_t n_params;
};

static void work(void *arg, size_t begin, size_t end, int worker)
{
    const struct job *job = arg;
    (void)worker;
    begin *= CR_DPLR_CHUNK;
    end = end * CR_DPLR_CHUNK < job->n_params ? end * CR_DPLR_CHUNK : job->n_params;
    if (job->collect != NULL) {
        job->ops->collect(job->collect, begin, end);
    } else {
        job->ops->sample(job->sample, begin, end);
    }
}

static void run(const struct cr_parallel *parallel, struct job *job)
{
    size_t n_items = (job->n_params + CR_DPLR_CHUNK - 1) / CR_DPLR_CHUNK;
    if (parallel == NULL) {
        work(job, 0, n_items, 0);
    } else {
        parallel->run(parallel->ctx, work, job, n_items, 4);
    }
}

void cr_swag_collect(struct cr_swag *swag, const struct cr_dplr_ops *ops, const struct cr_parallel *parallel,
                     const float *w)
{
    uint16_t *row = swag->rows + (size_t)(swag->n % swag->n_rows) * swag->row_stride;
    struct cr_dplr_collect_args args = {w, swag->mean, swag->mean_low, swag->m2, row, swag->n};
    struct job job = {.ops = ops, .collect = &args, .n_params = swag->n_params};
    run(parallel, &job);
    swag->n++;
}

static struct cr_noise stream(const struct cr_swag_draws *draws, uint32_t purpose)
{
    return (struct cr_noise){.key = {(uint32_t)draws->seed, (uint32_t)(draws->seed >> 32) ^ purpose},
                             .sample = draws->first_sample,
                             .tensor = draws->block};
}

/* coef [held][n_samples]: sqrt(b) z2, each at the row of its age. */
static void fill_coef(const struct cr_swag *swag, const struct cr_swag_draws *draws, double factor, float *coef)
{
    uint32_t held = cr_swag_held(swag);
    double each = factor / sqrt((double)swag->n_rows - 1);
    for (size_t s = 0; s < draws->n_samples; s++) {
        struct cr_noise noise = stream(draws, COLUMN_STREAM);
        noise.sample += (uint32_t)s;
        for (uint32_t age = 0; age < held; age++) {
            double z = draws->z2 != NULL ? draws->z2[s * held + age] : (double)cr_normal_at(&noise, age);
            coef[slot_of(swag, age) * draws->n_samples + s] = (float)(each * z);
        }
    }
}

void cr_swag_sample(const struct cr_swag *swag, const struct cr_dplr_ops *ops, const struct cr_parallel *parallel,
                    const struct cr_swag_draws *draws, float *coef, float *out, size_t out_stride)
{
    double factor = draws->plain_factor ? draws->scale : sqrt(draws->scale);
    if (factor == 0) {
        for (size_t s = 0; s < draws->n_samples; s++) {
            memcpy(out + s * out_stride, swag->mean, swag->n_params * sizeof *out);
        }
        return;
    }
    if (!draws->diagonal) {
        fill_coef(swag, draws, factor, coef);
    }
    double n = (double)swag->n;
    struct cr_dplr_args args = {
        .mean = swag->mean,
        .var = swag->m2,
        .rows = swag->rows,
        .row_stride = swag->row_stride,
        .n_rows = draws->diagonal ? 0 : cr_swag_held(swag),
        .var_scale = factor * factor / n,
        .var_floor = draws->clamp * n,
        .coef = coef,
        .eps = draws->z1,
        .eps_stride = draws->z1_stride,
        .noise = stream(draws, DIAGONAL_STREAM),
        .out = out,
        .out_stride = out_stride,
        .n_samples = draws->n_samples,
    };
    struct job job = {.ops = ops, .sample = &args, .n_params = swag->n_params};
    run(parallel, &job);
}
