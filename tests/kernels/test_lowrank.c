/* lowrank: every tier against double sums, split invariance, the dropout stream, and one worked LoRA layer. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/common/half.h"
#include "credence/kernels/lowrank.h"
#include "credence/kernels/rng.h"
#include "tests/support/kernel_test.h"

static const double UNIT = 0x1p-24;

struct shape {
    size_t rank, n_features, n_blocks;
    enum cr_xtype x_type;
    uint32_t keep16;
    bool by_feature; /* P and G as (K x r) row-major, like B; else (r x K), like A */
};

static const struct shape shapes[] = {
    {1, 10, 1, CR_X_F32, 65536, false},   {7, 32, 2, CR_X_F32, 65536, true},     {8, 33, 3, CR_X_F32, 65536, false},
    {9, 64, 4, CR_X_F32, 65536, true},    {16, 257, 5, CR_X_F32, 65536, false},  {16, 576, 17, CR_X_F32, 65536, true},
    {64, 96, 7, CR_X_F32, 65536, false},  {256, 40, 3, CR_X_F32, 65536, true},   {8, 576, 9, CR_X_F32, 65536, false},
    {1, 2, 1, CR_X_BF16, 65536, false},   {7, 34, 2, CR_X_BF16, 65536, true},    {8, 300, 10, CR_X_BF16, 65536, false},
    {16, 576, 9, CR_X_BF16, 65536, true}, {256, 66, 4, CR_X_BF16, 65536, false}, {8, 19, 2, CR_X_F32, 58982, false},
    {16, 300, 9, CR_X_F32, 58982, true},  {9, 46, 8, CR_X_BF16, 32768, false},   {64, 576, 3, CR_X_BF16, 62259, true},
    {8, 301, 5, CR_X_BF16, 65536, true},  {3, 65, 11, CR_X_F32, 1, false},       {5, 31, 4, CR_X_F32, 65535, true},
    {11, 35, 71, CR_X_F32, 65536, false},
};
enum { N_SHAPES = sizeof shapes / sizeof *shapes };

/* One problem with its inputs in guarded memory; gaps between token blocks are part of the buffers. */
struct problem {
    struct shape shape;
    struct cr_lowrank_args args;
    float *p, *g, *y, *u_in, *u_out;
    void *x, *scratch;
    uint32_t *position, *example;
    size_t x_bytes, g_floats, y_floats, u_floats, scratch_bytes;
};

enum { GAP = 32 }; /* floats */

static float *guarded_fill(struct cr_rng *rng, size_t n, enum cr_guard_side side)
{
    float *out = cr_guard_alloc(n * sizeof(float), 64, side);
    cr_fill_f32(rng, out, n, -1, 1);
    return out;
}

static struct problem make(struct shape shape, uint64_t stream, enum cr_guard_side side)
{
    struct problem p = {.shape = shape};
    struct cr_rng rng = cr_rng_make(stream);
    size_t rank = shape.rank, n_features = shape.n_features, n_blocks = shape.n_blocks;
    size_t x_stride = cr_tl16_bytes(shape.x_type, n_features) + GAP * 4;
    size_t y_stride = n_features * CR_LANES + GAP, u_stride = rank * CR_LANES + GAP;
    p.x_bytes = n_blocks * x_stride - GAP * 4;
    p.y_floats = n_blocks * y_stride - GAP;
    p.u_floats = n_blocks * u_stride - GAP;
    p.g_floats = rank * n_features;
    p.x = cr_guard_alloc(p.x_bytes, 64, side);
    if (shape.x_type == CR_X_F32) {
        cr_fill_f32(&rng, p.x, p.x_bytes / 4, -1, 1);
    } else {
        cr_fill_bf16(&rng, p.x, p.x_bytes / 2, -1, 1);
    }
    p.p = cr_guard_alloc(p.g_floats * 4, 4, side);
    p.g = cr_guard_alloc(p.g_floats * 4, 4, side);
    cr_fill_f32(&rng, p.p, p.g_floats, -1, 1);
    cr_fill_f32(&rng, p.g, p.g_floats, -1, 1);
    p.y = guarded_fill(&rng, p.y_floats, side);
    p.u_in = guarded_fill(&rng, p.u_floats, side);
    p.u_out = cr_guard_alloc(p.u_floats * 4, 64, side);
    p.position = cr_guard_alloc(n_blocks * 64, 4, side);
    p.example = cr_guard_alloc(n_blocks * 64, 4, side);
    for (size_t t = 0; t < n_blocks * CR_LANES; t++) {
        p.position[t] = cr_rng_below(&rng, 4096);
        p.example[t] = cr_rng_below(&rng, 100000);
    }
    p.scratch_bytes = cr_lowrank_scratch_bytes(n_features, rank);
    p.scratch = cr_guard_alloc(p.scratch_bytes, 64, side);
    void *inputs[] = {p.x, p.p, p.u_in, p.position, p.example};
    for (size_t i = 0; i < sizeof inputs / sizeof *inputs; i++) {
        cr_guard_protect(inputs[i], true);
    }
    size_t rs = shape.by_feature ? 1 : n_features, ks = shape.by_feature ? rank : 1;
    p.args = (struct cr_lowrank_args){
        .p = p.p,
        .p_rs = rs,
        .p_ks = ks,
        .g = p.g,
        .g_rs = rs,
        .g_ks = ks,
        .x = p.x,
        .x_type = shape.x_type,
        .x_stride = x_stride,
        .y = p.y,
        .y_stride = y_stride,
        .u = p.u_out,
        .u_stride = u_stride,
        .rank = rank,
        .n_features = n_features,
        .n_blocks = n_blocks,
        .scale = 0.75f,
        .dropout = {shape.keep16, {12345, 77}, 9, p.position, p.example},
    };
    return p;
}

/* ---- the definition in double ---- */

static double x_value(const struct problem *p, size_t token, size_t k)
{
    const char *block = (const char *)p->x + token / CR_LANES * p->args.x_stride;
    if (p->shape.x_type == CR_X_F32) {
        return ((const float *)(const void *)block)[cr_tl16_f32(k, token % CR_LANES)];
    }
    return cr_bf16_to_f32(((const uint16_t *)(const void *)block)[cr_tl16_bf16(k, token % CR_LANES)]);
}

/* The mask as the contract words it. */
static double mask_value(const struct cr_dropout *d, size_t token, size_t k)
{
    if (d->keep16 == 65536) {
        return 1;
    }
    uint32_t counter[4] = {(uint32_t)(k / 8), d->position[token], d->example[token], d->step};
    uint32_t word[4];
    cr_philox4x32(counter, d->key, word);
    uint32_t w = word[k % 8 / 2];
    uint32_t draw = k % 2 == 0 ? w & 0xffff : w >> 16;
    return draw < d->keep16 ? 65536.0f / (float)d->keep16 : 0;
}

static double p_value(const struct problem *p, size_t i, size_t k)
{
    return p->args.p[i * p->args.p_rs + k * p->args.p_ks];
}

struct expected {
    double *value, *bound;
};

static struct expected expected_alloc(size_t n)
{
    struct expected e = {calloc(n, sizeof(double)), calloc(n, sizeof(double))};
    ck_assert(e.value != NULL && e.bound != NULL);
    return e;
}

/* Whether element `at`, the n-th, is outside the sample of a light run: then any number will do there. */
static bool skipped(const struct expected *e, size_t at, size_t n, size_t every)
{
    if (n % every != 0) {
        e->value[at] = 0;
        e->bound[at] = INFINITY;
    }
    return n % every != 0;
}

static void expected_free(struct expected e)
{
    free(e.value);
    free(e.bound);
}

/* Bounds: a term is rounded at most twice (mask, product) and passes through at most as many additions as the sum has
 * terms; the scale, or the addition to what was there, rounds once more. */
static void check_down(const struct problem *p)
{
    size_t every = cr_test_every(5);
    struct expected e = expected_alloc(p->u_floats);
    for (size_t n = 0; n < p->u_floats; n++) {
        e.value[n] = NAN; /* gaps keep their poison */
    }
    for (size_t t = 0; t < p->shape.n_blocks * CR_LANES; t++) {
        for (size_t i = 0; i < p->shape.rank; i++) {
            size_t at = t / CR_LANES * p->args.u_stride + cr_tl16_f32(i, t % CR_LANES);
            double sum = 0, terms = 0;
            if (skipped(&e, at, t + i, every)) {
                continue;
            }
            for (size_t k = 0; k < p->shape.n_features; k++) {
                double term = p_value(p, i, k) * x_value(p, t, k) * mask_value(&p->args.dropout, t, k);
                sum += term;
                terms += fabs(term);
            }
            e.value[at] = sum * p->args.scale;
            e.bound[at] = ((double)p->shape.n_features + 2) * UNIT * terms * p->args.scale;
        }
    }
    cr_expect_within("down", p->u_out, e.value, e.bound, p->u_floats);
    expected_free(e);
}

static void check_up(const struct problem *p, const float *before)
{
    size_t every = cr_test_every(5);
    struct expected e = expected_alloc(p->y_floats);
    for (size_t n = 0; n < p->y_floats; n++) {
        e.value[n] = before[n];
    }
    for (size_t t = 0; t < p->shape.n_blocks * CR_LANES; t++) {
        const float *u = p->args.u + t / CR_LANES * p->args.u_stride + t % CR_LANES;
        for (size_t k = 0; k < p->shape.n_features; k++) {
            size_t at = t / CR_LANES * p->args.y_stride + cr_tl16_f32(k, t % CR_LANES);
            if (skipped(&e, at, t + k, every)) {
                continue;
            }
            double sum = 0, terms = fabs(e.value[at]), mask = mask_value(&p->args.dropout, t, k);
            for (size_t i = 0; i < p->shape.rank; i++) {
                sum += mask * p_value(p, i, k) * u[i * CR_LANES];
                terms += fabs(mask * p_value(p, i, k) * u[i * CR_LANES]);
            }
            e.value[at] += sum;
            e.bound[at] = ((double)p->shape.rank + 2) * UNIT * terms;
        }
    }
    cr_expect_within("up", p->y, e.value, e.bound, p->y_floats);
    expected_free(e);
}

static void check_grad(const struct problem *p, const float *before)
{
    size_t every = cr_test_every(5);
    struct expected e = expected_alloc(p->g_floats);
    for (size_t i = 0; i < p->shape.rank; i++) {
        for (size_t k = 0; k < p->shape.n_features; k++) {
            size_t at = i * p->args.g_rs + k * p->args.g_ks;
            if (skipped(&e, at, i + k, every)) {
                continue;
            }
            double sum = before[at], terms = fabs(sum);
            for (size_t t = 0; t < p->shape.n_blocks * CR_LANES; t++) {
                double u = p->args.u[t / CR_LANES * p->args.u_stride + cr_tl16_f32(i, t % CR_LANES)];
                double term = u * x_value(p, t, k) * mask_value(&p->args.dropout, t, k);
                sum += term;
                terms += fabs(term);
            }
            e.value[at] = sum;
            e.bound[at] = ((double)p->shape.n_blocks * CR_LANES + 2) * UNIT * terms;
        }
    }
    cr_expect_within("grad", p->g, e.value, e.bound, p->g_floats);
    expected_free(e);
}

static float *copy_of(const float *in, size_t n)
{
    float *out = malloc(n * sizeof(float));
    ck_assert(out != NULL);
    memcpy(out, in, n * sizeof(float));
    return out;
}

/* [0, n) in one call, or in uneven pieces of multiples of `step`, last piece first. */
static void run(cr_lowrank_fn *fn, struct problem *p, size_t n, size_t step, bool pieces)
{
    size_t end = n;
    for (size_t count = 1; pieces && end > step; count = count % 3 + 1) {
        size_t begin = (end - 1) / step * step;
        begin -= begin >= count * step ? (count - 1) * step : 0;
        cr_poison(p->scratch, p->scratch_bytes);
        fn(&p->args, begin, end, p->scratch);
        end = begin;
    }
    cr_poison(p->scratch, p->scratch_bytes);
    fn(&p->args, 0, end, p->scratch);
}

static struct cr_lowrank_ops ops_of(enum cr_tier tier)
{
    struct cr_lowrank_ops ops;
    cr_lowrank_ops_init(&ops, tier);
    return ops;
}

START_TEST(against_double)
{
    enum cr_tier tiers[CR_TEST_TIERS];
    size_t n_tiers = cr_test_tiers(tiers);
    for (size_t i = 0; i < n_tiers; i++) {
        struct cr_lowrank_ops ops = ops_of(tiers[i]);
        for (int side = 0; side < 2; side++) {
            struct problem p = make(shapes[_i], (uint64_t)_i + 1, side ? CR_AT_START : CR_AT_END);
            run(ops.down, &p, p.shape.n_blocks, 1, false);
            check_down(&p);
            p.args.u = p.u_in;
            float *y = copy_of(p.y, p.y_floats), *g = copy_of(p.g, p.g_floats);
            run(ops.up, &p, p.shape.n_blocks, 1, false);
            check_up(&p, y);
            run(ops.grad, &p, p.shape.n_features, CR_LOWRANK_STEP, false);
            check_grad(&p, g);
            free(y);
            free(g);
            cr_guard_free_all();
        }
    }
}
END_TEST

START_TEST(splits_give_the_same_bits)
{
    enum cr_tier tiers[CR_TEST_TIERS];
    size_t n_tiers = cr_test_tiers(tiers);
    for (size_t i = 0; i < n_tiers; i++) {
        struct cr_lowrank_ops ops = ops_of(tiers[i]);
        float *u[2], *y[2], *g[2];
        struct problem p;
        for (int pieces = 0; pieces < 2; pieces++) {
            p = make(shapes[_i], 100, CR_AT_END);
            run(ops.down, &p, p.shape.n_blocks, 1, pieces);
            p.args.u = p.u_in;
            run(ops.up, &p, p.shape.n_blocks, 1, pieces);
            run(ops.grad, &p, p.shape.n_features, CR_LOWRANK_STEP, pieces);
            u[pieces] = copy_of(p.u_out, p.u_floats);
            y[pieces] = copy_of(p.y, p.y_floats);
            g[pieces] = copy_of(p.g, p.g_floats);
            cr_guard_free_all();
        }
        cr_expect_bytes("down", u[1], u[0], p.u_floats * 4);
        cr_expect_bytes("up", y[1], y[0], p.y_floats * 4);
        cr_expect_bytes("grad", g[1], g[0], p.g_floats * 4);
        for (int pieces = 0; pieces < 2; pieces++) {
            free(u[pieces]);
            free(y[pieces]);
            free(g[pieces]);
        }
    }
}
END_TEST

/* bf16 values given as f32 take the other way into the registers and must not change a bit. */
START_TEST(operand_types_agree)
{
    enum cr_tier tiers[CR_TEST_TIERS];
    size_t n_tiers = cr_test_tiers(tiers);
    for (size_t i = 0; i < n_tiers; i++) {
        struct cr_lowrank_ops ops = ops_of(tiers[i]);
        struct problem p = make((struct shape){8, 300, 19, CR_X_BF16, 65536, false}, 7, CR_AT_END);
        p.args.dropout.position = p.args.dropout.example = NULL; /* not read when off */
        size_t stride = 300 * CR_LANES;
        float *x = cr_guard_alloc(19 * stride * 4, 64, CR_AT_END);
        for (size_t t = 0; t < 19 * CR_LANES; t++) {
            for (size_t k = 0; k < 300; k++) {
                x[t / CR_LANES * stride + cr_tl16_f32(k, t % CR_LANES)] = (float)x_value(&p, t, k);
            }
        }
        run(ops.down, &p, p.shape.n_blocks, 1, false);
        run(ops.grad, &p, p.shape.n_features, CR_LOWRANK_STEP, false);
        float *u = copy_of(p.u_out, p.u_floats), *g = copy_of(p.g, p.g_floats);
        struct problem q = make(p.shape, 7, CR_AT_END); /* the same start value of G */
        q.args.x = x;
        q.args.x_type = CR_X_F32;
        q.args.x_stride = stride * 4;
        run(ops.down, &q, q.shape.n_blocks, 1, false);
        run(ops.grad, &q, q.shape.n_features, CR_LOWRANK_STEP, false);
        cr_expect_bytes("down", q.u_out, u, p.u_floats * 4);
        cr_expect_bytes("grad", q.g, g, p.g_floats * 4);
        free(u);
        free(g);
        cr_guard_free_all();
    }
}
END_TEST

/* ---- dropout ---- */

enum { DROP_FEATURES = 200, DROP_BLOCKS = 10 };

/* Masks read out of the three operations by unit matrices: 0 * x and sums with zeros are exact. */
static void read_masks(const struct cr_lowrank_ops *ops, struct problem *p, float *down, float *up, float *grad)
{
    size_t n = DROP_FEATURES, n_tokens = DROP_BLOCKS * CR_LANES;
    cr_guard_protect(p->p, false);
    cr_guard_protect(p->x, false);
    cr_guard_protect(p->u_in, false);
    memset(p->p, 0, p->g_floats * 4);
    for (size_t k = 0; k < n; k++) {
        p->p[k * n + k] = 1;
    }
    for (size_t i = 0; i < p->x_bytes / 4; i++) {
        ((float *)p->x)[i] = 1;
    }
    p->args.scale = 1;
    p->args.u = p->u_out;
    run(ops->down, p, p->shape.n_blocks, 1, false);
    for (size_t t = 0; t < n_tokens; t++) {
        for (size_t k = 0; k < n; k++) {
            down[t * n + k] = p->u_out[t / CR_LANES * p->args.u_stride + cr_tl16_f32(k, t % CR_LANES)];
        }
    }
    for (size_t i = 0; i < p->u_floats; i++) {
        p->u_in[i] = 1;
    }
    memset(p->y, 0, p->y_floats * 4);
    p->args.u = p->u_in;
    run(ops->up, p, p->shape.n_blocks, 1, false);
    for (size_t t = 0; t < n_tokens; t++) {
        for (size_t k = 0; k < n; k++) {
            up[t * n + k] = p->y[t / CR_LANES * p->args.y_stride + cr_tl16_f32(k, t % CR_LANES)];
        }
    }
    memset(p->u_in, 0, p->u_floats * 4);
    for (size_t t = 0; t < n_tokens; t++) { /* rank t sees token t */
        p->u_in[t / CR_LANES * p->args.u_stride + cr_tl16_f32(t, t % CR_LANES)] = 1;
    }
    memset(p->g, 0, p->g_floats * 4);
    run(ops->grad, p, p->shape.n_features, CR_LOWRANK_STEP, false);
    for (size_t t = 0; t < n_tokens; t++) {
        memcpy(grad + t * n, p->g + t * n, n * 4);
    }
}

START_TEST(one_mask_by_the_formula)
{
    static const uint32_t keeps[] = {1, 6554, 32768, 58982, 65535};
    enum { N = DROP_FEATURES * DROP_BLOCKS * CR_LANES };
    enum cr_tier tiers[CR_TEST_TIERS];
    size_t n_tiers = cr_test_tiers(tiers);
    float *down = malloc(N * 4), *up = malloc(N * 4), *grad = malloc(N * 4), *want = malloc(N * 4);
    for (size_t i = 0; i < n_tiers; i++) {
        struct cr_lowrank_ops ops = ops_of(tiers[i]);
        struct problem p =
            make((struct shape){DROP_FEATURES, DROP_FEATURES, DROP_BLOCKS, CR_X_F32, keeps[_i], false}, 3, CR_AT_END);
        size_t kept = 0;
        for (size_t t = 0; t < DROP_BLOCKS * CR_LANES; t++) {
            for (size_t k = 0; k < DROP_FEATURES; k++) {
                want[t * DROP_FEATURES + k] = (float)mask_value(&p.args.dropout, t, k);
            }
        }
        read_masks(&ops, &p, down, up, grad);
        cr_expect_same("mask of down", down, want, N);
        cr_expect_same("mask of up", up, want, N);
        cr_expect_same("mask of grad", grad, want, N);
        for (size_t n = 0; n < N; n++) {
            kept += down[n] != 0;
        }
        double rate = keeps[_i] / 65536.0;
        double sigma = sqrt(N * rate * (1 - rate));
        ck_assert_msg(fabs((double)kept - N * rate) <= 5 * sigma + 1, "keep16 %u: kept %zu of %d, want %.1f +- %.1f",
                      keeps[_i], kept, N, N * rate, sigma);
        cr_guard_free_all();
    }
    free(down);
    free(up);
    free(grad);
    free(want);
}
END_TEST

/* Tokens moved to other lanes and blocks keep their results. */
START_TEST(packing_does_not_matter)
{
    enum cr_tier tiers[CR_TEST_TIERS];
    size_t n_tiers = cr_test_tiers(tiers);
    struct shape shape = {9, 70, 6, CR_X_F32, 50000, false};
    size_t n_tokens = shape.n_blocks * CR_LANES;
    for (size_t i = 0; i < n_tiers; i++) {
        struct cr_lowrank_ops ops = ops_of(tiers[i]);
        struct problem p = make(shape, 5, CR_AT_END), q = make(shape, 5, CR_AT_END);
        cr_guard_protect(q.x, false);
        cr_guard_protect(q.position, false);
        cr_guard_protect(q.example, false);
        for (size_t t = 0; t < n_tokens; t++) {
            size_t to = (t * 37 + 11) % n_tokens; /* 37 and 96 have no common factor */
            q.position[to] = p.position[t];
            q.example[to] = p.example[t];
            for (size_t k = 0; k < shape.n_features; k++) {
                ((float *)q.x)[to / CR_LANES * (q.args.x_stride / 4) + cr_tl16_f32(k, to % CR_LANES)] =
                    (float)x_value(&p, t, k);
            }
        }
        run(ops.down, &p, shape.n_blocks, 1, false);
        run(ops.down, &q, shape.n_blocks, 1, false);
        for (size_t t = 0; t < n_tokens; t++) {
            size_t to = (t * 37 + 11) % n_tokens;
            for (size_t r = 0; r < shape.rank; r++) {
                float a = p.u_out[t / CR_LANES * p.args.u_stride + cr_tl16_f32(r, t % CR_LANES)];
                float b = q.u_out[to / CR_LANES * q.args.u_stride + cr_tl16_f32(r, to % CR_LANES)];
                cr_expect_bytes("moved token", &b, &a, sizeof a);
            }
        }
        cr_guard_free_all();
    }
}
END_TEST

/* ---- one LoRA layer from the golden numbers ---- */

static json_t *load_layer(json_t **root)
{
    json_error_t err;
    *root = json_load_file(CR_TEST_DATA "/lora_adamw.json", 0, &err);
    ck_assert_msg(*root != NULL, "%s", err.text);
    return json_object_get(*root, "lora_linear");
}

/* Row-major matrix of the file; returns the row count. */
static size_t matrix(const json_t *layer, const char *name, double out[64], size_t *n_columns)
{
    const json_t *rows = json_object_get(layer, name);
    ck_assert_msg(json_is_array(rows), "%s is missing", name);
    *n_columns = json_array_size(json_array_get(rows, 0));
    for (size_t r = 0; r < json_array_size(rows); r++) {
        for (size_t c = 0; c < *n_columns; c++) {
            out[r * *n_columns + c] = json_number_value(json_array_get(json_array_get(rows, r), c));
        }
    }
    return json_array_size(rows);
}

/* A matrix of tokens x features as one token block, pad lanes zero. */
static float *tokens(const json_t *layer, const char *name)
{
    double value[64];
    size_t n_columns, n_rows = matrix(layer, name, value, &n_columns);
    float *out = cr_guard_alloc(n_columns * 64, 64, CR_AT_END);
    memset(out, 0, n_columns * 64);
    for (size_t i = 0; i < n_rows * n_columns; i++) {
        out[cr_tl16_f32(i % n_columns, i / n_columns)] = (float)value[i];
    }
    return out;
}

/* The file's number against ours, to 2e-5 of the largest number of the matrix: what its origin allows f32. */
static void expect_matrix(const json_t *layer, const char *name, const float *got, size_t rs, size_t cs,
                          const double *plus)
{
    double value[64], largest = 0;
    size_t n_columns, n_rows = matrix(layer, name, value, &n_columns);
    for (size_t i = 0; i < n_rows * n_columns; i++) {
        largest = fmax(largest, fabs(value[i]));
    }
    for (size_t i = 0; i < n_rows * n_columns; i++) {
        double ours = got[i / n_columns * rs + i % n_columns * cs] + (plus != NULL ? plus[i] : 0);
        ck_assert_msg(fabs(ours - value[i]) <= 2e-5 * largest, "%s[%zu]: %.9g, expected %.9g", name, i, ours, value[i]);
    }
}

/* out[t][n] = sum_k x[t][k] w[n][k] (or w[k][n] when transposed): the frozen layer's part. */
static void frozen(const json_t *layer, const char *name, bool transposed, double out[64])
{
    double x[64], w[64];
    size_t n_k, n_columns, n_tokens = matrix(layer, name, x, &n_k), n_rows = matrix(layer, "W0", w, &n_columns);
    size_t n_out = transposed ? n_columns : n_rows;
    for (size_t t = 0; t < n_tokens; t++) {
        for (size_t n = 0; n < n_out; n++) {
            out[t * n_out + n] = 0;
            for (size_t k = 0; k < n_k; k++) {
                out[t * n_out + n] += x[t * n_k + k] * (transposed ? w[k * n_columns + n] : w[n * n_columns + k]);
            }
        }
    }
}

START_TEST(lora_layer)
{
    json_t *root;
    const json_t *layer = load_layer(&root);
    enum cr_tier tiers[CR_TEST_TIERS];
    size_t n_tiers = cr_test_tiers(tiers);
    double value[64], base[64];
    size_t k_size, n_size, r_size;
    size_t rank = matrix(layer, "A", value, &k_size);
    for (size_t i = 0; i < n_tiers; i++) {
        struct cr_lowrank_ops ops = ops_of(tiers[i]);
        float a[64], b[64], da[64] = {0}, db[64] = {0};
        matrix(layer, "A", value, &k_size);
        for (size_t n = 0; n < rank * k_size; n++) {
            a[n] = (float)value[n];
        }
        n_size = matrix(layer, "B", value, &r_size);
        for (size_t n = 0; n < n_size * r_size; n++) {
            b[n] = (float)value[n];
        }
        float *x = tokens(layer, "X"), *dy = tokens(layer, "dY");
        float *u = cr_guard_alloc(rank * 64, 64, CR_AT_END), *v = cr_guard_alloc(rank * 64, 64, CR_AT_END);
        float *y = cr_guard_alloc(n_size * 64, 64, CR_AT_END), *dx = cr_guard_alloc(k_size * 64, 64, CR_AT_END);
        void *scratch = cr_guard_alloc(cr_lowrank_scratch_bytes(16, rank), 64, CR_AT_END);
        memset(y, 0, n_size * 64);
        memset(dx, 0, k_size * 64);
        struct cr_lowrank_args with_a = {
            .p = a,
            .p_rs = k_size,
            .p_ks = 1,
            .g = da,
            .g_rs = k_size,
            .g_ks = 1,
            .x = x,
            .x_stride = k_size * 64,
            .y = dx,
            .y_stride = k_size * 16,
            .u = u,
            .u_stride = rank * 16,
            .rank = rank,
            .n_features = k_size,
            .n_blocks = 1,
            .scale = (float)json_number_value(json_object_get(layer, "scaling")),
            .dropout = {.keep16 = 65536},
        };
        struct cr_lowrank_args with_b = {
            .p = b,
            .p_rs = 1,
            .p_ks = rank,
            .g = db,
            .g_rs = 1,
            .g_ks = rank,
            .x = dy,
            .x_stride = n_size * 64,
            .y = y,
            .y_stride = n_size * 16,
            .u = u,
            .u_stride = rank * 16,
            .rank = rank,
            .n_features = n_size,
            .n_blocks = 1,
            .scale = with_a.scale,
            .dropout = {.keep16 = 65536},
        };
        ops.down(&with_a, 0, 1, scratch);      /* U = s A X */
        ops.up(&with_b, 0, 1, scratch);        /* Y += B U */
        ops.grad(&with_b, 0, n_size, scratch); /* dB = U dY^T */
        with_b.u = with_a.u = v;
        ops.down(&with_b, 0, 1, scratch);      /* V = s B^T dY */
        ops.up(&with_a, 0, 1, scratch);        /* dX += A^T V */
        ops.grad(&with_a, 0, k_size, scratch); /* dA = V X^T */
        frozen(layer, "X", false, base);
        expect_matrix(layer, "Y", y, 1, CR_LANES, base);
        frozen(layer, "dY", true, base);
        expect_matrix(layer, "dX", dx, 1, CR_LANES, base);
        expect_matrix(layer, "dA", da, k_size, 1, NULL);
        expect_matrix(layer, "dB", db, rank, 1, NULL);
        cr_guard_free_all();
    }
    json_decref(root);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("lowrank");
    TCase *tcase = tcase_create("lowrank");
    tcase_set_timeout(tcase, 120);
    tcase_add_loop_test(tcase, against_double, 0, N_SHAPES);
    tcase_add_loop_test(tcase, splits_give_the_same_bits, 0, N_SHAPES);
    tcase_add_test(tcase, operand_types_agree);
    tcase_add_loop_test(tcase, one_mask_by_the_formula, 0, 5);
    tcase_add_test(tcase, packing_does_not_matter);
    tcase_add_test(tcase, lora_layer);
    suite_add_tcase(suite, tcase);
    return cr_run_suite(suite);
}
