/* Metrics against reference numbers of 14 examples, 3 members and 4 classes, and on cases worked out by hand.
 *
 * Tolerance: every reference number is a mean or a sum of at most 60 terms below 4, each with a relative error of a
 * few 2^-51 from exp and log on either side: 60 * 4 * 16 * 2^-51 < 2e-12.
 */
#include <check.h>
#include <jansson.h>
#include <math.h>

#include "credence/kernels/math.h"
#include "runtime/metrics/diversity.h"
#include "runtime/metrics/metrics.h"
#include "tests/support/golden.h"
#include "tests/support/kernel_test.h"

#define TOLERANCE 2e-12

enum { N = 14, S = 3, C = 4 };

static json_t *file;
static double member[N][S * C]; /* probabilities */
static double member_nll[N][S];
static double mixed[N][C], pooled[N][C]; /* mean of probabilities; softmax of the mean logits */
static size_t answer[N];

static double at(const json_t *list, size_t i)
{
    const json_t *value = json_array_get(list, i);
    ck_assert(json_is_number(value));
    return json_number_value(value);
}

static void setup(void)
{
    file = cr_golden_load("metrics.json");
    for (size_t i = 0; i < N; i++) {
        double mean[C] = {0};
        answer[i] = (size_t)json_integer_value(json_array_get(json_object_get(file, "labels"), i));
        const json_t *logits = json_array_get(json_object_get(file, "logits_NSC"), i);
        for (size_t s = 0; s < S; s++) {
            double row[C];
            for (size_t c = 0; c < C; c++) {
                row[c] = at(json_array_get(logits, s), c);
                mean[c] += row[c] / S;
            }
            cr_softmax(row, C, &member[i][s * C]);
            member_nll[i][s] = cr_softmax_nll(row, C, answer[i]);
        }
        cr_mean_probs(member[i], S, C, mixed[i]);
        cr_softmax(mean, C, pooled[i]);
    }
}

static void teardown(void)
{
    json_decref(file);
}

static void check_ece(const json_t *want, double (*probs)[C])
{
    static const size_t sizes[] = {10, 15, 20};
    static const char *const rules[] = {"right_closed", "left_closed", "left_closed_clamped"};
    double confidence[N];
    bool correct[N];
    for (size_t i = 0; i < N; i++) {
        size_t best = cr_argmax(probs[i], C);
        confidence[i] = probs[i][best];
        correct[i] = best == answer[i];
    }
    for (size_t b = 0; b < 3; b++) {
        for (int rule = CR_BIN_RIGHT_CLOSED; rule <= CR_BIN_CLAMPED; rule++) {
            struct cr_bin bins[21];
            char key[48];
            snprintf(key, sizeof key, "ece_%zu_%s", sizes[b], rules[rule]);
            cr_bins_fill(confidence, correct, N, sizes[b], (enum cr_bin_rule)rule, bins);
            ck_assert_double_eq_tol(cr_bins_ece(bins, sizes[b]), cr_golden_number(want, key), TOLERANCE);
        }
    }
    struct cr_bin bins[11];
    const json_t *listed = json_object_get(want, "ece_10_right_closed_bins");
    size_t seen = 0;
    cr_bins_fill(confidence, correct, N, 10, CR_BIN_RIGHT_CLOSED, bins);
    for (size_t b = 0; b <= 10; b++) {
        if (bins[b].n > 0) {
            const json_t *bin = json_array_get(listed, seen++);
            ck_assert_uint_eq(b, (size_t)cr_golden_number(bin, "bin"));
            ck_assert_uint_eq(bins[b].n, (uint64_t)cr_golden_number(bin, "count"));
            ck_assert_double_eq_tol(bins[b].correct / (double)bins[b].n, cr_golden_number(bin, "acc"), TOLERANCE);
            ck_assert_double_eq_tol(bins[b].confidence / (double)bins[b].n, cr_golden_number(bin, "conf"), TOLERANCE);
        }
    }
    ck_assert_uint_eq(seen, json_array_size(listed));
}

/* Everything that both ways of averaging have in the file. */
static void check_predictor(const char *name, double (*probs)[C])
{
    const json_t *want = json_object_get(file, name);
    const json_t *rows = json_object_get(want, "probs");
    double right = 0, nll = 0, nll_floor = 0, brier = 0;
    ck_assert_uint_eq(json_array_size(rows), N);
    for (size_t i = 0; i < N; i++) {
        for (size_t c = 0; c < C; c++) {
            ck_assert_double_eq_tol(probs[i][c], at(json_array_get(rows, i), c), TOLERANCE);
        }
        ck_assert_double_eq_tol(cr_entropy(probs[i], C), at(json_object_get(want, "entropy"), i), TOLERANCE);
        right += cr_argmax(probs[i], C) == answer[i];
        nll -= cr_ln(probs[i][answer[i]]);
        nll_floor -= cr_ln(probs[i][answer[i]] + 1e-9);
        brier += cr_brier(probs[i], C, answer[i]);
    }
    ck_assert_double_eq_tol(right / N, cr_golden_number(want, "accuracy"), TOLERANCE);
    ck_assert_double_eq_tol(nll / N, cr_golden_number(want, "nll"), TOLERANCE);
    ck_assert_double_eq_tol(nll_floor / N, cr_golden_number(want, "nll_eps1e9"), TOLERANCE);
    ck_assert_double_eq_tol(brier / N, cr_golden_number(want, "brier_sum"), TOLERANCE);
    check_ece(want, probs);
}

START_TEST(mean_of_probabilities)
{
    check_predictor("mean_of_probs", mixed);
}
END_TEST

START_TEST(softmax_of_mean_logits)
{
    check_predictor("softmax_of_mean_logits", pooled);
    double right = 0;
    for (size_t i = 0; i < N; i++) {
        right += cr_argmax(pooled[i], C) == answer[i];
    }
    ck_assert_double_eq_tol(right / N, cr_golden_number(file, "accuracy_argmax_mean_logits"), TOLERANCE);
}
END_TEST

START_TEST(members)
{
    for (size_t s = 0; s < S; s++) {
        double right = 0;
        double nll = 0;
        for (size_t i = 0; i < N; i++) {
            right += cr_argmax(&member[i][s * C], C) == answer[i];
            nll += cr_mixture_nll(member_nll[i], s + 1); /* of the first 1, 2, 3 members */
        }
        ck_assert_double_eq_tol(right / N, at(json_object_get(file, "per_member_accuracy"), s), TOLERANCE);
        ck_assert_double_eq_tol(nll / N, at(json_object_get(file, "running_nll_by_num_samples"), s), TOLERANCE);
    }
    for (size_t i = 0; i < N; i++) {
        struct cr_doubt doubt[S];
        double differ = 0, sum[C] = {0}, entropies = 0;
        for (size_t s = 0; s < S; s++) {
            doubt[s] = cr_doubt_add(&member[i][s * C], C, s + 1, sum, &entropies);
            differ += cr_argmax(&member[i][s * C], C) != cr_argmax(pooled[i], C);
        }
        ck_assert_double_eq_tol(doubt[S - 1].expected_entropy, at(json_object_get(file, "expected_entropy"), i),
                                TOLERANCE);
        ck_assert_double_eq_tol(differ / S, at(json_object_get(file, "disagreement_ratio"), i), TOLERANCE);
        ck_assert_double_eq_tol(doubt[S - 1].mutual_information, at(json_object_get(file, "mutual_information"), i),
                                TOLERANCE);
        ck_assert(doubt[S - 1].entropy == cr_entropy(mixed[i], C));
        double mean[C];
        cr_mean_probs(member[i], 1, C, mean);
        ck_assert_mem_eq(mean, member[i], sizeof mean);
        ck_assert(doubt[0].mutual_information == 0 && doubt[0].entropy == cr_entropy(mean, C));
    }
}
END_TEST

START_TEST(bin_edges)
{
    const json_t *want = json_object_get(file, "edge_case");
    static const size_t sizes[] = {4, 10};
    static const char *const rules[] = {"right_closed", "left_closed", "left_closed_clamped"};
    double confidence[8];
    bool correct[8];
    for (size_t i = 0; i < 8; i++) {
        confidence[i] = at(json_object_get(want, "confidence"), i);
        correct[i] = at(json_object_get(want, "correct"), i) > 0;
    }
    for (size_t b = 0; b < 2; b++) {
        for (int rule = CR_BIN_RIGHT_CLOSED; rule <= CR_BIN_CLAMPED; rule++) {
            struct cr_bin bins[11];
            char key[48];
            snprintf(key, sizeof key, "ece_%zu_%s", sizes[b], rules[rule]);
            cr_bins_fill(confidence, correct, 8, sizes[b], (enum cr_bin_rule)rule, bins);
            ck_assert_double_eq_tol(cr_bins_ece(bins, sizes[b]), cr_golden_number(want, key), TOLERANCE);
        }
    }
}
END_TEST

/* Every edge b / n belongs to the bin that the rule says, its neighbours in double to the bins beside it. */
START_TEST(bins_of_all_edges)
{
    for (size_t n = 1; n <= 100; n++) {
        for (size_t b = 0; b <= n; b++) {
            double edge = (double)b / (double)n;
            size_t below = b > 0 ? b - 1 : 0;
            size_t last = b < n ? b : n - 1;
            ck_assert_uint_eq(cr_bin_of(edge, n, CR_BIN_RIGHT_CLOSED), below);
            ck_assert_uint_eq(cr_bin_of(edge, n, CR_BIN_LEFT_CLOSED), b);
            ck_assert_uint_eq(cr_bin_of(edge, n, CR_BIN_CLAMPED), last);
            for (int rule = CR_BIN_RIGHT_CLOSED; rule <= CR_BIN_CLAMPED; rule++) {
                if (b > 0) {
                    ck_assert_uint_eq(cr_bin_of(nextafter(edge, 0), n, (enum cr_bin_rule)rule), b - 1);
                }
                if (b < n) {
                    ck_assert_uint_eq(cr_bin_of(nextafter(edge, 1), n, (enum cr_bin_rule)rule), b);
                }
            }
        }
    }
}
END_TEST

static size_t scores(struct cr_scored *items, const json_t *list, bool positive, double sign)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        items[i] = (struct cr_scored){.score = sign * at(list, i), .positive = positive};
    }
    return json_array_size(list);
}

START_TEST(ranking)
{
    const json_t *ood = json_object_get(file, "ood");
    const json_t *in = json_object_get(ood, "id_scores");
    const json_t *out = json_object_get(ood, "ood_scores");
    struct cr_scored items[16];
    size_t n = scores(items, in, false, 1);
    n += scores(items + n, out, true, 1);
    ck_assert_double_eq_tol(cr_auroc(items, n), cr_golden_number(ood, "auroc_ood_positive"), TOLERANCE);
    ck_assert_double_eq_tol(cr_average_precision(items, n), cr_golden_number(ood, "average_precision_ood_positive"),
                            TOLERANCE);
    n = scores(items, in, true, 1);
    n += scores(items + n, out, false, 1);
    ck_assert_double_eq_tol(cr_average_precision(items, n),
                            cr_golden_number(ood, "average_precision_id_positive_with_unnegated_scores"), TOLERANCE);
    n = scores(items, in, true, -1);
    n += scores(items + n, out, false, -1);
    ck_assert_double_eq_tol(cr_average_precision(items, n),
                            cr_golden_number(ood, "average_precision_id_positive_with_negated_scores"), TOLERANCE);
}
END_TEST

START_TEST(ranking_extremes)
{
    struct cr_scored items[] = {{3, true}, {2, true}, {1, false}};
    ck_assert(cr_auroc(items, 3) == 1);
    ck_assert(cr_average_precision(items, 3) == 1);
    struct cr_scored equal[] = {{1, true}, {1, false}, {1, false}, {1, false}};
    ck_assert(cr_auroc(equal, 4) == 0.5);
    ck_assert(cr_average_precision(equal, 4) == 0.25);
    struct cr_scored one_sided[] = {{1, true}, {2, true}};
    ck_assert(isnan(cr_auroc(one_sided, 2)));
    ck_assert(cr_average_precision(one_sided, 2) == 1);
    one_sided[0].positive = one_sided[1].positive = false;
    ck_assert(isnan(cr_auroc(one_sided, 2)));
    ck_assert(isnan(cr_average_precision(one_sided, 2)));
    ck_assert(isnan(cr_auroc(one_sided, 0)));
    ck_assert(isnan(cr_average_precision(one_sided, 0)));
}
END_TEST

START_TEST(perplexity)
{
    const json_t *want = json_object_get(file, "perplexity");
    const json_t *documents = json_object_get(want, "token_nll_per_document");
    double sum = 0, sum_of_means = 0, sum_of_perplexities = 0;
    uint64_t n = 0;
    for (size_t d = 0; d < json_array_size(documents); d++) {
        const json_t *tokens = json_array_get(documents, d);
        double document = 0;
        for (size_t t = 0; t < json_array_size(tokens); t++) {
            document += at(tokens, t);
        }
        sum += document;
        sum_of_means += document / (double)json_array_size(tokens);
        sum_of_perplexities += cr_perplexity(document, json_array_size(tokens));
        n += json_array_size(tokens);
    }
    ck_assert_double_eq_tol(cr_perplexity(sum, n), cr_golden_number(want, "ppl_token_weighted"), 100 * TOLERANCE);
    ck_assert_double_eq_tol(cr_perplexity(sum_of_means, json_array_size(documents)),
                            cr_golden_number(want, "ppl_document_mean"), 100 * TOLERANCE);
    ck_assert_double_eq_tol(sum_of_perplexities / (double)json_array_size(documents),
                            cr_golden_number(want, "mean_of_document_ppl"), 100 * TOLERANCE);
    ck_assert(isnan(cr_perplexity(0, 0)));
}
END_TEST

/* Differences of logits far beyond the range of exp: probabilities underflow, the NLL must not. */
START_TEST(far_logits)
{
    double logits[] = {0, -2000, -1e6};
    double probs[3];
    cr_softmax(logits, 3, probs);
    ck_assert(probs[0] == 1 && probs[1] == 0 && probs[2] == 0);
    ck_assert(cr_softmax_nll(logits, 3, 0) == 0);
    ck_assert(cr_softmax_nll(logits, 3, 1) == 2000);
    ck_assert(cr_softmax_nll(logits, 3, 2) == 1e6);
    ck_assert(cr_entropy(probs, 3) == 0 && !signbit(cr_entropy(probs, 3)));
    double nll[] = {5000, 2000};
    ck_assert_double_eq_tol(cr_mixture_nll(nll, 2), 2000 + 0.6931471805599453, 2000 * 0x1p-51);
    ck_assert(cr_mixture_nll(nll, 1) == 5000);
}
END_TEST

START_TEST(nothing_and_ties)
{
    struct cr_bin bins[16];
    double tied[] = {0.25, 0.375, 0.375};
    cr_bins_fill(NULL, NULL, 0, 15, CR_BIN_RIGHT_CLOSED, bins);
    ck_assert(isnan(cr_bins_ece(bins, 15)));
    ck_assert_uint_eq(cr_argmax(tied, 3), 1);
    ck_assert(cr_brier(tied, 3, 1) == 0.0625 + 0.390625 + 0.140625);
}
END_TEST

/* Means of the stored token losses over tasks and batches: both documents in one batch, or a batch each; tasks that are
 * not there. */
START_TEST(task_perplexity)
{
    const json_t *want = cr_golden_get(file, "perplexity");
    double tokens[4];
    cr_golden_fill(want, "token_nll_per_document", tokens, 4);
    const struct cr_task_nll absent = {0, 0}, first = {tokens[0] + tokens[1] + tokens[2], 3}, second = {tokens[3], 1};
    const struct cr_task_nll together[] = {first, absent, second},
                             apart[] = {first, absent, absent, second, absent, absent};
    double ppl = cr_task_perplexity(together, 1, 3);
    cr_golden_expect(want, "ppl_document_mean", &ppl, 1, 1e-10);
    ppl = cr_task_perplexity(apart, 3, 2); /* [first, -] [-, second] [-, -] */
    cr_golden_expect(want, "mean_of_document_ppl", &ppl, 1, 1e-10);
    ck_assert(isnan(cr_task_perplexity(&absent, 1, 1)) && isnan(cr_task_perplexity(NULL, 0, 3)));
}
END_TEST

START_TEST(softmax_in_place)
{
    double x[3] = {1000, 1000 + log(3), -1000}, one = 5;
    cr_softmax(x, 3, x);
    ck_assert_double_eq_tol(x[0], 0.25, 1e-13); /* the logits carry 2^-44 */
    ck_assert_double_eq_tol(x[1], 0.75, 1e-13);
    ck_assert_double_eq(x[2], 0);
    cr_softmax(&one, 1, &one);
    ck_assert_double_eq(one, 1);
}
END_TEST

/* Worked out by hand; a class without probability; one member has no pair. */
START_TEST(diversity)
{
    const double probs[3][2] = {{0.5, 0.5}, {0.75, 0.25}, {0, 1}};
    struct cr_diversity sum = {0};
    cr_diversity_add(probs[0], 1, 2, &sum);
    ck_assert(isnan(cr_diversity_disagreement(&sum)) && isnan(cr_diversity_distance(&sum)));
    cr_diversity_add(probs[0], 2, 2, &sum); /* ties to the lowest class: both 0 */
    ck_assert(sum.n_pairs == 1 && sum.n_disagree == 0);
    ck_assert_double_eq_tol(sum.distance, sqrt(0.5 * 0.25 * log(3)), 1e-14);
    sum = (struct cr_diversity){0};
    cr_diversity_add(probs[0], 3, 2, &sum);
    ck_assert(sum.n_pairs == 3 && sum.n_disagree == 2 && isfinite(sum.distance));
    sum = (struct cr_diversity){0};
    const double same[2][2] = {{0, 1}, {0, 1}};
    cr_diversity_add(same[0], 2, 2, &sum);
    ck_assert_double_eq(cr_diversity_distance(&sum), 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("metrics");
    TCase *tcase = tcase_create("metrics");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, mean_of_probabilities);
    tcase_add_test(tcase, softmax_of_mean_logits);
    tcase_add_test(tcase, members);
    tcase_add_test(tcase, bin_edges);
    tcase_add_test(tcase, bins_of_all_edges);
    tcase_add_test(tcase, ranking);
    tcase_add_test(tcase, ranking_extremes);
    tcase_add_test(tcase, perplexity);
    tcase_add_test(tcase, task_perplexity);
    tcase_add_test(tcase, far_logits);
    tcase_add_test(tcase, softmax_in_place);
    tcase_add_test(tcase, diversity);
    tcase_add_test(tcase, nothing_and_ties);
    suite_add_tcase(suite, tcase);
    return cr_run_suite(suite);
}
