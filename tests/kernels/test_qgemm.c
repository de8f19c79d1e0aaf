/* qgemm: all tiers and types against a double product, adjointness, and bitwise invariance of splits and positions. */
#include "tests/kernels/qgemm_case.h"
#include "tests/support/amx_trap.h"

/* Every tier and type, both directions, with tails in N and in the token blocks. _i = type index. */
START_TEST(all_types)
{
    int type = served[_i];
    unsigned tiers[CR_QGEMM_TABLES];
    size_t n_tiers = cr_qgemm_tables(tiers);
    size_t k = cr_qtype_info(type)->block_values == 256 ? 512 : 96;
    for (size_t t = 0; t < n_tiers; t++) {
        struct cr_rng rng = cr_rng_make(200 + (uint64_t)_i);
        for (int dx = 0; dx < 2; dx++) {
            struct problem p = make(tiers[t], type, dx, 72, k, 4, 5, LOWRANK | (dx ? 0 : BIAS), &rng);
            check(&p, &rng);
            drop(&p);
            p = make(tiers[t], type, dx, 40, k, 1, 0, 0, &rng);
            check(&p, &rng);
            drop(&p);
        }
    }
}
END_TEST

/* Shapes: one output, edges of strips, blocks and slabs; token blocks 1 to 8; every flag. */
START_TEST(tails)
{
    static const struct {
        size_t n, k, n_blocks, rank;
    } shapes[] = {
        {1, 32, 1, 0},    {7, 32, 2, 1},    {8, 64, 3, 2},    {9, 64, 4, 8},    {31, 96, 5, 16},
        {32, 32, 6, 3},   {33, 576, 7, 16}, {40, 160, 8, 64}, {192, 576, 2, 8}, {65, 1536, 1, 4},
        {577, 64, 2, 16}, {33, 4864, 2, 8}, {2, 2080, 3, 4},  {4099, 32, 1, 2}, {9, 8192, 2, 1},
    };
    unsigned tiers[CR_QGEMM_TABLES];
    size_t n_tiers = cr_qgemm_tables(tiers);
    for (size_t t = 0; t < n_tiers; t++) {
        struct cr_rng rng = cr_rng_make(300 + (uint64_t)_i);
        for (int dx = 0; dx < 2; dx++) {
            for (unsigned flags = 0; flags < 16; flags++) {
                size_t rank = flags & LOWRANK ? shapes[_i].rank : 0;
                bool large = shapes[_i].n * shapes[_i].k > 10000 || tiers[t] == CR_AMX_MODEL_TRAPPED;
                large = large && flags != 6 && flags != 15;
                if ((dx && (flags & BIAS)) || ((flags & LOWRANK) && rank == 0) || large) {
                    continue;
                }
                int type = flags & 1 ? CR_Q_Q8_0 : flags & 2 ? CR_Q_Q4_1 : CR_Q_Q4_0;
                struct problem p =
                    make(tiers[t], type, dx, shapes[_i].n, shapes[_i].k, shapes[_i].n_blocks, rank, flags, &rng);
                check(&p, &rng);
                drop(&p);
            }
        }
    }
}
END_TEST

/* A whole run against the same range in pieces, the same tokens in other blocks and other lanes, fewer blocks. */
START_TEST(invariance)
{
    static const int types[] = {CR_Q_Q4_0, CR_Q_Q4_1, CR_Q_Q8_0, CR_Q_Q5_1, CR_Q_F32};
    unsigned tiers[CR_QGEMM_TABLES];
    size_t n_tiers = cr_qgemm_tables(tiers);
    if (cr_test_every(2) > 1 && _i >= 2) {
        return; /* a type of either length has been */
    }
    for (size_t t = 0; t < n_tiers; t++) {
        struct cr_rng rng = cr_rng_make(400 + (uint64_t)_i);
        for (int dx = 0; dx < 2; dx++) {
            size_t long_reduce = _i % 2 ? 2336 / cr_test_every(4) / 32 * 32 : 320;
            struct problem p = make(tiers[t], types[_i], dx, dx ? long_reduce : 136, dx ? 160 : long_reduce, 8, 4,
                                    LOWRANK | (dx ? 0 : BIAS), &rng);
            struct cr_qgemm_args *a = &p.args;
            size_t n_y = a->y_stride * a->n_blocks - 16;
            run_range(&p, a, 0, p.n_out);
            float *whole = malloc(n_y * 4);
            memcpy(whole, a->y, n_y * 4);
            cr_poison(a->y, n_y * 4);
            for (size_t begin = 0; begin < p.n_out;) {
                size_t end = begin + p.ops.step * (1 + cr_rng_below(&rng, 3));
                end = end > p.n_out ? p.n_out : end;
                run_range(&p, a, begin, end);
                begin = end;
            }
            cr_expect_bytes("split of the range", a->y, whole, n_y * 4);
            float *y = cr_guard_alloc(8 * p.n_out * 64, 64, CR_AT_END);
            static const size_t parts[][2] = {{0, 1}, {0, 2}, {0, 3}, {0, 4}, {1, 5},
                                              {1, 6}, {1, 7}, {4, 1}, {5, 2}, {7, 1}};
            for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i += tiers[t] == CR_AMX_MODEL_TRAPPED ? 4 : 1) {
                size_t first = parts[i][0], n = parts[i][1];
                struct cr_qgemm_args part = *a;
                part.x = (const char *)a->x + first * a->x_stride;
                part.u = a->u + first * a->u_stride;
                part.n_blocks = n;
                part.y_stride = p.n_out * 16;
                part.y = y + (8 - n) * p.n_out * 16;
                cr_poison(y, 8 * p.n_out * 64);
                run_range(&p, &part, 0, p.n_out);
                for (size_t b = 0; b < n; b++) {
                    cr_expect_bytes("part of the tokens", part.y + b * part.y_stride, whole + (first + b) * a->y_stride,
                                    p.n_out * 64);
                }
            }
            free(whole);
            drop(&p);
        }
    }
}
END_TEST

/* So many tokens that the order of the work changes: still the same bits as for few. */
START_TEST(many_tokens)
{
    unsigned tiers[CR_QGEMM_TABLES];
    size_t n_tiers = cr_qgemm_tables(tiers);
    for (size_t t = 0; t < n_tiers; t++) {
        struct cr_rng rng = cr_rng_make(450);
        for (int dx = 0; dx < 2; dx++) {
            enum { N = 160, K = 64, BLOCKS = 99 };
            struct problem p = make(tiers[t], CR_Q_Q4_0, dx, dx ? K : N, dx ? N : K, BLOCKS, 3, LOWRANK, &rng);
            struct cr_qgemm_args *a = &p.args, part = *a;
            run_range(&p, a, 0, N);
            part.y = cr_guard_alloc(4 * a->y_stride * 3, 64, CR_AT_START);
            for (size_t first = 0; first + 3 <= BLOCKS; first += 32) {
                part.x = (const char *)a->x + first * a->x_stride;
                part.u = a->u + first * a->u_stride;
                part.n_blocks = 3;
                run_range(&p, &part, 0, N);
                for (size_t b = 0; b < 3; b++) {
                    cr_expect_bytes(p.name, part.y + b * a->y_stride, a->y + (first + b) * a->y_stride, 64 * N);
                }
            }
            drop(&p);
        }
    }
}
END_TEST

/* All forms of the amx tier are one function, bit for bit, whatever the processor. */
START_TEST(amx_forms_agree)
{
    unsigned tiers[CR_QGEMM_TABLES];
    size_t n_tiers = cr_qgemm_tables(tiers), n_compared = 0;
    for (int dx = 0; dx < 2; dx++) {
        float *first = NULL;
        for (size_t t = 0; t < n_tiers; t++) {
            if (tiers[t] < CR_AMX_MODEL_PLAIN && tiers[t] != CR_TIER_AMX) {
                continue;
            }
            struct cr_rng rng = cr_rng_make(850);
            struct problem p = make(tiers[t], served[_i], dx, 104, 768, 5, 5, LOWRANK, &rng);
            size_t n_y = p.args.y_stride * 5 - 16;
            uint64_t before = cr_amx_trap_count();
            run_range(&p, &p.args, 0, p.n_out);
            ck_assert_int_eq(cr_amx_trap_count() > before, tiers[t] == CR_AMX_MODEL_TRAPPED);
            ck_assert(cr_amx_trap_released());
            if (first == NULL) {
                first = malloc(n_y * 4);
                memcpy(first, p.args.y, n_y * 4);
            } else {
                cr_expect_bytes(p.name, p.args.y, first, n_y * 4);
                n_compared++;
            }
            drop(&p);
        }
        free(first);
    }
    if (_i == 0 && n_compared == 0) {
        printf("amx_forms_agree: one form at most, nothing to compare\n");
    }
}
END_TEST

/* A token gives the same bits in every lane and block. */
START_TEST(position)
{
    unsigned tiers[CR_QGEMM_TABLES];
    size_t n_tiers = cr_qgemm_tables(tiers);
    for (size_t t = 0; t < n_tiers; t++) {
        struct cr_rng rng = cr_rng_make(500);
        struct problem p = make(tiers[t], CR_Q_Q4_1, false, 40, 640, 7, 0, 0, &rng);
        bool bf16 = p.ops.x_type == CR_X_BF16;
        char *x = (char *)(uintptr_t)p.args.x;
        cr_guard_protect(x, false);
        size_t lines = bf16 ? 320 : 640;
        for (size_t b = 0; b < 7; b++) { /* token 0 of block 0 everywhere */
            for (size_t line = 0; line < lines; line++) {
                for (size_t lane = 0; lane < 16; lane++) {
                    memcpy(x + b * p.args.x_stride + line * 64 + lane * 4, x + line * 64, 4);
                }
            }
        }
        run_range(&p, &p.args, 0, 40);
        for (size_t b = 0; b < 7; b++) {
            for (size_t o = 0; o < 40; o++) {
                for (size_t lane = 0; lane < 16; lane++) {
                    cr_expect_bytes("lane", p.args.y + b * p.args.y_stride + o * 16 + lane, p.args.y + o * 16, 4);
                }
            }
        }
        drop(&p);
    }
}
END_TEST

/* <Z, W X> = <W^T Z, X> with the same blocks: forward and dX use one and the same weight. */
START_TEST(adjoint)
{
    int type = served[_i];
    unsigned tiers[CR_QGEMM_TABLES];
    size_t n_tiers = cr_qgemm_tables(tiers);
    for (size_t t = 0; t < n_tiers; t++) {
        struct cr_rng rng = cr_rng_make(600 + (uint64_t)_i);
        enum { N = 96, K = 256 };
        struct problem f = make(tiers[t], type, false, N, K, 3, 0, 0, &rng);
        struct problem d = make(tiers[t], type, true, N, K, 3, 0, 0, &rng);
        d.args.w = f.args.w;
        run_range(&f, &f.args, 0, N);
        run_range(&d, &d.args, 0, K);
        for (size_t b = 0; b < 3; b++) {
            for (size_t lane = 0; lane < 16; lane += cr_test_every(5)) {
                double left = 0, right = 0, total = 0;
                for (size_t n = 0; n < N; n++) {
                    left += (double)d.x32[(b * N + n) * 16 + lane] * f.args.y[b * f.args.y_stride + n * 16 + lane];
                }
                for (size_t k = 0; k < K; k++) {
                    right += (double)f.x32[(b * K + k) * 16 + lane] * d.args.y[b * d.args.y_stride + k * 16 + lane];
                    for (size_t n = 0; n < N; n++) {
                        total += fabs((double)f.w32[n * K + k] * f.x32[(b * K + k) * 16 + lane] *
                                      d.x32[(b * N + n) * 16 + lane]);
                    }
                }
                /* each product is within (K + 2) or (N + 2) roundings of its terms */
                double bound = (K + N + 4) * 0x1p-24 * total;
                ck_assert_msg(fabs(left - right) <= bound, "%s %s: %.12g and %.12g differ by more than %.3g",
                              cr_qgemm_table_name(tiers[t]), cr_qtype_info(type)->name, left, right, bound);
            }
        }
        free(d.x32);
        free(d.w32);
        drop(&f);
    }
}
END_TEST

/* Unit tokens read single weights: the value of a weight is the documented one, bit for bit, both directions. */
START_TEST(weights_exact)
{
    int type = served[_i];
    unsigned tiers[CR_QGEMM_TABLES];
    size_t n_tiers = cr_qgemm_tables(tiers);
    for (size_t t = 0; t < n_tiers; t++) {
        enum { N = 48, K = 256 };
        for (int dx = 0; dx < 2; dx++) {
            struct cr_rng rng = cr_rng_make(700 + (uint64_t)_i);
            size_t n_reduce = dx ? N : K;
            struct problem p = make(tiers[t], type, dx, N, K, n_reduce / 16, 0, 0, &rng);
            char *x = (char *)(uintptr_t)p.args.x;
            cr_guard_protect(x, false);
            for (size_t b = 0; b < n_reduce / 16; b++) {
                char *base = x + b * p.args.x_stride;
                memset(base, 0, cr_tl16_bytes(p.ops.x_type, n_reduce));
                for (size_t lane = 0; lane < 16; lane++) {
                    if (p.ops.x_type == CR_X_BF16) {
                        ((uint16_t *)(void *)base)[cr_tl16_bf16(b * 16 + lane, lane)] = 0x3f80;
                    } else {
                        ((float *)(void *)base)[cr_tl16_f32(b * 16 + lane, lane)] = 1;
                    }
                }
            }
            run_range(&p, &p.args, 0, p.n_out);
            for (size_t o = 0; o < p.n_out; o++) {
                for (size_t k = 0; k < n_reduce; k++) {
                    float got = p.args.y[k / 16 * p.args.y_stride + o * 16 + k % 16];
                    if (got != weight(&p, o, k)) { /* a check that holds costs a system call */
                        ck_abort_msg("%s %s %s: weight (%zu,%zu) is %.9g, expected %.9g", cr_qgemm_table_name(tiers[t]),
                                     dx ? "dx" : "fwd", cr_qtype_info(type)->name, o, k, (double)got,
                                     (double)weight(&p, o, k));
                    }
                }
            }
            drop(&p);
        }
    }
}
END_TEST

/* The f32 tiers with FMA run the same chains: their results are the same bits. */
START_TEST(f32_tiers_agree)
{
    struct cr_cpu cpu;
    cr_cpu_detect(&cpu);
    if (!(cpu.features >> CR_TIER_AVX512 & 1u)) {
        printf("f32_tiers_agree: no avx512, nothing to compare\n");
        return;
    }
    for (int dx = 0; dx < 2; dx++) {
        struct cr_rng rng = cr_rng_make(800);
        struct problem p = make(CR_TIER_AVX2, CR_Q_Q4_1, dx, 104, 1056, 7, 5, LOWRANK, &rng);
        size_t n_y = p.args.y_stride * 7 - 16;
        float *first = malloc(n_y * 4);
        run_range(&p, &p.args, 0, p.n_out);
        memcpy(first, p.args.y, n_y * 4);
        cr_qgemm_ops_init(&p.ops, CR_TIER_AVX512);
        cr_poison(p.args.y, n_y * 4);
        run_range(&p, &p.args, 0, p.n_out);
        cr_expect_bytes("avx512 against avx2", p.args.y, first, n_y * 4);
        free(first);
        drop(&p);
    }
}
END_TEST

START_TEST(tables)
{
    struct cr_qgemm_ops ops;
    cr_qgemm_ops_init(&ops, CR_TIER_SCALAR);
    ck_assert_int_eq(ops.x_type, CR_X_F32);
    ck_assert_int_eq(ops.tier, CR_TIER_SCALAR);
    cr_qgemm_ops_init(&ops, CR_TIER_AMX); /* or avx512, where the compiler knows no tiles */
    ck_assert_int_eq(ops.x_type, ops.tier == CR_TIER_AMX ? CR_X_BF16 : CR_X_F32);
    ck_assert(ops.tier == CR_TIER_AMX || ops.tier == CR_TIER_AVX512 || ops.tier == CR_TIER_SCALAR);
    /* no variants for byte units; the other architecture's tiers give the reference */
    cr_qgemm_ops_init(&ops, CR_TIER_NEON_I8MM);
#if defined(__aarch64__)
    ck_assert_int_eq(ops.tier, CR_TIER_NEON);
    cr_qgemm_ops_init(&ops, CR_TIER_NEON_BF16);
    ck_assert_int_eq(ops.x_type, CR_X_BF16);
    ck_assert_int_eq(ops.tier, CR_TIER_NEON_BF16);
#else
    ck_assert_int_eq(ops.tier, CR_TIER_SCALAR);
#endif
    ck_assert_uint_eq(ops.step, 32);
    ck_assert_uint_ge(cr_qgemm_scratch_bytes(&ops, 49152, 256), (size_t)49152 * 32 * 4);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("qgemm");
    TCase *tc = tcase_create("qgemm");
    tcase_set_timeout(tc, 500);
    tcase_add_test(tc, tables);
    tcase_add_loop_test(tc, all_types, 0, N_SERVED);
    tcase_add_loop_test(tc, weights_exact, 0, N_SERVED);
    tcase_add_loop_test(tc, adjoint, 0, N_SERVED);
    tcase_add_loop_test(tc, tails, 0, 15);
    tcase_add_loop_test(tc, invariance, 0, 5);
    tcase_add_test(tc, many_tokens);
    tcase_add_loop_test(tc, amx_forms_agree, 0, N_SERVED);
    tcase_add_test(tc, position);
    tcase_add_test(tc, f32_tiers_agree);
    suite_add_tcase(suite, tc);
    return cr_run_suite(suite);
}
