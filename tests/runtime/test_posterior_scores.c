/* Prediction with posteriors: scores of examples from elsewhere, the fitted temperature, pruning. */
#include <check.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>

#include "runtime/adapter/files.h"
#include "runtime/core/buf.h"
#include "tests/runtime/posterior_case.h"
#include "tests/support/kernel_test.h"
#include "tests/support/output_test.h"
#include "tests/support/train_test.h"

/* AUROC and average precision against the definitions, pair by pair. */
START_TEST(examples_from_elsewhere)
{
    struct call in, out;
    double score[2 * N], information[2 * N];
    struct cr_buf buf = {0};
    for (int i = 0; i < N; i++) { /* other words, and three choices: entropies are divided by ln 3 */
        cr_buf_printf(&buf, "{\"question\":\"%d\",\"choices\":[\"a\",\"b\",\"c\"],\"answer\":%d}\n", i * 37, i % 3);
    }
    cr_train_write("elsewhere.jsonl", buf.data, buf.n);
    cr_buf_free(&buf);
    char elsewhere[1024], json[1024];
    snprintf(elsewhere, sizeof elsewhere, "%s", cr_train_path("elsewhere.jsonl"));
    snprintf(json, sizeof json, "%s", cr_train_path("ood.json"));
    call_init(&in, "ivon");
    in.options.samples = 3;
    predict(&in);
    call_init(&out, "ivon");
    out.options.samples = 3;
    use_data(&out, "elsewhere.jsonl");
    predict(&out);
    for (size_t i = 0; i < N; i++) {
        score[i] = cr_output_number(line_of(&in, i), "entropy") / log(2);
        score[N + i] = cr_output_number(line_of(&out, i), "entropy") / log(3);
        information[i] = cr_output_number(line_of(&in, i), "mutual_information");
        information[N + i] = cr_output_number(line_of(&out, i), "mutual_information");
    }
    double above = 0, informed = 0, precision = 0;
    for (size_t o = N; o < 2 * N; o++) {
        double hits = 0, all = 0;
        for (size_t i = 0; i < 2 * N; i++) {
            above += i < N ? (score[o] > score[i]) + 0.5 * (score[o] == score[i]) : 0;
            informed += i < N ? (information[o] > information[i]) + 0.5 * (information[o] == information[i]) : 0;
            hits += i >= N && score[i] >= score[o];
            all += score[i] >= score[o];
        }
        precision += hits / all / N;
    }
    in.options.ood = elsewhere;
    in.options.json = json;
    eval(&in);
    const struct cr_ood_metrics *m = &in.result.ood;
    ck_assert(in.result.has_ood && m->n_in == N && m->n_out == N);
    ck_assert_double_eq_tol(m->auroc, above / (N * N), 1e-12);
    ck_assert_double_eq_tol(m->information_auroc, informed / (N * N), 1e-12);
    ck_assert_double_eq_tol(m->average_precision, precision, 1e-12);
    json_t *file = json_load_file(json, 0, NULL);
    ck_assert(cr_output_number(json_object_get(file, "ood"), "auroc") == m->auroc);
    ck_assert(cr_output_number(json_object_get(file, "ood"), "entropy_out") == m->mean_out);
    json_decref(file);
    call_free(&out);
    call_free(&in);
    call_init(&in, "ivon");
    snprintf(in.paths[2], sizeof in.paths[2], "%s", cr_train_path("texts.jsonl"));
    in.options.ood = in.paths[2];
    refuse(&in, CR_E_INPUT, "--ood");
    call_init(&in, "ivon");
    use_data(&in, "texts.jsonl");
    in.options.ood = elsewhere;
    refuse(&in, CR_E_USAGE, "--ood");
}
END_TEST

/* Mean NLL of predicted lines at a temperature, from their probabilities. */
static double nll_at(const json_t *lines, double temperature)
{
    double sum = 0;
    for (size_t i = 0; i < json_array_size(lines); i++) {
        const json_t *line = json_array_get(lines, i), *probs = json_object_get(line, "probs");
        double all = 0, own = 0;
        for (size_t c = 0; c < json_array_size(probs); c++) {
            double p = pow(json_real_value(json_array_get(probs, c)), 1 / temperature);
            all += p;
            own = (json_int_t)c == json_integer_value(json_object_get(line, "answer")) ? p : own;
        }
        sum -= log(own / all);
    }
    return sum / (double)json_array_size(lines);
}

/* The temperature is the best one of the validation file for this very predictor; what is raw stays as it was. */
START_TEST(fitted_temperature)
{
    bool point = _i == 1;
    struct call valid, raw, call;
    char json[1024];
    snprintf(json, sizeof json, "%s", cr_train_path("calibrated.json"));
    train_adamw("sure", "q_proj,v_proj", 8, 0);
    call_init(&valid, point ? "sure" : "ivon");
    use_data(&valid, "choices.jsonl");
    predict(&valid);
    call_init(&raw, point ? "sure" : "ivon");
    raw.options.json = json;
    eval(&raw);
    call_init(&call, point ? "sure" : "ivon");
    call.options.calibrate = data;
    call.options.json = json;
    eval(&call);
    double t = call.result.temperature;
    ck_assert_uint_eq(call.result.n_calibration, N);
    ck_assert(isnan(raw.result.temperature) && raw.result.calibrated == NULL);
    /* 1e-12 in the logarithms of a mixture moves an NLL by less than 1e-10 while probabilities are above .01 */
    ck_assert_double_eq_tol(call.result.calibration_nll[0], nll_at(valid.lines, 1), 1e-9);
    ck_assert_double_eq_tol(call.result.calibration_nll[1], nll_at(valid.lines, t), 1e-9);
    ck_assert_double_le(nll_at(valid.lines, t), nll_at(valid.lines, t * 1.01) + 1e-9);
    ck_assert_double_le(nll_at(valid.lines, t), nll_at(valid.lines, t / 1.01) + 1e-9);
    ck_assert_double_gt(fabs(log(t)), 0.05);
    ck_assert(call.result.all.nll == raw.result.all.nll && call.result.all.ece == raw.result.all.ece);
    ck_assert(call.result.calibrated[0].accuracy == raw.result.all.accuracy);
    predict(&call);
    ck_assert_double_eq_tol(call.result.calibrated[0].nll, nll_at(call.lines, t), 1e-9);
    for (size_t i = 0; i < N; i++) {
        const json_t *p = json_object_get(line_of(&call, i), "probs");
        const json_t *q = json_object_get(line_of(&call, i), "calibrated");
        double odds = json_real_value(json_array_get(p, 0)) / json_real_value(json_array_get(p, 1));
        double want = 1 / (1 + pow(odds, -1 / t));
        ck_assert_double_eq_tol(json_real_value(json_array_get(q, 0)), want, 1e-9);
    }
    json_t *file = json_load_file(json, 0, NULL);
    ck_assert(cr_output_number(json_object_get(file, "calibration"), "temperature") == t);
    ck_assert(cr_output_number(json_object_get(json_object_get(file, "all"), "calibrated"), "nll") ==
              call.result.calibrated[0].nll);
    json_decref(file);
    call_free(&valid);
    call_free(&raw);
    call_free(&call);
}
END_TEST

START_TEST(refused_calibration)
{
    struct call call;
    char texts[1024];
    snprintf(texts, sizeof texts, "%s", cr_train_path("texts.jsonl"));
    call_init(&call, "ivon");
    call.options.calibrate = call.options.data;
    refuse(&call, CR_E_USAGE, "--calibrate is the same file as --data");
    call_init(&call, "ivon");
    call.options.calibrate = data;
    call.options.ood = data;
    refuse(&call, CR_E_USAGE, "--calibrate is the same file as --ood");
    call_init(&call, "ivon");
    call.options.calibrate = texts;
    refuse(&call, CR_E_INPUT, "--calibrate");
    call_init(&call, "ivon");
    use_data(&call, "texts.jsonl");
    call.options.calibrate = data;
    refuse(&call, CR_E_USAGE, "--calibrate needs questions");
    call_init(&call, "ivon");
    call.options.calibrate = data;
    call.options.json = data;
    refuse(&call, CR_E_USAGE, "--json is the same file as --calibrate");
}
END_TEST

/* Half of the weights out: exactly so many zeros, and the same in an evaluation of the posterior's mean. */
START_TEST(pruning)
{
    struct call pruned, exported;
    call_init(&pruned, "ivon");
    pruned.options.mean = true;
    pruned.options.prune = 0.5;
    predict(&pruned);
    export_set("ivon", "half", false, 0, 0.5);
    call_init(&exported, "half");
    predict(&exported);
    ck_assert(json_equal(pruned.lines, exported.lines));
    struct cr_adapter *adapter = NULL;
    struct cr_adapter_base base;
    ck_assert_int_eq(cr_adapter_read(exported.adapters[0], NULL, false, &adapter, &base, NULL), CR_OK);
    size_t zeros = 0;
    for (size_t i = 0; i < adapter->n_params; i++) {
        zeros += adapter->params[i] == 0;
    }
    /* gaps are zeros too; a weight of B that never moved may be */
    ck_assert_uint_ge(zeros, adapter->n_trainable / 2 + adapter->n_params - adapter->n_trainable);
    ck_assert_uint_lt(zeros, adapter->n_trainable / 2 + adapter->n_params - adapter->n_trainable + 16);
    cr_adapter_destroy(adapter);
    call_free(&pruned);
    call_free(&exported);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("posterior scores");
    TCase *all = tcase_create("posterior scores");
    tcase_add_checked_fixture(all, setup, cr_train_dir_drop);
    tcase_set_timeout(all, 300);
    tcase_add_loop_test(all, fitted_temperature, 0, 2);
    tcase_add_test(all, refused_calibration);
    tcase_add_test(all, examples_from_elsewhere);
    tcase_add_test(all, pruning);
    suite_add_tcase(suite, all);
    return cr_run_suite(suite);
}
