/* Looking at a finished posterior: draws from it, and leaving out what is not sure to differ from zero. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/core/error.h"
#include "runtime/posterior/ivon.h"

void cr_ivon_draw(const struct cr_ivon_ops *ops, const struct cr_ivon_draw *draw, float *out)
{
    for (size_t p = 0; p < draw->n_parts; p++) {
        const struct cr_ivon_part *part = &draw->parts[p];
        const struct cr_ivon_group *group = &draw->groups[part->group];
        /* perturb reads mean and hess only */
        struct cr_ivon_args args = {
            .mean = (float *)(uintptr_t)draw->mean + part->begin,
            .hess = (float *)(uintptr_t)draw->hess + part->begin,
            .eps_next = draw->eps != NULL ? draw->eps + part->begin : NULL,
            .noise_next = {.key = {(uint32_t)draw->seed, CR_NOISE_DRAW ^ (uint32_t)(draw->seed >> 32)},
                           .step = draw->stream,
                           .sample = draw->sample,
                           .tensor = part->tensor},
            .next = out + part->begin,
            .ess = group->ess / draw->temperature,
            .weight_decay = group->weight_decay};
        ops->perturb(&args, 0, part->n);
    }
}

struct ranked {
    float ratio;
    size_t at;
};

static int surest_last(const void *a, const void *b)
{
    const struct ranked *x = a;
    const struct ranked *y = b;
    if (x->ratio != y->ratio) {
        return x->ratio < y->ratio ? -1 : 1;
    }
    return x->at < y->at ? -1 : 1;
}

cr_status cr_ivon_prune(float *mean, float *hess, const struct cr_ivon_part *parts, size_t n_parts,
                        const struct cr_ivon_group *groups, double share, size_t *n_pruned, struct cr_error *err)
{
    size_t n = 0, at = 0;
    for (size_t p = 0; p < n_parts; p++) {
        n += parts[p].n;
    }
    struct ranked *items = cr_alloc(n, sizeof *items);
    if (items == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory to rank %zu parameters", n);
    }
    for (size_t p = 0; p < n_parts; p++) {
        const struct cr_ivon_group *g = &groups[parts[p].group];
        for (size_t i = parts[p].begin; i < parts[p].begin + parts[p].n; i++) {
            double precision = g->ess * ((double)hess[i] + g->weight_decay);
            items[at++] = (struct ranked){.ratio = (float)(fabs((double)mean[i]) * sqrt(precision)), .at = i};
        }
    }
    qsort(items, n, sizeof *items, surest_last);
    size_t n_out = (size_t)(share * (double)n);
    for (size_t i = 0; i < n_out; i++) {
        mean[items[i].at] = 0;
        hess[items[i].at] = INFINITY;
    }
    cr_free(items);
    *n_pruned = n_out;
    return CR_OK;
}
