#include "runtime/optim/norm2.h"

#include <string.h>

#include "runtime/core/alloc.h"

static size_t n_chunks(size_t n)
{
    return n / CR_ADAMW_CHUNK + (n % CR_ADAMW_CHUNK != 0);
}

size_t cr_norm2_bytes(size_t n)
{
    return n_chunks(n) * sizeof(double);
}

cr_status cr_norm2_init(struct cr_norm2 *norm2, size_t n, enum cr_tier tier, const struct cr_parallel *parallel,
                        struct cr_error *err)
{
    struct cr_norm2 made = {.parallel = parallel, .n = n, .partial = cr_alloc(n_chunks(n), sizeof(double))};
    if (made.partial == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for the norm of %zu parameters", n);
    }
    cr_adamw_ops_init(&made.ops, tier);
    *norm2 = made;
    return CR_OK;
}

void cr_norm2_deinit(struct cr_norm2 *norm2)
{
    cr_free(norm2->partial);
    memset(norm2, 0, sizeof *norm2);
}

struct task {
    struct cr_adamw_args args;
    cr_adamw_fn *fn;
    size_t n;
};

static void run_chunks(void *arg, size_t begin, size_t end, int worker)
{
    (void)worker;
    struct task *task = arg;
    size_t last = end * CR_ADAMW_CHUNK < task->n ? end * CR_ADAMW_CHUNK : task->n;
    task->fn(&task->args, begin * CR_ADAMW_CHUNK, last);
}

double cr_norm2_of(struct cr_norm2 *norm2, const float *x)
{
    struct task task = {.args = {.grad = x, .partial = norm2->partial}, .fn = norm2->ops.norm2, .n = norm2->n};
    size_t n = n_chunks(norm2->n);
    norm2->parallel->run(norm2->parallel->ctx, run_chunks, &task, n, 1);
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        sum += norm2->partial[i];
    }
    return sum;
}
