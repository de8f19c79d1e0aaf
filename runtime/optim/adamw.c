#include "runtime/optim/adamw.h"

#include <math.h>
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/optim/norm2.h"

enum { HEAD = 16 }; /* floats before m: keeps m on a cache line */

size_t cr_adamw_chunks(size_t n)
{
    return n / CR_ADAMW_CHUNK + (n % CR_ADAMW_CHUNK != 0);
}

size_t cr_adamw_bytes(size_t n)
{
    return (HEAD + 2 * n) * sizeof(float);
}

cr_status cr_adamw_init(struct cr_adamw *adamw, size_t n, enum cr_tier tier, const struct cr_parallel *parallel,
                        struct cr_error *err)
{
    struct cr_adamw made = {.parallel = parallel, .n = n, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8};
    cr_adamw_ops_init(&made.ops, tier);
    if (n <= (SIZE_MAX / sizeof(float) - HEAD) / 2) {
        made.state = cr_zalloc(HEAD + 2 * n, sizeof(float));
    }
    if (made.state == NULL) {
        cr_adamw_deinit(&made);
        return cr_fail(err, CR_E_MEMORY, "no memory for the optimiser state of %zu parameters", n);
    }
    *adamw = made;
    return CR_OK;
}

void cr_adamw_deinit(struct cr_adamw *adamw)
{
    cr_free(adamw->state);
    memset(adamw, 0, sizeof *adamw);
}

struct task {
    const struct cr_adamw_args *args;
    cr_adamw_fn *fn;
    size_t n;
};

static void run_chunks(void *arg, size_t begin, size_t end, int worker)
{
    (void)worker;
    struct task *task = arg;
    size_t last = end * CR_ADAMW_CHUNK < task->n ? end * CR_ADAMW_CHUNK : task->n;
    task->fn(task->args, begin * CR_ADAMW_CHUNK, last);
}

void cr_adamw_run(const struct cr_parallel *parallel, cr_adamw_fn *fn, const struct cr_adamw_args *args, size_t n)
{
    struct task task = {args, fn, n};
    parallel->run(parallel->ctx, run_chunks, &task, cr_adamw_chunks(n), 1);
}

void cr_adamw_step_groups(struct cr_adamw *adamw, float *w, const float *grad, double norm,
                          const struct cr_adamw_group *groups, size_t n_groups)
{
    uint64_t t = cr_adamw_t(adamw) + 1;
    memcpy(adamw->state, &t, sizeof t);
    float *m = adamw->state + HEAD, *v = m + adamw->n;
    for (size_t i = 0, begin = 0; i < n_groups; begin = groups[i++].end) {
        struct cr_adamw_args args = {.w = w + begin,
                                     .m = m + begin,
                                     .v = v + begin,
                                     .grad = grad + begin,
                                     .lr = groups[i].lr,
                                     .beta1 = adamw->beta1,
                                     .beta2 = adamw->beta2,
                                     .eps = adamw->eps,
                                     .weight_decay = adamw->weight_decay,
                                     .clip = cr_clip_factor(norm, adamw->max_norm),
                                     .t = t};
        cr_adamw_run(adamw->parallel, adamw->ops.step, &args, groups[i].end - begin);
    }
}

void cr_adamw_step(struct cr_adamw *adamw, float *w, const float *grad, double norm, double lr)
{
    struct cr_adamw_group all = {adamw->n, lr};
    cr_adamw_step_groups(adamw, w, grad, norm, &all, 1);
}

uint64_t cr_adamw_t(const struct cr_adamw *adamw)
{
    uint64_t t;
    memcpy(&t, adamw->state, sizeof t);
    return t;
}

size_t cr_adamw_state_bytes(const struct cr_adamw *adamw)
{
    return (HEAD + 2 * adamw->n) * sizeof(float);
}

cr_status cr_adamw_restore(struct cr_adamw *adamw, const void *state, size_t n_bytes, struct cr_error *err)
{
    if (n_bytes != cr_adamw_state_bytes(adamw)) {
        return cr_fail(err, CR_E_INPUT, "optimiser state: %zu bytes, expected %zu for %zu parameters", n_bytes,
                       cr_adamw_state_bytes(adamw), adamw->n);
    }
    for (size_t i = 0; i < 2 * adamw->n; i++) {
        float value;
        memcpy(&value, (const char *)state + (HEAD + i) * sizeof value, sizeof value);
        bool second = i >= adamw->n;
        if (!isfinite(value) || (second && value < 0)) {
            return cr_fail(err, CR_E_INPUT, "optimiser state: %s of parameter %zu is %g, expected a finite %s",
                           second ? "v" : "m", second ? i - adamw->n : i, (double)value,
                           second ? "number >= 0" : "number");
        }
    }
    memcpy(adamw->state, state, n_bytes);
    return CR_OK;
}
