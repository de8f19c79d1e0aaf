#include "runtime/optim/norm2.h"

#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/optim/adamw.h"

size_t cr_norm2_bytes(size_t n)
{
    return cr_adamw_chunks(n) * sizeof(double);
}

cr_status cr_norm2_init(struct cr_norm2 *norm2, size_t n, enum cr_tier tier, const struct cr_parallel *parallel,
                        struct cr_error *err)
{
    struct cr_norm2 made = {.parallel = parallel, .n = n, .partial = cr_alloc(cr_adamw_chunks(n), sizeof(double))};
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

double cr_norm2_of(struct cr_norm2 *norm2, const float *x)
{
    struct cr_adamw_args args = {.grad = x, .partial = norm2->partial};
    cr_adamw_run(norm2->parallel, norm2->ops.norm2, &args, norm2->n);
    double sum = 0;
    for (size_t i = 0; i < cr_adamw_chunks(norm2->n); i++) {
        sum += norm2->partial[i];
    }
    return sum;
}
