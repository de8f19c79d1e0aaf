/* lowrank: the dropout stream, the three products as one another's adjoints under it, and one worked LoRA layer. */
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "credence/kernels/lowrank.h"
#include "tests/kernels/lowrank_case.h"
#include "tests/support/golden.h"
#include "tests/support/kernel_test.h"

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
        ((uint32_t *)p->x)[i] = p->shape.x_type == CR_X_F32 ? 0x3f800000u : 0x3f803f80u; /* 1, or two of them */
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
    enum cr_xtype type = _i % 2 ? CR_X_BF16 : CR_X_F32;
    uint32_t keep16 = keeps[_i / 2];
    unsigned table[N_TABLES];
    size_t n_tables = tables(table);
    float *down = malloc(N * 4), *up = malloc(N * 4), *grad = malloc(N * 4), *want = malloc(N * 4);
    for (size_t i = 0; i < n_tables; i++) {
        struct cr_lowrank_ops ops = ops_of(table[i]);
        struct problem p =
            make((struct shape){DROP_FEATURES, DROP_FEATURES, DROP_BLOCKS, type, keep16, false}, 3, CR_AT_END);
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
        double rate = keep16 / 65536.0;
        double sigma = sqrt(N * rate * (1 - rate));
        ck_assert_msg(fabs((double)kept - N * rate) <= 5 * sigma + 1, "keep16 %u: kept %zu of %d, want %.1f +- %.1f",
                      keep16, kept, N, N * rate, sigma);
        cr_guard_free_all();
    }
    free(down);
    free(up);
    free(grad);
    free(want);
}
END_TEST

static void set_x(struct problem *p, size_t token, size_t k, double value)
{
    char *block = (char *)p->x + token / CR_LANES * p->args.x_stride;
    if (p->shape.x_type == CR_X_F32) {
        ((float *)(void *)block)[cr_tl16_f32(k, token % CR_LANES)] = (float)value;
    } else {
        ((uint16_t *)(void *)block)[cr_tl16_bf16(k, token % CR_LANES)] = cr_f32_to_bf16((float)value);
    }
}

/* Tokens moved to other lanes and blocks keep their results. */
START_TEST(packing_does_not_matter)
{
    unsigned table[N_TABLES];
    size_t n_tables = tables(table);
    struct shape shape = {9, 70, 6, _i ? CR_X_BF16 : CR_X_F32, 50000, false};
    size_t n_tokens = shape.n_blocks * CR_LANES;
    for (size_t i = 0; i < n_tables; i++) {
        struct cr_lowrank_ops ops = ops_of(table[i]);
        struct problem p = make(shape, 5, CR_AT_END), q = make(shape, 5, CR_AT_END);
        cr_guard_protect(q.x, false);
        cr_guard_protect(q.position, false);
        cr_guard_protect(q.example, false);
        for (size_t t = 0; t < n_tokens; t++) {
            size_t to = (t * 37 + 11) % n_tokens; /* 37 and 96 have no common factor */
            q.position[to] = p.position[t];
            q.example[to] = p.example[t];
            for (size_t k = 0; k < shape.n_features; k++) {
                set_x(&q, to, k, x_value(&p, t, k));
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

/* ---- adjoints ---- */

/* sum U down(P, X) = sum P grad(U, X) = sum X up(P, U): one sum over ranks, features and tokens, added in three orders
 * under one mask. Bounds are those of the parts, each weighed by what it is multiplied with. */
START_TEST(adjoint)
{
    unsigned table[N_TABLES];
    size_t n_tables = tables(table);
    for (size_t i = 0; i < n_tables; i++) {
        struct cr_lowrank_ops ops = ops_of(table[i]);
        struct problem p = make((struct shape){9, 77, 5, CR_X_BF16, _i ? 40000 : 65536, _i != 0}, 500, CR_AT_END);
        size_t n_tokens = p.shape.n_blocks * CR_LANES;
        memset(p.g, 0, p.g_floats * 4);
        memset(p.y, 0, p.y_floats * 4);
        p.args.scale = 1;
        run(ops.down, &p, p.shape.n_blocks, 1, false);
        p.args.u = p.u_in;
        run(ops.up, &p, p.shape.n_blocks, 1, false);
        run(ops.grad, &p, p.shape.n_features, CR_LOWRANK_STEP, false);
        double down = 0, up = 0, grad = 0, total = 0;
        for (size_t t = 0; t < n_tokens; t++) {
            const size_t u_at = t / CR_LANES * p.args.u_stride + t % CR_LANES;
            const size_t y_at = t / CR_LANES * p.args.y_stride + t % CR_LANES;
            for (size_t r = 0; r < p.shape.rank; r++) {
                down += (double)p.u_in[u_at + r * CR_LANES] * (double)p.u_out[u_at + r * CR_LANES];
            }
            for (size_t k = 0; k < p.shape.n_features; k++) {
                double x = x_value(&p, t, k);
                up += x * (double)p.y[y_at + k * CR_LANES];
                for (size_t r = 0; r < p.shape.rank; r++) {
                    double u = p.u_in[u_at + r * CR_LANES];
                    total += fabs(u * p_value(&p, r, k) * x * mask_value(&p.args.dropout, t, k));
                }
            }
        }
        for (size_t r = 0; r < p.shape.rank; r++) {
            for (size_t k = 0; k < p.shape.n_features; k++) {
                grad += p_value(&p, r, k) * (double)p.g[r * p.args.g_rs + k * p.args.g_ks];
            }
        }
        bool tiles = on_tiles(table[i]);
        double of_down = roundings(tiles, (double)p.shape.n_features), of_up = roundings(false, (double)p.shape.rank);
        double of_grad = roundings(tiles, (double)n_tokens);
        ck_assert_msg(fabs(down - grad) <= (of_down + of_grad) * UNIT * total, "down %.9g, grad %.9g", down, grad);
        ck_assert_msg(fabs(down - up) <= (of_down + of_up) * UNIT * total, "down %.9g, up %.9g", down, up);
    }
    cr_guard_free_all();
}
END_TEST

/* ---- one LoRA layer from the golden numbers ---- */

static json_t *load_layer(json_t **root)
{
    *root = cr_golden_load("lora_adamw.json");
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
    unsigned table[N_TABLES];
    size_t n_tables = tables(table);
    double value[64], base[64];
    size_t k_size, n_size, r_size;
    size_t rank = matrix(layer, "A", value, &k_size);
    for (size_t i = 0; i < n_tables; i++) {
        struct cr_lowrank_ops ops = ops_of(table[i]);
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
    Suite *suite = suite_create("lowrank dropout");
    TCase *tcase = tcase_create("lowrank dropout");
    tcase_set_timeout(tcase, 120);
    tcase_add_loop_test(tcase, one_mask_by_the_formula, 0, 10);
    tcase_add_loop_test(tcase, packing_does_not_matter, 0, 2);
    tcase_add_loop_test(tcase, adjoint, 0, 2);
    tcase_add_test(tcase, lora_layer);
    suite_add_tcase(suite, tcase);
    return cr_run_suite(suite);
}
