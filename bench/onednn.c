/* The peer: a dense product by oneDNN with weights in the layout it likes best. Versions 2.x and 3.x. */
#include "bench/cr_bench.h"

#include <stdlib.h>

#if CR_HAVE_ONEDNN

#include <dnnl.h>
#include <omp.h>
#include <stdio.h>
#include <string.h>

struct cr_onednn {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    dnnl_primitive_t product;
    dnnl_memory_t memory[3]; /* source, packed weights, result */
};

typedef dnnl_memory_desc_t desc;

/* How a descriptor is handed to functions. */
#if DNNL_VERSION_MAJOR >= 3
typedef const_dnnl_memory_desc_t desc_view;
#define VIEW(desc) (desc)

static dnnl_status_t make_desc(desc *d, const dnnl_dims_t dims, dnnl_data_type_t type, dnnl_format_tag_t tag)
{
    return dnnl_memory_desc_create_with_tag(d, 2, dims, type, tag);
}

static dnnl_status_t make_product(dnnl_primitive_desc_t *pd, dnnl_engine_t engine, desc_view x, desc_view w,
                                  desc_view y)
{
    return dnnl_matmul_primitive_desc_create(pd, engine, x, w, NULL, y, NULL);
}

static void drop_desc(desc *d)
{
    if (*d != NULL) {
        dnnl_memory_desc_destroy(*d);
    }
}
#else
typedef const dnnl_memory_desc_t *desc_view;
#define VIEW(desc) (&(desc))

static dnnl_status_t make_desc(desc *d, const dnnl_dims_t dims, dnnl_data_type_t type, dnnl_format_tag_t tag)
{
    return dnnl_memory_desc_init_by_tag(d, 2, dims, type, tag);
}

static dnnl_status_t make_product(dnnl_primitive_desc_t *pd, dnnl_engine_t engine, desc_view x, desc_view w,
                                  desc_view y)
{
    dnnl_matmul_desc_t d;
    dnnl_status_t status = dnnl_matmul_desc_init(&d, x, w, NULL, y);
    return status == dnnl_success ? dnnl_primitive_desc_create(pd, &d, NULL, engine, NULL) : status;
}

static void drop_desc(desc *d)
{
    (void)d;
}
#endif

static dnnl_memory_t make_memory(desc_view d, dnnl_engine_t engine)
{
    dnnl_memory_t memory = NULL;
    void *data = cr_bench_memory(dnnl_memory_desc_get_size(d));
    return dnnl_memory_create(&memory, d, engine, data) == dnnl_success ? memory : NULL;
}

void cr_onednn_close(struct cr_onednn *p)
{
    if (p == NULL) {
        return;
    }
    for (int i = 0; i < 3; i++) {
        if (p->memory[i] != NULL) {
            dnnl_memory_destroy(p->memory[i]);
        }
    }
    if (p->product != NULL) {
        dnnl_primitive_destroy(p->product);
    }
    if (p->stream != NULL) {
        dnnl_stream_destroy(p->stream);
    }
    if (p->engine != NULL) {
        dnnl_engine_destroy(p->engine);
    }
    free(p);
}

/* Small ordinary numbers in both formats: 0x3c3c3c3c is 0.0115. */
static void fill(dnnl_memory_t memory, size_t n_bytes)
{
    void *data = NULL;
    if (dnnl_memory_get_data_handle(memory, &data) == dnnl_success && data != NULL) {
        memset(data, 0x3c, n_bytes);
    }
}

struct cr_onednn *cr_onednn_open(size_t m, size_t n, size_t k, bool bf16)
{
    struct cr_onednn *p = calloc(1, sizeof *p);
    if (p == NULL) {
        return NULL;
    }
    omp_set_num_threads(cr_bench_threads());
    dnnl_data_type_t type = bf16 ? dnnl_bf16 : dnnl_f32;
    dnnl_dims_t dims_x = {(dnnl_dim_t)m, (dnnl_dim_t)k}, dims_w = {(dnnl_dim_t)k, (dnnl_dim_t)n};
    dnnl_dims_t dims_y = {(dnnl_dim_t)m, (dnnl_dim_t)n};
    desc x = {0}, w = {0}, y = {0};
    dnnl_primitive_desc_t pd = NULL;
    bool good = dnnl_engine_create(&p->engine, dnnl_cpu, 0) == dnnl_success &&
                dnnl_stream_create(&p->stream, p->engine, dnnl_stream_default_flags) == dnnl_success &&
                make_desc(&x, dims_x, type, dnnl_ab) == dnnl_success &&
                make_desc(&w, dims_w, type, dnnl_format_tag_any) == dnnl_success &&
                make_desc(&y, dims_y, dnnl_f32, dnnl_ab) == dnnl_success &&
                make_product(&pd, p->engine, VIEW(x), VIEW(w), VIEW(y)) == dnnl_success &&
                dnnl_primitive_create(&p->product, pd) == dnnl_success;
    if (good) {
        p->memory[0] = make_memory(VIEW(x), p->engine);
        p->memory[1] = make_memory(dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0), p->engine);
        p->memory[2] = make_memory(VIEW(y), p->engine);
        good = p->memory[0] != NULL && p->memory[1] != NULL && p->memory[2] != NULL;
    }
    if (pd != NULL) {
        dnnl_primitive_desc_destroy(pd);
    }
    drop_desc(&x);
    drop_desc(&w);
    drop_desc(&y);
    if (!good) {
        cr_onednn_close(p);
        return NULL;
    }
    size_t size = bf16 ? 2 : 4;
    fill(p->memory[0], m * k * size);
    fill(p->memory[1], k * n * size);
    cr_onednn_run(p);
    return p;
}

void cr_onednn_run(struct cr_onednn *p)
{
    dnnl_exec_arg_t args[3] = {
        {DNNL_ARG_SRC, p->memory[0]}, {DNNL_ARG_WEIGHTS, p->memory[1]}, {DNNL_ARG_DST, p->memory[2]}};
    dnnl_primitive_execute(p->product, p->stream, 3, args);
    dnnl_stream_wait(p->stream);
}

const char *cr_onednn_name(void)
{
    static char name[32];
    const dnnl_version_t *version = dnnl_version();
    snprintf(name, sizeof name, "oneDNN %d.%d.%d", version->major, version->minor, version->patch);
    return name;
}

#else

const char *cr_onednn_name(void)
{
    return "none";
}

struct cr_onednn *cr_onednn_open(size_t m, size_t n, size_t k, bool bf16)
{
    (void)m, (void)n, (void)k, (void)bf16;
    return NULL;
}

void cr_onednn_run(struct cr_onednn *product)
{
    (void)product;
}

void cr_onednn_close(struct cr_onednn *product)
{
    (void)product;
}

#endif
