/* Prediction with posteriors: draws against the same weights exported one by one, means, mixtures, dropout. */
#include <check.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "runtime/core/buf.h"
#include "runtime/eval/sets.h"
#include "runtime/metrics/metrics.h"
#include "runtime/posterior/method.h"
#include "tests/runtime/posterior_case.h"
#include "tests/support/kernel_test.h"
#include "tests/support/output_test.h"
#include "tests/support/train_test.h"

static double prob(const struct call *call, size_t i, size_t c)
{
    return json_number_value(json_array_get(json_object_get(line_of(call, i), "probs"), c));
}

/* Of members [n][2]. */
static struct cr_doubt doubt_of(const double *members, size_t n)
{
    struct cr_doubt doubt = {0};
    double sum[2] = {0}, entropies = 0;
    for (size_t m = 0; m < n; m++) {
        doubt = cr_doubt_add(members + 2 * m, 2, m + 1, sum, &entropies);
    }
    return doubt;
}

/* Exported one by one and asked alone, the draws give what they give together, to the last bit. */
START_TEST(samples_are_exported_samples)
{
    struct call together, alone[SAMPLES];
    call_init(&together, "ivon");
    together.options.samples = SAMPLES;
    predict(&together);
    for (uint32_t s = 0; s < SAMPLES; s++) {
        char name[32];
        snprintf(name, sizeof name, "sample%u", s);
        export_set("ivon", name, true, s, 0);
        call_init(&alone[s], name);
        predict(&alone[s]);
        ck_assert_ptr_null(strstr(alone[s].first_warning, CR_POSTERIOR_FILE)); /* a point, and that is all right */
    }
    ck_assert_uint_eq(json_array_size(together.lines), N);
    double spread = 0;
    for (size_t i = 0; i < N; i++) {
        double members[SAMPLES][2], mean[2];
        size_t differ = 0;
        for (int s = 0; s < SAMPLES; s++) {
            for (size_t c = 0; c < 2; c++) {
                members[s][c] = prob(&alone[s], i, c);
            }
            spread = fmax(spread, fabs(members[s][0] - members[0][0]));
        }
        cr_mean_probs(members[0], SAMPLES, 2, mean);
        const json_t *line = line_of(&together, i);
        ck_assert(prob(&together, i, 0) == mean[0] && prob(&together, i, 1) == mean[1]);
        ck_assert(json_is_null(json_object_get(line, "logits")));
        ck_assert(cr_output_number(line, "entropy") == cr_entropy(mean, 2));
        struct cr_doubt doubt = doubt_of(members[0], SAMPLES);
        ck_assert(cr_output_number(line, "expected_entropy") == doubt.expected_entropy);
        ck_assert(cr_output_number(line, "mutual_information") == doubt.mutual_information);
        double logit = 0;
        for (int s = 0; s < SAMPLES; s++) {
            logit += log(members[s][1] / members[s][0]);
        }
        for (int s = 0; s < SAMPLES; s++) {
            differ += (members[s][1] > members[s][0]) != (logit > 0);
        }
        ck_assert(cr_output_number(line, "disagreement") == (double)differ / SAMPLES);
        ck_assert(cr_output_number(line, "members") == SAMPLES);
    }
    ck_assert_double_gt(spread, 1e-3); /* they are different models */
    for (int s = 0; s < SAMPLES; s++) {
        call_free(&alone[s]);
    }
    call_free(&together);
}
END_TEST

/* The figures after k members are those of an evaluation with k samples; the last are those of the whole. */
START_TEST(running_figures)
{
    struct call all;
    call_init(&all, "ivon");
    use_data(&all, _i == 0 ? "other.jsonl" : "texts.jsonl");
    all.options.samples = SAMPLES;
    char json[1024];
    snprintf(json, sizeof json, "%s", cr_train_path("eval.json"));
    all.options.json = json;
    eval(&all);
    ck_assert_uint_eq(all.result.n_members, SAMPLES);
    ck_assert_uint_eq(all.result.samples, SAMPLES);
    for (uint32_t k = 1; k <= SAMPLES; k++) {
        struct call some;
        call_init(&some, "ivon");
        use_data(&some, _i == 0 ? "other.jsonl" : "texts.jsonl");
        some.options.samples = k;
        eval(&some);
        for (size_t g = 0; g <= some.result.n_groups; g++) {
            const struct cr_group_metrics *want = g == 0 ? &some.result.all : &some.result.groups[g - 1];
            const struct cr_group_metrics *got = &all.result.running[g * SAMPLES + k - 1];
            ck_assert_str_eq(got->task, want->task);
            ck_assert(got->nll == want->nll);
            ck_assert(_i == 1 ? got->perplexity == want->perplexity
                              : got->accuracy == want->accuracy && got->ece == want->ece && got->brier == want->brier);
            ck_assert(_i == 1 ? isnan(got->entropy)
                              : got->entropy == want->entropy && got->expected_entropy == want->expected_entropy &&
                                    got->mutual_information == want->mutual_information &&
                                    got->disagreement == want->disagreement);
        }
        ck_assert_ptr_eq(k == 1 ? some.result.running : NULL, NULL);
        call_free(&some);
    }
    ck_assert(all.result.running[SAMPLES - 1].nll == all.result.all.nll);
    json_t *file = json_load_file(json, 0, NULL);
    const json_t *group = json_object_get(file, "all");
    ck_assert(cr_output_number(file, "samples") == SAMPLES && cr_output_number(file, "members") == SAMPLES);
    ck_assert_uint_eq(json_array_size(json_object_get(group, "running")), SAMPLES);
    ck_assert(cr_output_number(json_array_get(json_object_get(group, "running"), 1), "nll") ==
              all.result.running[1].nll);
    if (_i == 0) {
        ck_assert_double_eq_tol(cr_output_number(group, "entropy") - cr_output_number(group, "expected_entropy"),
                                cr_output_number(group, "mutual_information"), 1e-12);
    }
    json_decref(file);
    call_free(&all);
}
END_TEST

/* How sure the first k members are and how far they agree, from the probabilities of each asked alone. */
START_TEST(running_uncertainty)
{
    static double p[SAMPLES][N][2];
    struct call all;
    char json[1024];
    snprintf(json, sizeof json, "%s", cr_train_path("eval.json"));
    for (uint32_t s = 0; s < SAMPLES; s++) {
        struct call alone;
        char name[32];
        snprintf(name, sizeof name, "sample%u", s);
        export_set("ivon", name, true, s, 0);
        call_init(&alone, name);
        predict(&alone);
        for (size_t i = 0; i < N; i++) {
            p[s][i][0] = prob(&alone, i, 0);
            p[s][i][1] = prob(&alone, i, 1);
        }
        call_free(&alone);
    }
    call_init(&all, "ivon");
    all.options.samples = SAMPLES;
    all.options.json = json;
    eval(&all);
    json_t *file = json_load_file(json, 0, NULL);
    const json_t *list = json_object_get(json_object_get(file, "all"), "running");
    double last = -1;
    for (size_t k = 1; k <= SAMPLES; k++) {
        double entropy = 0, expected = 0, differ = 0;
        for (size_t i = 0; i < N; i++) {
            double mean[2] = {0}, logit = 0;
            for (size_t s = 0; s < k; s++) {
                mean[0] += p[s][i][0] / (double)k;
                mean[1] += p[s][i][1] / (double)k;
                logit += log(p[s][i][1] / p[s][i][0]);
                expected -= (p[s][i][0] * log(p[s][i][0]) + p[s][i][1] * log(p[s][i][1])) / (double)(k * N);
            }
            for (size_t s = 0; s < k; s++) {
                differ += ((p[s][i][1] > p[s][i][0]) != (logit > 0)) / (double)(k * N);
            }
            entropy -= (mean[0] * log(mean[0]) + mean[1] * log(mean[1])) / N;
        }
        /* Means of 30 examples with at most 4 members each, terms below 1: 120 roundings and two logarithms a term. */
        const struct cr_group_metrics *got = &all.result.running[k - 1];
        const json_t *object = json_array_get(list, k - 1);
        ck_assert_double_eq_tol(got->entropy, entropy, 1e-13);
        ck_assert_double_eq_tol(got->expected_entropy, expected, 1e-13);
        ck_assert_double_eq_tol(got->mutual_information, entropy - expected, 2e-13);
        ck_assert_double_eq_tol(got->disagreement, differ, 1e-13);
        ck_assert(cr_output_number(object, "entropy") == got->entropy);
        ck_assert(cr_output_number(object, "expected_entropy") == got->expected_entropy);
        ck_assert(cr_output_number(object, "mutual_information") == got->mutual_information);
        ck_assert(cr_output_number(object, "disagreement") == got->disagreement);
        ck_assert(got->mutual_information != last); /* they are not those of all members */
        last = got->mutual_information;
    }
    ck_assert(all.result.running[0].mutual_information == 0 && all.result.running[0].disagreement == 0);
    json_decref(file);
    call_free(&all);
}
END_TEST

/* Texts of one target token: the NLL is that of the mean of the members' probabilities. */
START_TEST(averaged_token_distribution)
{
    struct cr_buf buf = {0};
    for (int i = 0; i < 6; i++) {
        cr_buf_printf(&buf, "{\"text\":\"%c\"}\n", 'a' + i); /* the letter, then the end */
    }
    cr_train_write("letters.jsonl", buf.data, buf.n);
    cr_buf_free(&buf);
    struct call together, alone[SAMPLES];
    call_init(&together, "ivon");
    together.options.samples = SAMPLES;
    use_data(&together, "letters.jsonl");
    predict(&together);
    for (uint32_t s = 0; s < SAMPLES; s++) {
        char name[32];
        snprintf(name, sizeof name, "sample%u", s);
        export_set("ivon", name, true, s, 0);
        call_init(&alone[s], name);
        use_data(&alone[s], "letters.jsonl");
        predict(&alone[s]);
    }
    for (size_t i = 0; i < 6; i++) {
        double nll[SAMPLES], mean = 0;
        ck_assert(cr_output_number(line_of(&together, i), "n_targets") == 1);
        for (int s = 0; s < SAMPLES; s++) {
            nll[s] = cr_output_number(line_of(&alone[s], i), "nll");
            mean += nll[s] / SAMPLES;
        }
        ck_assert(cr_output_number(line_of(&together, i), "nll") == cr_mixture_nll(nll, SAMPLES));
        ck_assert_double_lt(cr_output_number(line_of(&together, i), "nll"), mean); /* Jensen */
    }
    for (int s = 0; s < SAMPLES; s++) {
        call_free(&alone[s]);
    }
    call_free(&together);
}
END_TEST

START_TEST(same_bits_for_batches_and_threads)
{
    struct call base, many;
    call_init(&base, "ivon");
    base.options.samples = 3;
    predict(&base);
    for (int i = 0; i < 4; i++) {
        call_init(&many, i == 3 ? "ivon/checkpoints/step-00000006.cck" : "ivon");
        many.options.samples = 3;
        many.options.batch_size = i == 0 ? 1 : i == 1 ? 7 : 0;
        if (i == 2) {
            many.host.parallel = NULL;
            many.host.n_threads = 3;
        }
        predict(&many);
        ck_assert(json_equal(base.lines, many.lines));
        call_free(&many);
    }
    call_init(&many, "ivon");
    many.options.samples = 3;
    many.options.seed = 1;
    predict(&many);
    ck_assert(!json_equal(base.lines, many.lines));
    call_free(&many);
    call_free(&base);
}
END_TEST

/* The mean is the adapter beside the posterior; draws with next to no variance are as good as it. */
/* Sets that share passes, one example at a time in groups of as many as fit, and sets that take turns because a batch
 * is full: the same bits. More draws than any group; adapters of different ranks and targets; masks. */
START_TEST(same_bits_for_shared_passes)
{
    train_adamw("wide", "q_proj,v_proj", 6, 0.3);
    train_adamw("narrow", "o_proj,v_proj,down_proj", 3, 0.3);
    for (int kind = 0; kind < 3; kind++) {
        struct call full, shared;
        struct call *both[] = {&full, &shared};
        for (int i = 0; i < 2; i++) {
            call_init(both[i], kind == 0 ? "ivon" : "wide");
            if (kind > 0) {
                add_adapter(both[i], "narrow");
            }
            both[i]->options.mc_dropout = kind == 2;
            both[i]->options.samples = kind == 0 ? CR_SETS_SHOWN + 5 : kind == 1 ? 1 : 7;
            both[i]->options.batch_size = i == 0 ? 0 : kind == 1 ? 5 : 1;
            predict(both[i]);
        }
        ck_assert_msg(json_equal(full.lines, shared.lines), "kind %d", kind);
        call_free(&full);
        call_free(&shared);
    }
}
END_TEST

START_TEST(mean_and_temperature)
{
    struct call mean, other_way;
    call_init(&mean, "ivon");
    mean.options.mean = true;
    predict(&mean);
    ck_assert(json_array_size(json_object_get(line_of(&mean, 0), "logits")) == 2);
    call_init(&other_way, "ivon/adapter.gguf");
    predict(&other_way);
    ck_assert(json_equal(mean.lines, other_way.lines));
    call_free(&other_way);
    export_set("ivon", "mean", false, 0, 0);
    call_init(&other_way, "mean");
    predict(&other_way);
    ck_assert(json_equal(mean.lines, other_way.lines));
    eval(&other_way);
    ck_assert_str_eq(other_way.result.method, "ivon-mean");
    call_free(&other_way);
    double before = 0;
    for (int i = 0; i < 3; i++) {
        call_init(&other_way, "ivon");
        other_way.options.posterior_temperature = i == 0 ? 1e-14 : i == 1 ? 1 : 4;
        predict(&other_way);
        eval(&other_way);
        ck_assert_uint_eq(other_way.result.n_members, 10); /* what a posterior gives by itself */
        for (size_t n = 0; i == 0 && n < N; n++) {
            /* noise below an ulp of most weights; outputs of order 1 through two layers in bf16 or f32 */
            ck_assert_double_eq_tol(prob(&other_way, n, 0), prob(&mean, n, 0), 2e-2);
        }
        ck_assert(i == 0 || other_way.result.all.mutual_information > before);
        before = other_way.result.all.mutual_information;
        call_free(&other_way);
    }
    call_free(&mean);
}
END_TEST

/* Adapters of different shapes and methods: the mean of their answers, members kept apart. */
START_TEST(mixtures)
{
    static const char *const names[] = {"wide", "narrow"};
    struct call mixture, alone[2];
    train_adamw("wide", "q_proj,v_proj", 6, 0);
    train_adamw("narrow", "o_proj,v_proj,down_proj", 3, 0);
    call_init(&mixture, "wide");
    add_adapter(&mixture, "narrow");
    predict(&mixture);
    for (int a = 0; a < 2; a++) {
        call_init(&alone[a], names[a]);
        predict(&alone[a]);
    }
    for (size_t i = 0; i < N; i++) {
        double members[2][2], mean[2];
        for (size_t c = 0; c < 4; c++) {
            members[c / 2][c % 2] = prob(&alone[c / 2], i, c % 2);
        }
        cr_mean_probs(members[0], 2, 2, mean);
        ck_assert(prob(&mixture, i, 0) == mean[0]);
        ck_assert(cr_output_number(line_of(&mixture, i), "mutual_information") ==
                  doubt_of(members[0], 2).mutual_information);
    }
    eval(&mixture);
    ck_assert_str_eq(mixture.result.method, "adamw");
    ck_assert(mixture.result.samples == 1 && mixture.result.n_members == 2);
    for (int a = 0; a < 2; a++) {
        call_free(&alone[a]);
    }
    call_free(&mixture);
    /* Posteriors: the first sample of each, then the second of each, with noise of their own. */
    call_init(&mixture, "ivon");
    add_adapter(&mixture, "ivon");
    mixture.options.samples = 2;
    eval(&mixture);
    ck_assert_uint_eq(mixture.result.n_members, 4);
    ck_assert(mixture.result.running[0].nll != mixture.result.running[1].nll);
    call_init(&alone[0], "ivon");
    alone[0].options.samples = 2;
    eval(&alone[0]);
    ck_assert(mixture.result.running[0].nll == alone[0].result.running[0].nll);
    ck_assert(mixture.result.all.nll != alone[0].result.all.nll);
    call_free(&alone[0]);
    call_free(&mixture);
    call_init(&mixture, "ivon");
    add_adapter(&mixture, "wide");
    refuse(&mixture, CR_E_USAGE, "as many of each");
    call_init(&mixture, "ivon");
    add_adapter(&mixture, "wide");
    mixture.options.mean = true;
    eval(&mixture);
    ck_assert_str_eq(mixture.result.method, "mixture");
    call_free(&mixture);
}
END_TEST

START_TEST(mc_dropout)
{
    struct call call, again;
    train_adamw("dropped", "all", 8, 0.3);
    call_init(&call, "dropped");
    call.options.mc_dropout = true;
    call.options.samples = 5;
    eval(&call);
    ck_assert_str_eq(call.result.method, "mc-dropout");
    ck_assert_uint_eq(call.result.n_members, 5);
    ck_assert_double_gt(call.result.all.mutual_information, 0);
    predict(&call);
    call_init(&again, "dropped");
    again.options.mc_dropout = true;
    again.options.samples = 5;
    again.options.batch_size = 3; /* a mask depends on the example, not on its neighbours */
    predict(&again);
    ck_assert(json_equal(call.lines, again.lines));
    call_free(&again);
    call_free(&call);
    call_init(&call, "dropped");
    call.options.samples = 5;
    refuse(&call, CR_E_USAGE, "--samples 5");
    call_init(&call, "ivon");
    call.options.mc_dropout = true;
    refuse(&call, CR_E_USAGE, "--mc-dropout");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("posterior");
    TCase *all = tcase_create("posterior");
    tcase_add_checked_fixture(all, setup, cr_train_dir_drop);
    tcase_set_timeout(all, 300);
    tcase_add_test(all, samples_are_exported_samples);
    tcase_add_loop_test(all, running_figures, 0, 2);
    tcase_add_test(all, running_uncertainty);
    tcase_add_test(all, averaged_token_distribution);
    tcase_add_test(all, same_bits_for_batches_and_threads);
    tcase_add_test(all, same_bits_for_shared_passes);
    tcase_add_test(all, mean_and_temperature);
    tcase_add_test(all, mixtures);
    tcase_add_test(all, mc_dropout);
    suite_add_tcase(suite, all);
    return cr_run_suite(suite);
}
