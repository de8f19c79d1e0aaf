/* attention: every tier against double, finite differences of the definition. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "credence/kernels/attention.h"
#include "kernels/common/half.h"
#include "tests/kernels/attention_case.h"
#include "tests/support/kernel_test.h"

/* Unit roundoff of f32 and bf16, and the error of the bf16 variant's exp: 2^-18.5 of the polynomial, its roundings. */
static const double UNIT = 0x1p-24, UNIT_BF16 = 0x1p-8, EXP_BF16 = 0x1p-18;

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

static size_t with_prefixes[N_SHAPES]; /* places among the shapes */

/* Gradients of the prefixes: added to what is there, sequences in order and heads in order, exactly. */
START_TEST(sums_of_prefixes)
{
    unsigned tiers[N_TABLES];
    size_t n_tiers = tables(tiers);
    for (size_t i = 0; i < n_tiers; i++) {
        struct cr_attention_ops ops = ops_of(tiers[i]);
        struct problem p = make(shapes[with_prefixes[_i]], 41, CR_AT_END);
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
    int n_with_prefixes = 0;
    for (size_t i = 0; i < N_SHAPES; i++) {
        if (shapes[i].n_prefixes > 0) {
            with_prefixes[n_with_prefixes++] = i;
        }
    }
    tcase_add_loop_test(tcase, sums_of_prefixes, 0, n_with_prefixes);
    tcase_add_test(tcase, finite_differences);
    suite_add_tcase(suite, tcase);
    return cr_run_suite(suite);
}
