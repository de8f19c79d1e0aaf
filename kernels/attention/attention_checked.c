#include "credence/kernels/attention.h"

#include "kernels/common/contract.h"

/* What a call describes, once it has been found sound. */
struct shape {
    size_t q_features, kv_features; /* of a token */
    size_t n_blocks;                /* of tokens */
    size_t max_len;                 /* of a sequence */
    size_t n_rows;                  /* of a prefix, 0: none */
};

/* Bounds say where to read and write, so they are read too. */
static void sequences(struct cr_contract *c, const struct cr_attention_args *a, struct shape *shape)
{
    cr_contract_pointer(c, a->seg, "seg");
    cr_contract_dimension(c, a->n_seg, "n_seg");
    if (c->status != CR_OK) {
        return;
    }
    cr_contract_that(c, a->seg[0] == 0, "seg", "does not start at token 0");
    for (size_t s = 0; c->status == CR_OK && s < a->n_seg; s++) {
        cr_contract_that(c, a->seg[s] <= a->seg[s + 1], "seg", "descends");
        size_t len = a->seg[s + 1] - a->seg[s];
        shape->max_len = len > shape->max_len ? len : shape->max_len;
    }
    cr_contract_that(c, a->seg[a->n_seg] % CR_LANES == 0, "seg", "does not end with a token block");
    shape->n_blocks = a->seg[a->n_seg] / CR_LANES;
}

static void heads(struct cr_contract *c, const struct cr_attention_args *a, struct shape *shape)
{
    cr_contract_dimension(c, a->n_heads, "n_heads");
    cr_contract_dimension(c, a->n_kv, "n_kv");
    cr_contract_dimension(c, a->head_dim, "head_dim");
    cr_contract_that(c, c->status != CR_OK || a->n_heads % a->n_kv == 0, "n_heads", "is no multiple of n_kv");
    bool fits = !__builtin_mul_overflow(a->n_heads, a->head_dim, &shape->q_features);
    cr_contract_that(c, fits, "n_heads", "times head_dim overflows");
    cr_contract_dimension(c, shape->q_features, "n_heads * head_dim");
    shape->kv_features = a->n_kv * a->head_dim;
}

/* The rows of all prefixes as token blocks, and which sequence sees which. */
static void prefixes(struct cr_contract *c, const struct cr_attention_args *a, struct shape *shape)
{
    const struct cr_attention_prefix *p = a->prefix;
    if (p == NULL || c->status != CR_OK) {
        return;
    }
    cr_contract_dimension(c, p->n_rows, "prefix.n_rows");
    cr_contract_dimension(c, p->n_prefixes, "prefix.n_prefixes");
    cr_contract_pointer(c, p->of_seg, "prefix.of_seg");
    for (size_t s = 0; c->status == CR_OK && s < a->n_seg; s++) {
        cr_contract_that(c, p->of_seg[s] < p->n_prefixes || p->of_seg[s] == CR_ATTENTION_NO_PREFIX, "prefix.of_seg",
                         "names a prefix that is not there");
    }
    shape->n_rows = p->n_rows;
}

static void prefix_rows(struct cr_contract *c, const struct cr_attention_prefix *p, const struct shape *shape,
                        const float *rows, const char *argument)
{
    size_t n_features;
    bool fits = !__builtin_mul_overflow(cr_tl16_blocks(p->n_rows), shape->kv_features, &n_features);
    cr_contract_that(c, fits, argument, "overflows");
    cr_contract_dimension(c, n_features, argument);
    cr_contract_f32_blocks(c, rows, p->stride, n_features, p->n_prefixes, argument);
}

/* Partials of every sequence, one piece without strides. */
static void prefix_parts(struct cr_contract *c, const struct cr_attention_args *a, const struct shape *shape)
{
    size_t rows, floats;
    bool fits = !__builtin_mul_overflow(cr_tl16_blocks(shape->n_rows), shape->q_features, &rows) &&
                !__builtin_mul_overflow(rows, a->n_seg, &floats) && floats <= PTRDIFF_MAX / CR_LANES / sizeof(float);
    cr_contract_that(c, fits, "prefix.dk_part", "is beyond the address space");
    cr_contract_blocks(c, a->prefix->dk_part, 0, 0, 1, "prefix.dk_part");
    cr_contract_blocks(c, a->prefix->dv_part, 0, 0, 1, "prefix.dv_part");
}

static struct shape shape_of(struct cr_contract *c, const struct cr_attention_args *a)
{
    struct shape shape = {0};
    heads(c, a, &shape);
    sequences(c, a, &shape);
    prefixes(c, a, &shape);
    return shape;
}

/* What forward and backward share. */
static void inputs(struct cr_contract *c, const struct cr_attention_args *a, const struct shape *shape, size_t begin,
                   size_t end)
{
    if (c->status != CR_OK) {
        return;
    }
    cr_contract_range(c, begin, end, 1, a->n_seg * a->n_heads);
    cr_contract_f32_blocks(c, a->q, a->q_stride, shape->q_features, shape->n_blocks, "q");
    cr_contract_f32_blocks(c, a->k, a->kv_stride, shape->kv_features, shape->n_blocks, "k");
    cr_contract_f32_blocks(c, a->v, a->kv_stride, shape->kv_features, shape->n_blocks, "v");
    cr_contract_f32_blocks(c, a->o, a->o_stride, shape->q_features, shape->n_blocks, "o");
    cr_contract_f32_blocks(c, a->lse, a->n_heads * CR_LANES, a->n_heads, shape->n_blocks, "lse");
    cr_contract_that(c, a->scale > 0 && a->scale <= 3.402823466e38f, "scale", "is no positive number");
    if (a->prefix != NULL) {
        prefix_rows(c, a->prefix, shape, a->prefix->k, "prefix.k");
        prefix_rows(c, a->prefix, shape, a->prefix->v, "prefix.v");
    }
}

static void scratch_of(struct cr_contract *c, const struct cr_attention_args *a, const struct shape *shape,
                       const void *scratch, size_t scratch_bytes)
{
    if (c->status == CR_OK) {
        size_t needed = cr_attention_scratch_bytes(shape->max_len, a->head_dim, shape->n_rows);
        cr_contract_scratch(c, scratch, scratch_bytes, needed);
    }
}

cr_status cr_attention_fwd_checked(const struct cr_attention_ops *ops, const struct cr_attention_args *args,
                                   size_t begin, size_t end, void *scratch, size_t scratch_bytes, struct cr_error *err)
{
    struct cr_contract c = cr_contract_open("attention fwd", ops, args, begin, end, err);
    if (c.status != CR_OK) {
        return c.status;
    }
    cr_contract_that(&c, ops->fwd != NULL, "ops.fwd", "is NULL");
    struct shape shape = shape_of(&c, args);
    inputs(&c, args, &shape, begin, end);
    scratch_of(&c, args, &shape, scratch, scratch_bytes);
    if (c.status == CR_OK && begin < end) {
        ops->fwd(args, begin, end, scratch);
    }
    return c.status;
}

cr_status cr_attention_bwd_checked(const struct cr_attention_ops *ops, const struct cr_attention_args *args,
                                   size_t begin, size_t end, void *scratch, size_t scratch_bytes, struct cr_error *err)
{
    struct cr_contract c = cr_contract_open("attention bwd", ops, args, begin, end, err);
    if (c.status != CR_OK) {
        return c.status;
    }
    cr_contract_that(&c, ops->bwd != NULL, "ops.bwd", "is NULL");
    struct shape shape = shape_of(&c, args);
    inputs(&c, args, &shape, begin, end);
    cr_contract_f32_blocks(&c, args->d_o, args->do_stride, shape.q_features, shape.n_blocks, "d_o");
    cr_contract_f32_blocks(&c, args->dq, args->q_stride, shape.q_features, shape.n_blocks, "dq");
    cr_contract_f32_blocks(&c, args->dk, args->dkv_stride, shape.q_features, shape.n_blocks, "dk");
    cr_contract_f32_blocks(&c, args->dv, args->dkv_stride, shape.q_features, shape.n_blocks, "dv");
    if (args->prefix != NULL) {
        prefix_parts(&c, args, &shape);
    }
    scratch_of(&c, args, &shape, scratch, scratch_bytes);
    if (c.status == CR_OK && begin < end) {
        ops->bwd(args, begin, end, scratch);
    }
    return c.status;
}

cr_status cr_attention_sum_kv_checked(const struct cr_attention_ops *ops, const struct cr_attention_args *args,
                                      size_t begin, size_t end, struct cr_error *err)
{
    struct cr_contract c = cr_contract_open("attention sum_kv", ops, args, begin, end, err);
    if (c.status != CR_OK) {
        return c.status;
    }
    cr_contract_that(&c, ops->sum_kv != NULL, "ops.sum_kv", "is NULL");
    struct shape shape = {0};
    heads(&c, args, &shape);
    cr_contract_f32_blocks(&c, args->dk, args->dkv_stride, shape.q_features, end, "dk");
    cr_contract_f32_blocks(&c, args->dv, args->dkv_stride, shape.q_features, end, "dv");
    cr_contract_f32_blocks(&c, args->dk_sum, args->kv_stride, shape.kv_features, end, "dk_sum");
    cr_contract_f32_blocks(&c, args->dv_sum, args->kv_stride, shape.kv_features, end, "dv_sum");
    if (c.status == CR_OK && begin < end) {
        ops->sum_kv(args, begin, end, NULL);
    }
    return c.status;
}

cr_status cr_attention_sum_prefix_checked(const struct cr_attention_ops *ops, const struct cr_attention_args *args,
                                          size_t begin, size_t end, struct cr_error *err)
{
    struct cr_contract c = cr_contract_open("attention sum_prefix", ops, args, begin, end, err);
    if (c.status != CR_OK) {
        return c.status;
    }
    cr_contract_that(&c, ops->sum_prefix != NULL, "ops.sum_prefix", "is NULL");
    cr_contract_pointer(&c, args->prefix, "prefix");
    struct shape shape = shape_of(&c, args);
    if (c.status == CR_OK) {
        size_t n_items = 0;
        bool fits = !__builtin_mul_overflow(args->prefix->n_prefixes, args->n_kv, &n_items);
        cr_contract_that(&c, fits, "prefix.n_prefixes", "times n_kv overflows");
        cr_contract_range(&c, begin, end, 1, n_items);
        prefix_rows(&c, args->prefix, &shape, args->prefix->dk, "prefix.dk");
        prefix_rows(&c, args->prefix, &shape, args->prefix->dv, "prefix.dv");
        prefix_parts(&c, args, &shape);
    }
    if (c.status == CR_OK && begin < end) {
        ops->sum_prefix(args, begin, end, NULL);
    }
    return c.status;
}
