/* attention: the same bits for every split, packing, grouping and form of the tiles. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "credence/kernels/attention.h"
#include "tests/kernels/attention_case.h"
#include "tests/support/amx_trap.h"
#include "tests/support/kernel_test.h"

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
    uint32_t packed_lengths[] = {start, len, (uint32_t)(n_blocks * 16 + 16 - start - len), END};
    uint32_t alone_lengths[] = {len, END};
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
    bool objects = n >= 2 && all[n - 1] == MODEL && is_bf16(CR_TIER_AMX);
    if (!objects || (all[n - 2] != CR_TIER_AMX && !cr_amx_trap_install())) {
        printf("amx_forms_agree: no tiles that run here, nothing to compare\n");
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

int main(void)
{
    Suite *suite = suite_create("attention bits");
    TCase *tcase = tcase_create("attention bits");
    tcase_set_timeout(tcase, 120);
    tcase_add_loop_test(tcase, splits_give_the_same_bits, 0, N_SHAPES);
    tcase_add_loop_test(tcase, packing_does_not_matter, 0, 8 * 4);
    tcase_add_loop_test(tcase, sums_of_groups, 0, N_SHAPES);
    tcase_add_test(tcase, amx_forms_agree);
    suite_add_tcase(suite, tcase);
    return cr_run_suite(suite);
}
