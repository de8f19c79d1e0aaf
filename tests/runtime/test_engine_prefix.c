/* Learned prefixes in the model: what real tokens would give, packing, equal vertices, refusals. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "credence/kernels/dequant.h"
#include "runtime/thread/parallel.h"
#include "tests/runtime/engine_prefix_case.h"
#include "tests/support/engine_test.h"
#include "tests/support/kernel_test.h"

static double largest_difference(const float *a, const float *b, size_t n)
{
    double worst = 0;
    for (size_t i = 0; i < n; i++) {
        worst = fmax(worst, fabs((double)a[i] - (double)b[i]));
    }
    return worst;
}

static double largest(const float *a, size_t n)
{
    double worst = 0;
    for (size_t i = 0; i < n; i++) {
        worst = fmax(worst, fabs((double)a[i]));
    }
    return worst;
}

/* The last `n` tokens of a batch of one sequence as a batch of their own, positions from 0. */
static struct cr_token_batch tail_of(const struct cr_token_batch *whole, uint32_t n)
{
    uint32_t example = 1;
    struct cr_token_batch tail = cr_test_batch_make(&n, &example, 1, 0, 1);
    memcpy(tail.ids, whole->ids + whole->n_tokens - n, n * sizeof *tail.ids);
    for (size_t row = 0; row < tail.n_rows; row++) {
        tail.row_target[row] = tail.ids[row + 1];
    }
    return tail;
}

static void logits_of(struct cr_engine *e, const struct cr_token_batch *batch, float *out)
{
    cr_test_logits(e, batch, out);
}

/* A prefix made of the keys and values of leading tokens stands for them: the tokens behind it, shifted by its length,
 * get the logits they would get behind the tokens. Sums over keys take another order: logits of size 1 through 2 layers
 * differ by f32 rounding of about 100 terms, or by some steps of bf16 (2^-8) where products are of that type; without
 * the prefix they differ by more than ten times that. */
START_TEST(as_real_tokens)
{
    static const uint32_t rows[] = {1, 7, 16, 20};
    enum { TAIL = 30 };
    uint32_t n_rows = rows[_i], length = n_rows + TAIL, example = 1;
    enum cr_tier tiers[CR_TEST_TIERS];
    size_t n_tiers = cr_test_tiers(tiers), n = (TAIL - 1) * CR_TINY_VOCAB;
    struct cr_parallel parallel;
    cr_parallel_serial(&parallel);
    struct cr_tiny_spec spec = {.type = CR_Q_Q8_0, .architecture = _i % 2 == 0 ? "llama" : "qwen2"};
    struct cr_test_model m = cr_test_model_make(&spec);
    struct cr_token_batch whole = cr_test_batch_make(&length, &example, 1, 0, 1), tail = tail_of(&whole, TAIL);
    float *want = calloc(whole.n_rows, CR_TINY_VOCAB * sizeof *want), *got = calloc(n, sizeof *got);
    float *bare = calloc(n, sizeof *bare);
    struct cr_prefix prefix;
    make_prefix(&prefix, m.model, 1, n_rows, 0);
    for (size_t t = 0; t < n_tiers; t++) {
        struct cr_error err = {0};
        struct kind kind = {.tier = tiers[t]};
        struct cr_engine *plain = make_engine(m.model, NULL, &parallel, &kind);
        struct cr_engine *e = make_engine(m.model, &prefix, &parallel, &kind);
        ck_assert_msg(cr_engine_fill_prefix(e, 0, &whole, &err) == CR_OK, "%s", err.message);
        logits_of(plain, &whole, want);
        logits_of(plain, &tail, bare);
        logits_of(e, &tail, got);
        float *behind = want + (size_t)n_rows * CR_TINY_VOCAB;
        double size = largest(behind, n);
        double error = largest_difference(got, behind, n), apart = largest_difference(bare, behind, n);
        double allowed = size * (cr_test_rounds(tiers[t]) ? 8.0 / 256 : 100 * 0x1p-24 * 10);
        ck_assert_msg(error <= allowed, "%s, %u rows: logits of %g off by %g", cr_tier_name(tiers[t]), n_rows, size,
                      error);
        ck_assert_msg(apart > (cr_test_rounds(tiers[t]) ? 2 : 10) * allowed, "%s: no prefix differs by %g only",
                      cr_tier_name(tiers[t]), apart);
        cr_engine_destroy(plain);
        cr_engine_destroy(e);
    }
    free(want);
    free(got);
    free(bare);
    free_prefix(&prefix);
    cr_test_batch_free(&whole);
    cr_test_batch_free(&tail);
    cr_test_model_free(&m);
}
END_TEST

/* The same examples once for each of two members, pads between. */
static struct cr_token_batch twice(const struct cr_token_batch *one, uint32_t member[2], uint32_t end[2])
{
    uint32_t room = (uint32_t)one->n_blocks * 32, example = 0;
    size_t at = one->n_blocks * 16;
    struct cr_token_batch two = cr_test_batch_make(&room, &example, 1, 0, 1);
    free(two.seg);
    two.seg = calloc(2 * one->n_seg + 1, sizeof *two.seg);
    two.n_seg = 2 * one->n_seg;
    two.n_rows = 2 * one->n_rows;
    for (size_t i = 0; i < 2; i++) {
        memcpy(two.ids + i * at, one->ids, at * sizeof *two.ids);
        memcpy(two.pos + i * at, one->pos, at * sizeof *two.pos);
        memcpy(two.example + i * at, one->example, at * sizeof *two.example);
        for (size_t s = 0; s <= one->n_seg; s++) {
            two.seg[i * one->n_seg + s] = (uint32_t)(i * at) + one->seg[s];
        }
        for (size_t row = 0; row < one->n_rows; row++) {
            size_t to = i * one->n_rows + row;
            two.row_token[to] = (uint32_t)(i * at) + one->row_token[row];
            two.row_target[to] = one->row_target[row];
            two.row_choices[to] = one->row_choices[row];
            two.row_weight[to] = one->row_weight[row];
        }
        member[i] = (uint32_t)i;
        end[i] = (uint32_t)((i + 1) * one->n_blocks);
    }
    two.n_parts = 2;
    two.part_member = member;
    two.part_end = end;
    return two;
}

/* An answer does not depend on the neighbours in a batch, nor a member's on other members; two draws differ. */
START_TEST(packing)
{
    enum cr_tier tiers[CR_TEST_TIERS];
    size_t n_tiers = cr_test_tiers(tiers);
    struct cr_parallel parallel;
    cr_parallel_serial(&parallel);
    struct cr_tiny_spec spec = {.type = CR_Q_Q4_1};
    struct cr_test_model m = cr_test_model_make(&spec);
    struct cr_prefix p;
    make_prefix(&p, m.model, 3, 10, N_LABELS);
    uint32_t lengths[3] = {13, 1, 40}, examples[3] = {7, 8, 9}, member[2], end[2];
    for (size_t t = 0; t < n_tiers; t++) {
        struct kind kind = {.tier = tiers[t], .n_labels = N_LABELS, .n_members = 2};
        struct cr_engine *e = make_engine(m.model, &p, &parallel, &kind);
        struct cr_token_batch many = cr_test_batch_make(lengths, examples, 3, N_LABELS, 1);
        struct cr_token_batch two = twice(&many, member, end);
        float together[3 * N_LABELS], draws[6 * N_LABELS], alone[N_LABELS];
        struct cr_error err = {0};
        ck_assert(cr_engine_label_logits(e, &many, together, &err) == CR_OK);
        ck_assert_msg(cr_engine_label_logits(e, &two, draws, &err) == CR_OK, "%s", err.message);
        cr_expect_same("member 0", draws, together, 3 * N_LABELS);
        ck_assert(memcmp(draws + 3 * N_LABELS, together, sizeof together) != 0);
        for (size_t i = 0; i < 3; i++) {
            struct cr_token_batch one = cr_test_batch_make(&lengths[i], &examples[i], 1, N_LABELS, 1);
            ck_assert(cr_engine_label_logits(e, &one, alone, &err) == CR_OK);
            cr_expect_same(cr_tier_name(tiers[t]), &together[i * N_LABELS], alone, N_LABELS);
            cr_test_batch_free(&one);
        }
        cr_engine_destroy(e);
        cr_test_batch_free(&many);
        cr_test_batch_free(&two);
    }
    free_prefix(&p);
    cr_test_model_free(&m);
}
END_TEST

/* Equal vertices are one prefix, whatever the weights: a mixture is the vertex to the rounding of its weights, and so
 * are logits of size 1. */
START_TEST(equal_vertices)
{
    struct cr_parallel parallel;
    cr_parallel_serial(&parallel);
    struct cr_tiny_spec spec = {.type = CR_Q_Q8_0};
    struct cr_test_model m = cr_test_model_make(&spec);
    struct cr_prefix p;
    make_prefix(&p, m.model, 3, 10, N_LABELS);
    size_t vertex = 2 * cr_prefix_tensor(&p), head = (size_t)N_LABELS * p.n_embd;
    for (uint32_t j = 1; j < 3; j++) {
        for (uint32_t layer = 0; layer < p.n_layers; layer++) {
            memcpy(p.params + cr_prefix_at(&p, layer, j), p.params + cr_prefix_at(&p, layer, 0),
                   vertex * sizeof(float));
        }
        float *rows = p.params + cr_prefix_rows_floats(&p);
        memcpy(rows + j * head, rows, head * sizeof(float));
    }
    uint32_t lengths[3] = {13, 4, 40}, examples[3] = {7, 8, 9}, member[2], end[2];
    struct kind kind = {.tier = CR_TIER_SCALAR, .n_labels = N_LABELS, .n_members = 2};
    struct cr_engine *e = make_engine(m.model, &p, &parallel, &kind);
    struct cr_token_batch many = cr_test_batch_make(lengths, examples, 3, N_LABELS, 1), two = twice(&many, member, end);
    float draws[6 * N_LABELS];
    struct cr_error err = {0};
    ck_assert_msg(cr_engine_label_logits(e, &two, draws, &err) == CR_OK, "%s", err.message);
    double size = largest(draws, 6 * N_LABELS), apart = largest_difference(draws, draws + 3 * N_LABELS, 3 * N_LABELS);
    ck_assert_msg(apart <= size * 100 * 0x1p-24, "logits of %g apart by %g", size, apart);
    cr_engine_destroy(e);
    cr_test_batch_free(&many);
    cr_test_batch_free(&two);
    free_prefix(&p);
    cr_test_model_free(&m);
}
END_TEST

START_TEST(refusals)
{
    struct cr_parallel parallel;
    cr_parallel_serial(&parallel);
    struct cr_tiny_spec spec = {.type = CR_Q_Q8_0};
    struct cr_test_model m = cr_test_model_make(&spec);
    struct cr_prefix p;
    make_prefix(&p, m.model, 2, 5, 0);
    struct kind kind = {.tier = CR_TIER_SCALAR};
    struct cr_engine *e = make_engine(m.model, &p, &parallel, &kind);
    uint32_t lengths[7] = {5, 5, 5, 5, 5, 5, 5}, examples[7] = {1, 2, 3, 4, 5, 6, 7};
    float nll[64];
    struct cr_error err = {0};
    struct cr_token_batch six = cr_test_batch_make(lengths, examples, 6, 0, 1);
    struct cr_token_batch seven = cr_test_batch_make(lengths, examples, 7, 0, 1);
    ck_assert_msg(cr_engine_token_nll(e, &six, nll, &err) == CR_OK, "%s", err.message);
    ck_assert(cr_engine_token_nll(e, &seven, nll, &err) == CR_E_USAGE);
    ck_assert_msg(strstr(err.message, "planned for 6") != NULL, "%s", err.message);
    ck_assert(cr_engine_fill_prefix(e, 1, &six, &err) == CR_OK);
    ck_assert(cr_engine_fill_prefix(e, 2, &six, &err) == CR_E_USAGE);
    lengths[0] = 4;
    struct cr_token_batch brief = cr_test_batch_make(lengths, examples, 2, 0, 1);
    ck_assert(cr_engine_fill_prefix(e, 0, &brief, &err) == CR_E_USAGE);
    ck_assert_msg(strstr(err.message, "no sequence of 5 tokens") != NULL, "%s", err.message);
    cr_test_batch_free(&six);
    cr_test_batch_free(&seven);
    cr_test_batch_free(&brief);
    cr_engine_destroy(e);
    free_prefix(&p);
    cr_test_model_free(&m);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("engine prefix");
    TCase *tcase = tcase_create("engine prefix");
    tcase_set_timeout(tcase, 120);
    tcase_add_loop_test(tcase, as_real_tokens, 0, 4);
    tcase_add_test(tcase, packing);
    tcase_add_test(tcase, equal_vertices);
    tcase_add_test(tcase, refusals);
    suite_add_tcase(suite, tcase);
    return cr_run_suite(suite);
}
