/* attention: every tier against double, packing and split invariance, finite differences of the definition. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "credence/kernels/attention.h"
#include "kernels/common/half.h"
#include "tests/support/amx_trap.h"
#include "tests/support/attention_model.h"
#include "tests/support/kernel_test.h"

/* Unit roundoff of f32 and bf16, and the error of the bf16 variant's exp: 2^-18.5 of the polynomial, its roundings. */
static const double UNIT = 0x1p-24, UNIT_BF16 = 0x1p-8, EXP_BF16 = 0x1p-18;

struct shape {
    size_t n_heads, n_kv, head_dim;
    float scale, spread;       /* inputs are uniform in [-spread, spread] */
    const uint32_t *lengths;   /* ended by 0 */
    size_t n_rows, n_prefixes; /* sequence s sees prefix s mod (n_prefixes + 1), the last of which is none */
    bool f32_scores;
};

/* Odd starts for every length around a multiple of 16; pad tokens close the last block. */
static const uint32_t mixed[] = {3, 1, 2, 15, 16, 17, 48, 49, 130, 0};
static const uint32_t whole[] = {32, 96, 16, 0};
static const uint32_t ones[] = {1, 1, 1, 0};
static const uint32_t longer[] = {7, 211, 290, 0}; /* several chunks of keys and of queries */

#define PLAIN(heads, kv, dim, factor, size, lens)                                                                      \
    {                                                                                                                  \
        .n_heads = heads, .n_kv = kv, .head_dim = dim, .scale = factor, .spread = size, .lengths = lens                \
    }
#define PREFIXED(heads, kv, dim, factor, lens, rows, prefixes)                                                         \
    {                                                                                                                  \
        .n_heads = heads, .n_kv = kv, .head_dim = dim, .scale = factor, .spread = 1, .lengths = lens, .n_rows = rows,  \
        .n_prefixes = prefixes                                                                                         \
    }

static const struct shape shapes[] = {
    PLAIN(1, 1, 8, 0.35355339f, 1, mixed),
    PLAIN(3, 1, 64, 0.125f, 1, mixed),
    PLAIN(3, 3, 24, 0.2041241f, 2, mixed),
    PLAIN(7, 1, 10, 0.31622777f, 1, mixed),
    PLAIN(4, 2, 80, 0.1118034f, 1, mixed),
    PLAIN(2, 1, 128, 0.08838835f, 1, whole),
    PLAIN(2, 2, 64, 1.5f, 1, mixed), /* one key takes nearly all */
    PLAIN(14, 2, 8, 0.35355339f, 1, ones),
    PLAIN(2, 1, 96, 0.10206207f, 1, mixed),
    PLAIN(2, 1, 64, 0.125f, 1, longer),
    PREFIXED(4, 2, 16, 0.25f, mixed, 5, 2),
    PREFIXED(2, 1, 64, 0.125f, mixed, 32, 1),
    PREFIXED(3, 1, 33, 0.1740777f, mixed, 70, 3),
    PREFIXED(2, 1, 8, 0.35355339f, ones, 130, 2),
    PREFIXED(2, 2, 48, 0.1443376f, whole, 1, 1),
};
enum { N_SHAPES = sizeof shapes / sizeof *shapes, MAX_SEG = 16, GAP = 16 };

/* Buffers with q, k and v side by side, as a projection leaves them. */
struct problem {
    struct shape shape;
    struct cr_attention_args args;
    uint32_t seg[MAX_SEG];
    size_t n_blocks, n_items, max_len, scratch_bytes;
    float *qkv, *o, *lse, *d_o, *dqkv, *dk, *dv; /* dqkv: dq, then sums of dk and dv */
    size_t qkv_floats, o_floats, lse_floats;
    struct cr_attention_prefix prefix;
    uint32_t of_seg[MAX_SEG];
    float *prefix_kv, *prefix_dkv, *prefix_part; /* k then v, each a half */
    size_t prefix_floats, part_floats;
    void *scratch;
};

/* Prefixes with random rows; the lanes past the last row stay NaN. */
static void make_prefix(struct problem *p, struct cr_rng *rng, enum cr_guard_side side)
{
    const struct shape *shape = &p->shape;
    size_t blocks = cr_tl16_blocks(shape->n_rows), width = shape->n_kv * shape->head_dim;
    size_t stride = blocks * width * CR_LANES + GAP, half = shape->n_prefixes * stride;
    size_t part = p->args.n_seg * shape->n_heads * blocks * shape->head_dim * CR_LANES;
    p->prefix_floats = 2 * half;
    p->part_floats = 2 * part;
    p->prefix_kv = cr_guard_alloc(p->prefix_floats * 4, 64, side);
    p->prefix_dkv = cr_guard_alloc(p->prefix_floats * 4, 64, side);
    p->prefix_part = cr_guard_alloc(p->part_floats * 4, 64, side);
    for (size_t i = 0; i < 2 * shape->n_prefixes * shape->n_rows * width; i++) {
        size_t row = i % shape->n_rows, f = i / shape->n_rows % width, at = i / shape->n_rows / width;
        float *place = p->prefix_kv + at * stride + (row / CR_LANES * width + f) * CR_LANES + row % CR_LANES;
        cr_fill_f32(rng, place, 1, -shape->spread, shape->spread);
    }
    for (size_t i = 0; i < p->prefix_floats; i++) {
        p->prefix_dkv[i] = (float)(i % 7) * 0.25f;
    }
    for (size_t seg = 0; seg < p->args.n_seg; seg++) {
        size_t prefix = seg % (shape->n_prefixes + 1);
        p->of_seg[seg] = prefix == shape->n_prefixes ? CR_ATTENTION_NO_PREFIX : (uint32_t)prefix;
    }
    p->prefix = (struct cr_attention_prefix){
        .k = p->prefix_kv,
        .v = p->prefix_kv + half,
        .dk = p->prefix_dkv,
        .dv = p->prefix_dkv + half,
        .stride = stride,
        .n_rows = shape->n_rows,
        .n_prefixes = shape->n_prefixes,
        .dk_part = p->prefix_part,
        .dv_part = p->prefix_part + part,
    };
}

static struct problem make(struct shape shape, uint64_t stream, enum cr_guard_side side)
{
    struct problem p = {.shape = shape};
    size_t n_seg = 0;
    for (; shape.lengths[n_seg] > 0; n_seg++) {
        p.seg[n_seg + 1] = p.seg[n_seg] + shape.lengths[n_seg];
        p.max_len = shape.lengths[n_seg] > p.max_len ? shape.lengths[n_seg] : p.max_len;
    }
    p.n_blocks = cr_tl16_blocks(p.seg[n_seg]);
    if (p.seg[n_seg] % CR_LANES != 0) {
        p.seg[n_seg + 1] = (uint32_t)(p.n_blocks * CR_LANES);
        n_seg++;
        p.max_len = p.max_len < CR_LANES ? CR_LANES : p.max_len;
    }
    size_t head = shape.head_dim * CR_LANES;
    size_t q_stride = (shape.n_heads + 2 * shape.n_kv) * head + GAP, o_stride = shape.n_heads * head + GAP;
    p.n_items = n_seg * shape.n_heads;
    p.qkv_floats = p.n_blocks * q_stride;
    p.o_floats = p.n_blocks * o_stride;
    p.lse_floats = p.n_blocks * shape.n_heads * CR_LANES;
    p.scratch_bytes = cr_attention_scratch_bytes(p.max_len, shape.head_dim, shape.n_rows);
    p.qkv = cr_guard_alloc(p.qkv_floats * 4, 64, side);
    p.dqkv = cr_guard_alloc(p.qkv_floats * 4, 64, side);
    p.o = cr_guard_alloc(p.o_floats * 4, 64, side);
    p.d_o = cr_guard_alloc(p.o_floats * 4, 64, side);
    p.dk = cr_guard_alloc(p.o_floats * 4, 64, side);
    p.dv = cr_guard_alloc(p.o_floats * 4, 64, side);
    p.lse = cr_guard_alloc(p.lse_floats * 4, 64, side);
    p.scratch = cr_guard_alloc(p.scratch_bytes, 64, side);
    struct cr_rng rng = cr_rng_make(stream);
    cr_fill_f32(&rng, p.qkv, p.qkv_floats, -shape.spread, shape.spread);
    cr_fill_f32(&rng, p.d_o, p.o_floats, -1, 1);
    size_t k = shape.n_heads * head, v = k + shape.n_kv * head;
    p.args = (struct cr_attention_args){
        .q = p.qkv,
        .k = p.qkv + k,
        .v = p.qkv + v,
        .q_stride = q_stride,
        .kv_stride = q_stride,
        .o = p.o,
        .o_stride = o_stride,
        .lse = p.lse,
        .d_o = p.d_o,
        .dq = p.dqkv,
        .dk = p.dk,
        .dv = p.dv,
        .do_stride = o_stride,
        .dkv_stride = o_stride,
        .dk_sum = p.dqkv + k,
        .dv_sum = p.dqkv + v,
        .n_seg = n_seg,
        .n_heads = shape.n_heads,
        .n_kv = shape.n_kv,
        .head_dim = shape.head_dim,
        .scale = shape.scale,
        .f32_scores = shape.f32_scores,
    };
    if (shape.n_prefixes > 0) {
        make_prefix(&p, &rng, side);
    }
    return p;
}

static void *allocate(size_t n, size_t size)
{
    void *out = calloc(n > 0 ? n : 1, size);
    ck_assert(out != NULL);
    return out;
}

static void run(cr_attention_fn *fn, struct problem *p, size_t begin, size_t end)
{
    p->args.seg = p->seg;
    p->prefix.of_seg = p->of_seg;
    p->args.prefix = p->shape.n_prefixes > 0 ? &p->prefix : NULL;
    cr_poison(p->scratch, p->scratch_bytes);
    fn(&p->args, begin, end, p->scratch);
}

/* Whole, or item by item from the last. */
static void run_all(cr_attention_fn *fn, struct problem *p, size_t n, bool pieces)
{
    if (!pieces) {
        run(fn, p, 0, n);
        return;
    }
    for (size_t i = n; i > 0; i--) {
        run(fn, p, i - 1, i);
    }
}

/* Beside the values of enum cr_tier: the source of the amx tier on a model of the tiles. */
enum { MODEL = 40, N_TABLES = CR_TEST_TIERS + 1 };

static size_t tables(unsigned out[N_TABLES])
{
    enum cr_tier tiers[CR_TEST_TIERS];
    size_t n = cr_test_tiers(tiers);
    bool runs = false;
    for (size_t i = 0; i < n; i++) {
        out[i] = tiers[i];
        runs = runs || tiers[i] == CR_TIER_AVX512_BF16;
    }
    if (runs) {
        out[n++] = MODEL;
    }
    return n;
}

/* Whether products may be of bf16; the amx tier has f32 ones where the compiler knows no tiles. */
static bool is_bf16(unsigned table)
{
    struct cr_attention_ops f32, ops;
    cr_attention_ops_init(&f32, CR_TIER_AVX512);
    cr_attention_ops_init(&ops, CR_TIER_AMX);
    return table == MODEL || table == CR_TIER_AVX512_BF16 || (table == CR_TIER_AMX && ops.fwd != f32.fwd);
}

static struct cr_attention_ops ops_of(unsigned table)
{
    struct cr_attention_ops ops;
    if (table == MODEL) {
        cr_attention_fill_model(&ops);
    } else {
        cr_attention_ops_init(&ops, (enum cr_tier)table);
    }
    return ops;
}

/* ---- the definition in double, for one head of one sequence, with first-order error bounds ---- */

struct matrix {
    size_t len, dim, n_rows;               /* n_rows keys of the prefix stand before the others */
    bool bf16, f32_scores;                 /* products of bf16 operands, which are in q, k, v, d_o already */
    double *exact_q, *exact_k;             /* q and k before rounding, for f32_scores */
    double *q, *k, *v, *d_o;               /* [len][dim]; k, v, their gradients and bounds [n_rows + len][dim] */
    double *o, *o_bound, *lse, *lse_bound; /* forward */
    double *dq, *dk, *dv, *dq_bound, *dk_bound, *dv_bound;
    double *delta, *delta_bound; /* [len] */
};

static struct matrix matrix_alloc(size_t len, size_t dim, size_t n_rows)
{
    struct matrix m = {.len = len, .dim = dim, .n_rows = n_rows};
    double **full[] = {&m.q,  &m.k,  &m.v,  &m.d_o,      &m.o,        &m.o_bound,
                       &m.dq, &m.dk, &m.dv, &m.dq_bound, &m.dk_bound, &m.dv_bound};
    double **rows[] = {&m.lse, &m.lse_bound, &m.delta, &m.delta_bound};
    for (size_t i = 0; i < sizeof full / sizeof *full; i++) {
        *full[i] = allocate((n_rows + len) * dim, sizeof(double));
    }
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        *rows[i] = allocate(len, sizeof(double));
    }
    return m;
}

static void matrix_free(struct matrix *m)
{
    double *all[] = {m->q,  m->k,        m->v,        m->d_o,      m->o,   m->o_bound,   m->dq,    m->dk,
                     m->dv, m->dq_bound, m->dk_bound, m->dv_bound, m->lse, m->lse_bound, m->delta, m->delta_bound};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        free(all[i]);
    }
}

static double dot(const double *a, const double *b, size_t n, double *absolute)
{
    double sum = 0;
    *absolute = 0;
    for (size_t i = 0; i < n; i++) {
        sum += a[i] * b[i];
        *absolute += fabs(a[i] * b[i]);
    }
    return sum;
}

/* S[j][t] and the error of its f32 chain: a product and a sum each, then the scale. */
static double score(const struct matrix *m, double scale, size_t j, size_t t, double *error)
{
    double absolute;
    const double *q = m->bf16 && m->f32_scores ? m->exact_q : m->q;
    const double *k = m->bf16 && m->f32_scores ? m->exact_k : m->k;
    double sum = dot(k + j * m->dim, q + t * m->dim, m->dim, &absolute);
    *error = ((double)m->dim + 1) * UNIT * absolute * scale;
    return sum * scale;
}

/* Relative error of p_j: that of S, the subtraction's rounding, exp at 2 ulp. A common factor cancels. The sums over n
 * keys add n units to numerator and denominator each; division takes up to two.
 * bf16: the exponent is in base 2 with a rounded factor (2 units of s - max, the same again for factors between
 * chunks), exp has its own error, once a chunk of keys; p is rounded, in numerator and denominator alike. */
static void forward(struct matrix *m, double scale)
{
    size_t most = m->n_rows + m->len;
    double *s = allocate(most, sizeof *s), *relative = allocate(most, sizeof *relative);
    for (size_t t = 0; t < m->len; t++) {
        double max = -INFINITY, sum = 0, sum_error = 0;
        size_t n_keys = m->n_rows + t + 1;
        for (size_t j = 0; j < n_keys; j++) {
            s[j] = score(m, scale, j, t, &relative[j]);
            max = fmax(max, s[j]);
        }
        for (size_t j = 0; j < n_keys; j++) {
            relative[j] += (max - s[j] + 4) * UNIT;
            relative[j] += m->bf16 ? 4 * (max - s[j]) * UNIT + (2 + (double)n_keys / 48) * EXP_BF16 + UNIT_BF16 : 0;
            sum += exp(s[j] - max);
            sum_error += exp(s[j] - max) * relative[j];
        }
        double n = (double)n_keys;
        m->lse[t] = max + log(sum);
        m->lse_bound[t] = sum_error / sum + (n + log(sum) + fabs(m->lse[t])) * UNIT;
        m->lse_bound[t] += m->bf16 ? 4 * fabs(max) * UNIT : 0;
        for (size_t f = 0; f < m->dim; f++) {
            double o = 0, bound = 0;
            for (size_t j = 0; j < n_keys; j++) {
                o += exp(s[j] - m->lse[t]) * m->v[j * m->dim + f];
            }
            for (size_t j = 0; j < n_keys; j++) {
                double size = fabs(m->v[j * m->dim + f]) + fabs(o);
                bound += exp(s[j] - m->lse[t]) * size * (relative[j] + (n + 2) * UNIT);
            }
            m->o[t * m->dim + f] = o;
            m->o_bound[t * m->dim + f] = 1.02 * bound; /* terms of second order */
        }
    }
    free(s);
    free(relative);
}

/* lse and delta are taken as they are in *m. Sums over n tokens add n + 1 units of their absolute terms. bf16:
 * exponents as above, from numbers as large as s and lse; P and dS are rounded before the products. */
static void backward(struct matrix *m, double scale)
{
    size_t dim = m->dim;
    double chain = ((double)(m->n_rows + m->len) + 4) * UNIT, rounding = m->bf16 ? UNIT_BF16 : 0;
    for (size_t t = 0; t < m->len; t++) {
        for (size_t j = 0; j < m->n_rows + t + 1; j++) {
            double error, absolute;
            double s = score(m, scale, j, t, &error), exponent = s - m->lse[t];
            error += m->bf16 ? 3 * (fabs(s) + fabs(m->lse[t])) * UNIT + EXP_BF16 : 0;
            double p = exp(exponent), p_error = p * (error + (fabs(exponent) + 4) * UNIT);
            double dp = dot(m->v + j * dim, m->d_o + t * dim, dim, &absolute);
            double ds = p * (dp - m->delta[t]);
            double dp_error = ((double)dim + 1) * UNIT * absolute + m->delta_bound[t];
            double ds_error = p_error * fabs(dp - m->delta[t]) + p * dp_error + 2 * UNIT * fabs(ds);
            for (size_t f = 0; f < dim; f++) {
                size_t at_j = j * dim + f, at_t = t * dim + f;
                m->dq[at_t] += scale * ds * m->k[at_j];
                m->dq_bound[at_t] += 1.01 * scale * fabs(m->k[at_j]) * (ds_error + (chain + rounding) * fabs(ds));
                m->dk[at_j] += scale * ds * m->q[at_t];
                m->dk_bound[at_j] += 1.01 * scale * fabs(m->q[at_t]) * (ds_error + (chain + rounding) * fabs(ds));
                m->dv[at_j] += p * m->d_o[at_t];
                m->dv_bound[at_j] += 1.01 * fabs(m->d_o[at_t]) * (p_error + (chain + rounding) * p);
            }
        }
    }
}

/* ---- between packed buffers and matrices ---- */

static size_t place(size_t stride, size_t dim, size_t head, size_t token, size_t f)
{
    return token / CR_LANES * stride + (head * dim + f) * CR_LANES + token % CR_LANES;
}

static void read_tokens(double *out, const float *packed, size_t stride, size_t dim, size_t head, size_t first,
                        size_t len)
{
    for (size_t i = 0; i < len * dim; i++) {
        out[i] = packed[place(stride, dim, head, first + i / dim, i % dim)];
    }
}

static void compare(const char *what, const float *packed, size_t stride, size_t dim, size_t head, size_t first,
                    size_t len, const double *want, const double *bound)
{
    float *got = allocate(len * dim, sizeof *got);
    for (size_t i = 0; i < len * dim; i++) {
        got[i] = packed[place(stride, dim, head, first + i / dim, i % dim)];
    }
    cr_expect_within(what, got, want, bound, len * dim);
    free(got);
}

/* The prefix of an item, its base in a half of a buffer like prefix_kv. */
static size_t prefix_base(const struct problem *p, size_t index)
{
    return p->of_seg[index / p->args.n_heads] * p->prefix.stride;
}

static struct matrix read_item(const struct problem *p, size_t index, size_t *head, size_t *first)
{
    const struct cr_attention_args *a = &p->args;
    size_t seg = index / a->n_heads, dim = a->head_dim;
    *head = index % a->n_heads;
    *first = p->seg[seg];
    size_t len = p->seg[seg + 1] - p->seg[seg], kv_head = *head / (a->n_heads / a->n_kv);
    bool has_prefix = p->shape.n_prefixes > 0 && p->of_seg[seg] != CR_ATTENTION_NO_PREFIX;
    struct matrix m = matrix_alloc(len, dim, has_prefix ? p->shape.n_rows : 0);
    if (has_prefix) {
        size_t base = prefix_base(p, index), stride = a->n_kv * dim * CR_LANES;
        read_tokens(m.k, p->prefix.k + base, stride, dim, kv_head, 0, m.n_rows);
        read_tokens(m.v, p->prefix.v + base, stride, dim, kv_head, 0, m.n_rows);
    }
    read_tokens(m.q, a->q, a->q_stride, dim, *head, *first, len);
    read_tokens(m.k + m.n_rows * dim, a->k, a->kv_stride, dim, kv_head, *first, len);
    read_tokens(m.v + m.n_rows * dim, a->v, a->kv_stride, dim, kv_head, *first, len);
    read_tokens(m.d_o, a->d_o, a->do_stride, dim, *head, *first, len);
    return m;
}

static void round_to_bf16(double *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        x[i] = (double)cr_bf16_to_f32(cr_f32_to_bf16((float)x[i]));
    }
}

/* The prefix's gradient by one head: its rows within their bounds, zero in the lanes past them. */
static void check_prefix_part(const struct problem *p, size_t index, const struct matrix *m)
{
    size_t dim = m->dim, n_blocks = cr_tl16_blocks(m->n_rows), at = index * n_blocks * dim * CR_LANES;
    const float *part[] = {p->prefix.dk_part + at, p->prefix.dv_part + at};
    compare("dk of the prefix", part[0], dim * CR_LANES, dim, 0, 0, m->n_rows, m->dk, m->dk_bound);
    compare("dv of the prefix", part[1], dim * CR_LANES, dim, 0, 0, m->n_rows, m->dv, m->dv_bound);
    for (size_t i = 0; i < 2 * dim * (n_blocks * CR_LANES - m->n_rows); i++) {
        size_t row = m->n_rows + i / 2 / dim, f = i / 2 % dim;
        ck_assert(part[i % 2][place(dim * CR_LANES, dim, 0, row, f)] == 0);
    }
}

static void check_item(const struct problem *p, size_t index, bool bf16)
{
    const struct cr_attention_args *a = &p->args;
    size_t head, first, dim = a->head_dim;
    struct matrix m = read_item(p, index, &head, &first);
    double *exact = allocate(m.len * dim, sizeof *exact); /* d_o before it is rounded */
    size_t keys = (m.n_rows + m.len) * dim, own = m.n_rows * dim;
    memcpy(exact, m.d_o, m.len * dim * sizeof *exact);
    m.bf16 = bf16;
    m.exact_q = m.q;
    m.exact_k = m.k;
    if (bf16) {
        m.exact_q = allocate(m.len * dim, sizeof(double));
        m.exact_k = allocate(keys, sizeof(double));
        memcpy(m.exact_q, m.q, m.len * dim * sizeof(double));
        memcpy(m.exact_k, m.k, keys * sizeof(double));
        round_to_bf16(m.q, m.len * dim);
        round_to_bf16(m.k, keys);
        round_to_bf16(m.v, keys);
        round_to_bf16(m.d_o, m.len * dim);
    }
    m.f32_scores = a->f32_scores;
    forward(&m, a->scale);
    compare("o", a->o, a->o_stride, dim, head, first, m.len, m.o, m.o_bound);
    compare("lse", a->lse, a->n_heads * CR_LANES, 1, head, first, m.len, m.lse, m.lse_bound);
    /* The backward pass is judged as a function of what it reads: the o and lse of this tier. */
    read_tokens(m.o, a->o, a->o_stride, dim, head, first, m.len);
    read_tokens(m.lse, a->lse, a->n_heads * CR_LANES, 1, head, first, m.len);
    for (size_t t = 0; t < m.len; t++) {
        double absolute;
        m.delta[t] = dot(m.o + t * dim, exact + t * dim, dim, &absolute);
        m.delta_bound[t] = ((double)dim + 1) * UNIT * absolute;
    }
    backward(&m, a->scale);
    compare("dq", a->dq, a->q_stride, dim, head, first, m.len, m.dq, m.dq_bound);
    compare("dk", a->dk, a->dkv_stride, dim, head, first, m.len, m.dk + own, m.dk_bound + own);
    compare("dv", a->dv, a->dkv_stride, dim, head, first, m.len, m.dv + own, m.dv_bound + own);
    if (m.n_rows > 0) {
        check_prefix_part(p, index, &m);
    }
    if (bf16) {
        free(m.exact_q);
        free(m.exact_k);
    }
    free(exact);
    matrix_free(&m);
}

/* Shape i / 2; odd i for the tiers that can round the scores' operands. */
START_TEST(against_double)
{
    unsigned tiers[N_TABLES];
    size_t n_tiers = tables(tiers);
    for (size_t i = 0; i < n_tiers; i++) {
        bool bf16 = is_bf16(tiers[i]);
        if (_i % 2 != 0 && !bf16) {
            continue;
        }
        struct cr_attention_ops ops = ops_of(tiers[i]);
        struct shape shape = shapes[_i / 2];
        shape.f32_scores = _i % 2 == 0;
        struct problem p = make(shape, (uint64_t)_i + 1, i % 2 ? CR_AT_START : CR_AT_END);
        cr_guard_protect(p.qkv, true);
        cr_guard_protect(p.d_o, true);
        if (shape.n_prefixes > 0) {
            cr_guard_protect(p.prefix_kv, true);
        }
        run(ops.fwd, &p, 0, p.n_items);
        cr_guard_protect(p.o, true);
        cr_guard_protect(p.lse, true);
        run(ops.bwd, &p, 0, p.n_items);
        for (size_t item = 0; item < p.n_items; item += cr_test_every(5)) {
            check_item(&p, item, bf16);
        }
        cr_guard_free_all();
    }
}
END_TEST

/* Gradients of the prefixes: added to what is there, sequences in order and heads in order, exactly. */
START_TEST(sums_of_prefixes)
{
    unsigned tiers[N_TABLES];
    size_t n_tiers = tables(tiers);
    if (shapes[_i].n_prefixes == 0) {
        return;
    }
    for (size_t i = 0; i < n_tiers; i++) {
        struct cr_attention_ops ops = ops_of(tiers[i]);
        struct problem p = make(shapes[_i], 41, CR_AT_END);
        struct cr_rng rng = cr_rng_make(42);
        cr_fill_f32(&rng, p.prefix_part, p.part_floats, -1, 1);
        size_t n = p.prefix_floats, lines = p.shape.head_dim * CR_LANES, n_blocks = cr_tl16_blocks(p.shape.n_rows);
        float *want = allocate(n, sizeof *want);
        memcpy(want, p.prefix_dkv, n * sizeof *want);
        for (size_t part = 0; part < p.part_floats / lines; part++) {
            size_t block = part % n_blocks, head = part / n_blocks % p.shape.n_heads;
            size_t seg = part / n_blocks / p.shape.n_heads % p.args.n_seg, half = part * lines * 2 / p.part_floats;
            if (p.of_seg[seg] == CR_ATTENTION_NO_PREFIX) {
                continue;
            }
            size_t kv_head = head / (p.shape.n_heads / p.shape.n_kv);
            float *out = want + half * n / 2 + p.of_seg[seg] * p.prefix.stride;
            out += (block * p.shape.n_kv + kv_head) * lines;
            for (size_t k = 0; k < lines; k++) {
                out[k] += p.prefix_part[part * lines + k];
            }
        }
        run(ops.sum_prefix, &p, p.shape.n_kv, p.shape.n_prefixes * p.shape.n_kv);
        run(ops.sum_prefix, &p, 0, p.shape.n_kv);
        cr_expect_bytes("gradient of the prefixes", p.prefix_dkv, want, n * 4);
        free(want);
        cr_guard_free_all();
    }
}
END_TEST

/* ---- bits ---- */

static float *copy_of(const float *in, size_t n)
{
    float *out = allocate(n, sizeof *out);
    memcpy(out, in, n * sizeof *out);
    return out;
}

START_TEST(splits_give_the_same_bits)
{
    unsigned tiers[N_TABLES];
    size_t n_tiers = tables(tiers);
    for (size_t i = 0; i < n_tiers; i++) {
        struct cr_attention_ops ops = ops_of(tiers[i]);
        float *kept[2][7] = {{NULL}};
        struct problem p;
        for (int pieces = 0; pieces < 2; pieces++) {
            p = make(shapes[_i], 100, CR_AT_END);
            run_all(ops.fwd, &p, p.n_items, pieces);
            run_all(ops.bwd, &p, p.n_items, pieces);
            run_all(ops.sum_kv, &p, p.n_blocks, pieces);
            size_t n_out = p.shape.n_prefixes > 0 ? 7 : 5;
            if (p.shape.n_prefixes > 0) {
                run_all(ops.sum_prefix, &p, p.shape.n_prefixes * p.shape.n_kv, pieces);
            }
            float *out[] = {p.o, p.lse, p.dqkv, p.dk, p.dv, p.prefix_part, p.prefix_dkv};
            size_t n[] = {p.o_floats, p.lse_floats,  p.qkv_floats,   p.o_floats,
                          p.o_floats, p.part_floats, p.prefix_floats};
            for (size_t o = 0; o < n_out; o++) {
                kept[pieces][o] = copy_of(out[o], n[o]);
            }
            for (size_t o = 0; pieces && o < n_out; o++) {
                cr_expect_bytes("output", kept[1][o], kept[0][o], n[o] * 4);
            }
            cr_guard_free_all();
        }
        for (size_t o = 0; o < 14; o++) {
            free(kept[o / 7][o % 7]);
        }
    }
}
END_TEST

/* Copies tokens between packed buffers of `n_lines` lines. */
static void move(float *out, size_t out_stride, size_t out_first, const float *in, size_t in_stride, size_t in_first,
                 size_t n_lines, size_t len)
{
    for (size_t t = 0; t < len; t++) {
        for (size_t f = 0; f < n_lines; f++) {
            out[place(out_stride, n_lines, 0, out_first + t, f)] = in[place(in_stride, n_lines, 0, in_first + t, f)];
        }
    }
}

/* Every lane of `packed` outside tokens [first, first + len) still holds the poison. */
static void expect_untouched(const char *what, const float *packed, size_t stride, size_t n_lines, size_t n_blocks,
                             size_t first, size_t len)
{
    for (size_t t = 0; t < n_blocks * CR_LANES; t++) {
        for (size_t f = 0; (t < first || t >= first + len) && f < n_lines; f++) {
            uint32_t bits;
            memcpy(&bits, &packed[place(stride, n_lines, 0, t, f)], sizeof bits);
            if (bits != 0xffffffff) {
                ck_abort_msg("%s: token %zu line %zu outside [%zu, %zu) was written", what, t, f, first, first + len);
            }
        }
    }
}

static void expect_moved(const char *what, const float *packed, size_t stride, size_t first, const float *alone,
                         size_t alone_stride, size_t n_lines, size_t len)
{
    for (size_t t = 0; t < len; t++) {
        for (size_t f = 0; f < n_lines; f++) {
            const float *a = &packed[place(stride, n_lines, 0, first + t, f)];
            const float *b = &alone[place(alone_stride, n_lines, 0, t, f)];
            if (memcmp(a, b, sizeof *a) != 0) {
                ck_abort_msg("%s: token %zu line %zu: packed %.9g, alone %.9g", what, t, f, (double)*a, (double)*b);
            }
        }
    }
}

/* One sequence among neighbours that are all NaN gives the bits it gives alone from lane 0, and leaves them be. */
START_TEST(packing_does_not_matter)
{
    static const uint32_t lengths[] = {1, 2, 15, 16, 17, 48, 49, 130};
    static const uint32_t starts[] = {5, 15, 0, 33};
    unsigned tiers[N_TABLES];
    size_t n_tiers = tables(tiers);
    uint32_t len = lengths[_i / 4], start = starts[_i % 4];
    size_t n_blocks = cr_tl16_blocks(start + len);
    uint32_t packed_lengths[] = {start, len, (uint32_t)(n_blocks * 16 + 16 - start - len), 0};
    uint32_t alone_lengths[] = {len, 0};
    struct shape shape = PLAIN(3, 1, 24, 0.2041241f, 1, alone_lengths);
    shape.f32_scores = start % 2 != 0;
    for (size_t i = 0; i < n_tiers; i++) {
        struct cr_attention_ops ops = ops_of(tiers[i]);
        struct problem a = make(shape, 11, CR_AT_END);
        shape.lengths = start > 0 ? packed_lengths : packed_lengths + 1;
        struct problem p = make(shape, 12, CR_AT_END);
        shape.lengths = alone_lengths;
        size_t seg = start > 0, items = seg * 3, stride = p.args.q_stride, o_stride = p.args.o_stride;
        cr_poison(p.qkv, p.qkv_floats * 4);
        cr_poison(p.d_o, p.o_floats * 4);
        move(p.qkv, stride, start, a.qkv, stride, 0, 5 * 24, len);
        move(p.d_o, o_stride, start, a.d_o, o_stride, 0, 3 * 24, len);
        run(ops.fwd, &a, 0, 3);
        run(ops.bwd, &a, 0, 3);
        run(ops.fwd, &p, items, items + 3);
        run(ops.bwd, &p, items, items + 3);
        expect_moved("o", p.o, o_stride, start, a.o, o_stride, 3 * 24, len);
        expect_moved("lse", p.lse, 48, start, a.lse, 48, 3, len);
        expect_moved("dq", p.dqkv, stride, start, a.dqkv, stride, 3 * 24, len);
        expect_moved("dk", p.dk, o_stride, start, a.dk, o_stride, 3 * 24, len);
        expect_moved("dv", p.dv, o_stride, start, a.dv, o_stride, 3 * 24, len);
        expect_untouched("o", p.o, o_stride, 3 * 24, p.n_blocks, start, len);
        expect_untouched("lse", p.lse, 48, 3, p.n_blocks, start, len);
        expect_untouched("dq", p.dqkv, stride, 3 * 24, p.n_blocks, start, len);
        expect_untouched("dk", p.dk, o_stride, 3 * 24, p.n_blocks, start, len);
        expect_untouched("dv", p.dv, o_stride, 3 * 24, p.n_blocks, start, len);
        cr_guard_free_all();
    }
}
END_TEST

/* The objects of the amx tier, on the processor or with their tile instructions emulated one by one, give the bits of
 * the model, and tiles are released after every call. */
START_TEST(amx_forms_agree)
{
    unsigned all[N_TABLES];
    size_t n = tables(all);
    if (n < 2 || all[n - 1] != MODEL || !is_bf16(CR_TIER_AMX)) {
        return;
    }
    if (all[n - 2] != CR_TIER_AMX && !cr_amx_trap_install()) {
        return;
    }
    struct shape shape = PLAIN(2, 1, 40, 0.15811388f, 1, mixed);
    struct problem p[2];
    for (int i = 0; i < 2; i++) {
        struct cr_attention_ops ops = ops_of(i == 0 ? MODEL : (unsigned)CR_TIER_AMX);
        p[i] = make(shape, 51, CR_AT_END);
        run(ops.fwd, &p[i], 0, p[i].n_items);
        ck_assert(cr_amx_trap_released());
        run(ops.bwd, &p[i], 0, p[i].n_items);
        ck_assert(cr_amx_trap_released());
    }
    cr_expect_bytes("o", p[1].o, p[0].o, p[0].o_floats * 4);
    cr_expect_bytes("lse", p[1].lse, p[0].lse, p[0].lse_floats * 4);
    cr_expect_bytes("dq", p[1].dqkv, p[0].dqkv, p[0].qkv_floats * 4);
    cr_expect_bytes("dk", p[1].dk, p[0].dk, p[0].o_floats * 4);
    cr_expect_bytes("dv", p[1].dv, p[0].dv, p[0].o_floats * 4);
    cr_guard_free_all();
}
END_TEST

/* The sums of each group in head order, exactly; lines of other operands in the same buffer stay. */
START_TEST(sums_of_groups)
{
    unsigned tiers[N_TABLES];
    size_t n_tiers = tables(tiers);
    for (size_t i = 0; i < n_tiers; i++) {
        struct cr_attention_ops ops = ops_of(tiers[i]);
        struct problem p = make(shapes[_i], 21, CR_AT_END);
        struct cr_rng rng = cr_rng_make(22);
        cr_fill_f32(&rng, p.dk, p.o_floats, -1, 1);
        cr_fill_f32(&rng, p.dv, p.o_floats, -1, 1);
        float *want = allocate(p.qkv_floats, sizeof *want);
        cr_poison(want, p.qkv_floats * 4);
        size_t group = p.shape.n_heads / p.shape.n_kv, head = p.shape.head_dim * CR_LANES;
        for (size_t n = 0; n < 2 * p.n_blocks * p.shape.n_kv * head; n++) {
            size_t line = n / 2 % head, kv_head = n / 2 / head % p.shape.n_kv, block = n / 2 / head / p.shape.n_kv;
            const float *in = (n % 2 ? p.dv : p.dk) + block * p.args.dkv_stride + kv_head * group * head + line;
            float sum = in[0];
            for (size_t g = 1; g < group; g++) {
                sum += in[g * head];
            }
            want[block * p.args.kv_stride + (p.shape.n_heads + n % 2 * p.shape.n_kv + kv_head) * head + line] = sum;
        }
        run(ops.sum_kv, &p, 0, p.n_blocks);
        cr_expect_bytes("sums", p.dqkv, want, p.qkv_floats * 4);
        free(want);
        cr_guard_free_all();
    }
}
END_TEST

/* ---- the definition itself ---- */

/* <dO, O> as a function of one number of q, k or v. */
static double loss(struct matrix *m, double scale)
{
    double absolute;
    forward(m, scale);
    return dot(m->o, m->d_o, m->len * m->dim, &absolute);
}

/* Central differences with step h: truncation of order h^2, rounding of order 2^-52 / h; both near 1e-10 at 1e-5. */
START_TEST(finite_differences)
{
    enum { LEN = 9, DIM = 6, ROWS = 3 };
    const double scale = 0.6, h = 1e-5;
    struct matrix m = matrix_alloc(LEN, DIM, ROWS);
    struct cr_rng rng = cr_rng_make(31);
    for (size_t i = 0; i < (ROWS + LEN) * DIM; i++) {
        m.q[i] = cr_rng_uniform(&rng, -1, 1); /* of q and d_o only the first LEN rows count */
        m.k[i] = cr_rng_uniform(&rng, -1, 1);
        m.v[i] = cr_rng_uniform(&rng, -1, 1);
        m.d_o[i] = cr_rng_uniform(&rng, -1, 1);
    }
    forward(&m, scale);
    for (size_t t = 0; t < LEN; t++) {
        double absolute;
        m.delta[t] = dot(m.o + t * DIM, m.d_o + t * DIM, DIM, &absolute);
    }
    backward(&m, scale);
    double *inputs[] = {m.q, m.k, m.v}, *gradients[] = {m.dq, m.dk, m.dv};
    enum { N = (ROWS + LEN) * DIM };
    for (size_t n = 0; n < 3 * N; n++) {
        if (n < N && n >= LEN * DIM) {
            continue;
        }
        double *x = &inputs[n / N][n % N], kept = *x;
        *x = kept + h;
        double up = loss(&m, scale);
        *x = kept - h;
        double down = loss(&m, scale);
        *x = kept;
        double want = (up - down) / (2 * h), got = gradients[n / N][n % N];
        ck_assert_msg(fabs(got - want) < 1e-8, "input %zu: gradient %.12g, difference quotient %.12g", n, got, want);
    }
    matrix_free(&m);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("attention");
    TCase *tcase = tcase_create("attention");
    tcase_set_timeout(tcase, 120);
    tcase_add_loop_test(tcase, against_double, 0, 2 * N_SHAPES);
    tcase_add_loop_test(tcase, sums_of_prefixes, 0, N_SHAPES);
    tcase_add_loop_test(tcase, splits_give_the_same_bits, 0, N_SHAPES);
    tcase_add_loop_test(tcase, packing_does_not_matter, 0, 8 * 4);
    tcase_add_loop_test(tcase, sums_of_groups, 0, N_SHAPES);
    tcase_add_test(tcase, amx_forms_agree);
    tcase_add_test(tcase, finite_differences);
    suite_add_tcase(suite, tcase);
    return cr_run_suite(suite);
}
