#include "runtime/eval/curvature.h"

#include <math.h>
#include <string.h>

#include "credence/kernels/tl16.h"
#include "runtime/core/alloc.h"

static size_t widest_of(const struct cr_adapter *adapter)
{
    size_t widest = 0;
    for (size_t i = 0; i < (size_t)adapter->n_layers * CR_N_PROJ; i++) {
        const struct cr_lora *slot = &adapter->slots[i];
        size_t n = slot->n_in > slot->n_out ? slot->n_in : slot->n_out;
        widest = slot->rank > 0 && n > widest ? n : widest;
    }
    return widest;
}

uint64_t cr_curvature_bytes(const struct cr_adapter *adapter, const struct cr_parallel *parallel)
{
    size_t widest = widest_of(adapter);
    return (uint64_t)parallel->n_workers * (cr_laplace_scratch(widest, CR_LAPLACE_COLUMNS) * sizeof(double) +
                                            CR_LAPLACE_BLOCK * widest * sizeof(float));
}

cr_status cr_curvature_init(struct cr_curvature *c, struct cr_laplace_set *set, const struct cr_adapter *adapter,
                            const struct cr_parallel *parallel, struct cr_error *err)
{
    size_t n_slots = (size_t)adapter->n_layers * CR_N_PROJ, n_workers = (size_t)parallel->n_workers;
    *c = (struct cr_curvature){.set = set, .adapter = adapter, .parallel = parallel, .widest = widest_of(adapter)};
    c->n_scratch = cr_laplace_scratch(c->widest, CR_LAPLACE_COLUMNS);
    c->first = cr_alloc(n_slots, sizeof *c->first);
    c->rows = cr_alloc(n_workers, CR_LAPLACE_BLOCK * c->widest * sizeof *c->rows);
    c->scratch = cr_alloc(n_workers, c->n_scratch * sizeof *c->scratch);
    c->failed = cr_zalloc(n_workers, sizeof *c->failed);
    if (c->first == NULL || c->rows == NULL || c->scratch == NULL || c->failed == NULL) {
        cr_curvature_deinit(c);
        return cr_fail(err, CR_E_MEMORY, "no memory to gather curvature");
    }
    for (size_t i = 0, n = 0; i < n_slots; i++) {
        c->first[i] = n;
        n += adapter->slots[i].rank > 0 ? 2 : 0;
    }
    return CR_OK;
}

void cr_curvature_deinit(struct cr_curvature *c)
{
    cr_free(c->first);
    cr_free(c->rows);
    cr_free(c->scratch);
    cr_free(c->failed);
    memset(c, 0, sizeof *c);
}

/* n features of one lane, times factor; returns whether any is not 0. */
static bool gather(const void *block, enum cr_xtype type, size_t lane, size_t n, float factor, float *out)
{
    bool any = false;
    for (size_t k = 0; k < n; k++) {
        float x;
        if (type == CR_X_BF16) {
            uint32_t bits = (uint32_t)((const uint16_t *)block)[cr_tl16_bf16(k, lane)] << 16;
            memcpy(&x, &bits, sizeof x);
        } else {
            x = ((const float *)block)[cr_tl16_f32(k, lane)];
        }
        out[k] = factor * x;
        any |= x != 0;
    }
    return any;
}

struct source {
    const void *data;
    size_t stride; /* bytes */
    enum cr_xtype type;
    size_t n;
    float factor;
};

static void take(const struct cr_curvature *c, struct cr_laplace_matrix *m, bool large, const float *rows,
                 size_t n_rows, int worker)
{
    if (!large) {
        cr_laplace_small_add(m->small, m->r, rows, n_rows, 1);
    } else if (!c->failed[worker]) {
        c->failed[worker] =
            !cr_laplace_large_add(m->large, m->n, m->k, rows, n_rows, 1, c->scratch + (size_t)worker * c->n_scratch);
    }
}

/* All real tokens of a view, in order, zeros left out. */
static void add(const struct cr_curvature *c, const struct cr_engine_view *view, const struct source *from,
                struct cr_laplace_matrix *m, bool large, int worker)
{
    float *rows = c->rows + (size_t)worker * CR_LAPLACE_BLOCK * c->widest;
    size_t n_rows = 0;
    for (size_t t = 0; t < view->n_blocks * CR_LANES; t++) {
        const char *block = (const char *)from->data + t / CR_LANES * from->stride;
        if (view->real[t] == UINT32_MAX ||
            !gather(block, from->type, t % CR_LANES, from->n, from->factor, rows + n_rows * from->n)) {
            continue;
        }
        if (++n_rows == CR_LAPLACE_BLOCK) {
            take(c, m, large, rows, n_rows, worker);
            n_rows = 0;
        }
    }
    if (n_rows > 0) {
        take(c, m, large, rows, n_rows, worker);
    }
}

struct job {
    struct cr_curvature *c;
    const struct cr_engine_view *views;
};

/* Two items a view: its wide vectors, then its narrow ones. */
static void run(void *arg, size_t begin, size_t end, int worker)
{
    const struct job *job = arg;
    const struct cr_curvature *c = job->c;
    for (size_t i = begin; i < end; i++) {
        const struct cr_engine_view *view = &job->views[i / 2];
        size_t slot = view->layer * CR_N_PROJ + (size_t)view->proj;
        float scale = c->adapter->slots[slot].scale;
        bool wide = i % 2 == 0, of_a = wide != view->gradient; /* x and V are of A, dY and h of B */
        struct source from = {.data = wide ? view->wide : (const void *)view->narrow,
                              .stride = wide ? view->wide_stride : view->narrow_stride * sizeof(float),
                              .type = wide ? view->type : CR_X_F32,
                              .n = wide ? view->n_wide : view->rank,
                              .factor = of_a             ? 1
                                        : view->gradient ? scale
                                                         : 1 / scale};
        add(c, view, &from, &c->set->items[c->first[slot] + (of_a ? 0 : 1)], wide, worker);
    }
}

void cr_curvature_view(void *ctx, const struct cr_engine_view *views, size_t n)
{
    struct cr_curvature *c = ctx;
    struct job job = {c, views};
    if (views[0].gradient || c->inputs) {
        c->parallel->run(c->parallel->ctx, run, &job, 2 * n, 1);
    }
}

cr_status cr_curvature_finish(struct cr_curvature *c, uint64_t n_examples, struct cr_error *err)
{
    double mean = 1 / (double)n_examples;
    for (int w = 0; w < c->parallel->n_workers; w++) {
        if (c->failed[w]) {
            return cr_fail(err, CR_E_DIVERGED, "a gradient or an activation is not a finite number");
        }
    }
    for (size_t i = 0; i < c->set->n_items; i++) {
        struct cr_laplace_matrix *m = &c->set->items[i];
        for (size_t j = 0; j < m->n * m->k && m->of_a; j++) {
            m->large[j] *= sqrt(mean);
        }
        for (size_t j = 0; j < m->r * m->r && !m->of_a; j++) {
            m->small[j] *= mean;
        }
    }
    c->set->n_examples = n_examples;
    return cr_laplace_set_ready(c->set, err);
}
