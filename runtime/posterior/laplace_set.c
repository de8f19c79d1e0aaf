#include "runtime/posterior/laplace_set.h"

#include <math.h>
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/core/error.h"
#include "runtime/io/json.h"
#include "runtime/posterior/ivon.h"
#include "runtime/posterior/posterior_private.h"

/* Doubles of one matrix: what is gathered, the same once more to be spoilt, the factor. */
static size_t doubles_of(size_t n, size_t r, size_t k)
{
    return 3 * (n * k + r * r) + k + r;
}

static struct cr_laplace_matrix sizes_of(const struct cr_posterior_matrix *m)
{
    size_t n = m->of_a ? m->lora->n_in : m->lora->n_out;
    return (struct cr_laplace_matrix){.begin = m->begin,
                                      .n = n,
                                      .r = m->lora->rank,
                                      .k = n < CR_LAPLACE_COLUMNS ? n : CR_LAPLACE_COLUMNS,
                                      .of_a = m->of_a};
}

/* Shapes of the matrices into items (or nowhere); returns their doubles. */
static size_t walk(const struct cr_adapter *adapter, struct cr_laplace_matrix *items, size_t *n_items, size_t *widest)
{
    struct cr_posterior_matrix m = {.adapter = adapter};
    size_t total = 0;
    *n_items = *widest = 0;
    while (cr_posterior_next(&m)) {
        struct cr_laplace_matrix item = sizes_of(&m);
        if (items != NULL) {
            items[*n_items] = item;
        }
        ++*n_items;
        total += doubles_of(item.n, item.r, item.k);
        *widest = *widest > item.k * item.r ? *widest : item.k * item.r;
    }
    return total;
}

uint64_t cr_laplace_set_bytes(const struct cr_adapter *adapter)
{
    size_t n, widest;
    uint64_t doubles = walk(adapter, NULL, &n, &widest) + (CR_LAPLACE_CLASSES_MAX + 1) * widest;
    return doubles * sizeof(double) + n * sizeof(struct cr_laplace_matrix);
}

uint64_t cr_laplace_make_bytes(const struct cr_adapter *adapter)
{
    struct cr_posterior_matrix m = {.adapter = adapter};
    uint64_t n_values = 0, n_sides = 0;
    while (cr_posterior_next(&m)) {
        struct cr_laplace_matrix item = sizes_of(&m);
        n_values += item.k * item.r;
        n_sides += item.n * item.k + item.r * item.r;
    }
    /* Sides narrowed, then in the order of the file; means whose rows change places. */
    return n_values * sizeof(double) + (2 * n_sides + adapter->n_params) * sizeof(float);
}

static double *cut(double **at, size_t n)
{
    double *piece = *at;
    *at += n;
    return piece;
}

cr_status cr_laplace_set_init(struct cr_laplace_set *set, const struct cr_adapter *adapter, struct cr_error *err)
{
    size_t n, widest, total = walk(adapter, NULL, &n, &widest);
    *set = (struct cr_laplace_set){.items = cr_zalloc(n, sizeof *set->items),
                                   .memory = cr_zalloc(total, sizeof *set->memory),
                                   .scratch = cr_zalloc((CR_LAPLACE_CLASSES_MAX + 1) * widest, sizeof *set->scratch)};
    if (set->items == NULL || set->memory == NULL || set->scratch == NULL) {
        cr_laplace_set_free(set);
        return cr_fail(err, CR_E_MEMORY, "no memory for the curvature of %zu matrices", n);
    }
    walk(adapter, set->items, &set->n_items, &widest);
    double *at = set->memory;
    for (size_t i = 0; i < set->n_items; i++) {
        struct cr_laplace_matrix *m = &set->items[i];
        m->large = cut(&at, m->n * m->k);
        m->small = cut(&at, m->r * m->r);
        m->factor = (struct cr_laplace_factor){.n = m->n,
                                               .r = m->r,
                                               .k = m->k,
                                               .small_first = m->of_a,
                                               .basis = cut(&at, m->n * m->k),
                                               .rotation = cut(&at, m->r * m->r),
                                               .large_values = cut(&at, m->k),
                                               .small_values = cut(&at, m->r)};
        at += m->n * m->k + m->r * m->r; /* for cr_laplace_set_ready, behind the factor */
    }
    return CR_OK;
}

void cr_laplace_set_free(struct cr_laplace_set *set)
{
    cr_free(set->items);
    cr_free(set->memory);
    cr_free(set->scratch);
    memset(set, 0, sizeof *set);
}

cr_status cr_laplace_set_ready(struct cr_laplace_set *set, struct cr_error *err)
{
    for (size_t i = 0; i < set->n_items; i++) {
        struct cr_laplace_matrix *m = &set->items[i];
        double *large = m->factor.small_values + m->r, *small = large + m->n * m->k;
        memcpy(large, m->large, m->n * m->k * sizeof *large);
        memcpy(small, m->small, m->r * m->r * sizeof *small);
        if (!cr_laplace_factor_init(&m->factor, large, 1, small, 1)) {
            return cr_fail(err, CR_E_DIVERGED, "curvature of matrix %zu is not finite", i);
        }
    }
    return CR_OK;
}

size_t cr_laplace_set_n_values(const struct cr_laplace_set *set)
{
    size_t n = 0;
    for (size_t i = 0; i < set->n_items; i++) {
        n += set->items[i].k * set->items[i].r;
    }
    return n;
}

void cr_laplace_set_values(const struct cr_laplace_set *set, double *values)
{
    for (size_t i = 0; i < set->n_items; i++) {
        cr_laplace_spectrum(&set->items[i].factor, values);
        values += set->items[i].k * set->items[i].r;
    }
}

void cr_laplace_set_var(const struct cr_laplace_set *set, double s2, const float *jacobian, size_t stride,
                        size_t n_classes, double *var)
{
    memset(var, 0, n_classes * n_classes * sizeof *var);
    for (size_t i = 0; i < set->n_items; i++) {
        const struct cr_laplace_matrix *m = &set->items[i];
        cr_laplace_var_add_f32(&m->factor, s2, jacobian + m->begin, stride, n_classes, set->scratch, var);
    }
}

void cr_laplace_set_draw(const struct cr_laplace_set *set, const struct cr_rng_ops *ops,
                         const struct cr_laplace_sample *sample, float *out)
{
    float root = (float)sqrt(sample->temperature);
    for (size_t i = 0; i < set->n_items; i++) {
        const struct cr_laplace_matrix *m = &set->items[i];
        struct cr_noise noise = {.key = {(uint32_t)sample->seed, CR_NOISE_DRAW ^ (uint32_t)(sample->seed >> 32)},
                                 .step = sample->stream,
                                 .sample = sample->sample,
                                 .tensor = (uint32_t)i};
        ops->normals(&noise, out + m->begin, 0, m->n * m->r);
        const float *mean = sample->mean + m->begin;
        float *at = out + m->begin;
        cr_laplace_draw_f32(&m->factor, 1 / set->precision, mean, set->scratch, at);
        for (size_t j = 0; j < m->n * m->r && root != 1; j++) {
            at[j] = mean[j] + root * (at[j] - mean[j]);
        }
    }
}

/* Both factors of all matrices as f32, in the order of the matrices. */
static void narrow(const struct cr_laplace_set *set, float *large, float *small)
{
    for (size_t i = 0; i < set->n_items; i++) {
        const struct cr_laplace_matrix *m = &set->items[i];
        for (size_t j = 0; j < m->n * m->k; j++) {
            *large++ = (float)m->large[j];
        }
        for (size_t j = 0; j < m->r * m->r; j++) {
            *small++ = (float)m->small[j];
        }
    }
}

static void widen(struct cr_laplace_set *set, const float *large, const float *small)
{
    for (size_t i = 0; i < set->n_items; i++) {
        struct cr_laplace_matrix *m = &set->items[i];
        for (size_t j = 0; j < m->n * m->k; j++) {
            m->large[j] = (double)*large++;
        }
        for (size_t j = 0; j < m->r * m->r; j++) {
            m->small[j] = (double)*small++;
        }
    }
}

static void room_of(const struct cr_laplace_set *set, size_t *n_large, size_t *n_small)
{
    *n_large = *n_small = 0;
    for (size_t i = 0; i < set->n_items; i++) {
        *n_large += set->items[i].n * set->items[i].k;
        *n_small += set->items[i].r * set->items[i].r;
    }
}

cr_status cr_laplace_write(const struct cr_laplace_set *set, const struct cr_posterior_about *about, const char *dir,
                           struct cr_error *err)
{
    size_t n_large, n_small;
    room_of(set, &n_large, &n_small);
    float *large = cr_alloc(n_large, sizeof *large), *small = cr_alloc(n_small, sizeof *small);
    cr_status status = CR_E_MEMORY;
    if (large != NULL && small != NULL) {
        const struct cr_posterior_vector mean = {".mean", about->adapter->params};
        const struct cr_posterior_sides sides[] = {{".large", CR_LAPLACE_COLUMNS, true, large},
                                                   {".small", CR_LAPLACE_COLUMNS, false, small}};
        json_t *numbers = json_object();
        narrow(set, large, small);
        cr_json_put(&numbers, "prior_precision", json_real(set->precision));
        cr_json_put(&numbers, "n_examples", json_integer((json_int_t)set->n_examples));
        struct cr_posterior_content content = {
            .method = "laplace", .numbers = numbers, .vectors = &mean, .n_vectors = 1, .sides = sides, .n_sides = 2};
        status = cr_posterior_write_content(about, &content, dir, err);
        json_decref(numbers);
    } else {
        cr_fail(err, status, "no memory for writing a posterior");
    }
    cr_free(large);
    cr_free(small);
    return status;
}

static cr_status read(const struct cr_posterior_file *file, const struct cr_adapter *adapter,
                      const struct cr_adapter_base *base, struct cr_laplace_set *set, struct cr_error *err)
{
    const char *label = cr_safetensors_label(file->st);
    int64_t n_examples = 0;
    CR_TRY(cr_json_get_number(file->numbers, "prior_precision", true, &set->precision, label, err));
    CR_TRY(cr_json_get_int(file->numbers, "n_examples", true, 1, INT64_MAX, &n_examples, label, err));
    if (!(set->precision > 0)) {
        return cr_fail(err, CR_E_INPUT, "%s: prior_precision %g, above 0 expected", label, set->precision);
    }
    set->n_examples = (uint64_t)n_examples;
    CR_TRY(cr_posterior_file_check(file, adapter, 3, err));
    size_t n_large, n_small;
    room_of(set, &n_large, &n_small);
    float *mean = cr_alloc(adapter->n_params, sizeof *mean);
    float *large = cr_alloc(n_large, sizeof *large), *small = cr_alloc(n_small, sizeof *small);
    cr_status status = CR_OK;
    if (mean == NULL || large == NULL || small == NULL) {
        status = cr_fail(err, CR_E_MEMORY, "no memory for reading a posterior");
        goto out;
    }
    CR_TRY_OUT(status, cr_posterior_file_mean(file, adapter, base, mean, err));
    const struct cr_posterior_sides to[] = {{".large", CR_LAPLACE_COLUMNS, true, large},
                                            {".small", CR_LAPLACE_COLUMNS, false, small}};
    CR_TRY_OUT(status, cr_posterior_file_sides(file, adapter, base, &to[0], err));
    CR_TRY_OUT(status, cr_posterior_file_sides(file, adapter, base, &to[1], err));
    widen(set, large, small);
    struct cr_error why;
    if (cr_laplace_set_ready(set, &why) != CR_OK) {
        status = cr_fail(err, CR_E_INPUT, "%s: %s", label, why.message);
    }
out:
    cr_free(mean);
    cr_free(large);
    cr_free(small);
    return status;
}

cr_status cr_laplace_read(const char *dir, const struct cr_adapter *adapter, const struct cr_adapter_base *base,
                          struct cr_laplace_set *set, struct cr_error *err)
{
    struct cr_posterior_file file;
    struct cr_laplace_set made = {0};
    CR_TRY(cr_posterior_file_open(dir, adapter, &file, err));
    cr_status status = cr_laplace_set_init(&made, adapter, err);
    if (status == CR_OK) {
        status = read(&file, adapter, base, &made, err);
    }
    cr_posterior_file_close(&file);
    if (status == CR_OK) {
        *set = made;
    } else {
        cr_laplace_set_free(&made);
    }
    return status;
}
