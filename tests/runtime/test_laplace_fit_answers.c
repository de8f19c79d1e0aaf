/* Laplace posteriors of whole adapters: the evidence, the linearised answers against draws of weights. */
#include <check.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/core/buf.h"
#include "runtime/eval/scoring.h"
#include "runtime/posterior/posterior.h"
#include "tests/runtime/laplace_fit_case.h"
#include "tests/support/kernel_test.h"
#include "tests/support/method_test.h"
#include "tests/support/train_test.h"

/* The evidence is largest at the precision that was taken. */
START_TEST(precision_by_the_evidence)
{
    struct call call;
    struct cr_posterior *p = NULL;
    call_init(&call, "point", "laplace");
    call.options.no_valid = true;
    fit(&call);
    p = cr_method_open("laplace");
    size_t n = cr_laplace_set_n_values(&p->laplace);
    double *values = calloc(n, sizeof *values), norm2 = 0, at = call.result.prior_precision;
    cr_laplace_set_values(&p->laplace, values);
    for (size_t i = 0; i < p->adapter->n_params; i++) {
        norm2 += (double)p->adapter->params[i] * (double)p->adapter->params[i];
    }
    double best = cr_laplace_evidence(values, n, norm2, call.result.log_likelihood, 1 / at);
    ck_assert_double_eq_tol(best, call.result.evidence, 1e-3); /* factors in f32 */
    ck_assert_double_gt(best, cr_laplace_evidence(values, n, norm2, call.result.log_likelihood, 1.1 / at));
    ck_assert_double_gt(best, cr_laplace_evidence(values, n, norm2, call.result.log_likelihood, 1 / 1.1 / at));
    ck_assert(p->laplace.precision == at);
    free(values);
    cr_posterior_close(p);
}
END_TEST

/* Draws of weights through the Jacobian have the covariance that the linearised model takes. */
START_TEST(draws_and_the_linear_model)
{
    enum { DRAWS = 4000 };
    struct call call;
    struct cr_posterior *p = NULL;
    struct cr_scoring s;
    struct cr_error err = {0};
    double var[CR_LABELS_MAX * CR_LABELS_MAX], sum = 0, sum2 = 0;
    call_init(&call, "point", "laplace");
    fit(&call);
    p = cr_method_open("laplace");
    open_scoring(&s, "point");
    size_t n = p->adapter->n_params;
    uint32_t n_classes = s.main.data.examples[s.main.order[0]].n_choices;
    ck_assert_int_eq(cr_jacobian_run(&s.jacobian, s.engine, &s.shared, &s.main.data, s.main.order, 1, &err), CR_OK);
    cr_laplace_set_var(&p->laplace, 1 / p->laplace.precision, s.jacobian.grads, n, n_classes, var);
    float *draw = calloc(n, sizeof *draw);
    for (uint32_t i = 0; i < DRAWS; i++) {
        struct cr_posterior_draw d = {.seed = 3, .sample = i, .temperature = i % 2 == 0 ? 1 : 0.25};
        double moved = 0;
        ck_assert_int_eq(cr_posterior_draw(p, &d, draw, &err), CR_OK);
        for (size_t k = 0; k < n; k++) {
            moved += (double)s.jacobian.grads[k] * ((double)draw[k] - (double)p->adapter->params[k]);
        }
        moved *= i % 2 == 0 ? 1 : 2;
        sum += moved;
        sum2 += moved * moved;
    }
    /* five standard deviations of the mean and the mean square of so many normals */
    ck_assert_double_gt(var[0], 0);
    ck_assert_double_le(fabs(sum / DRAWS), 5 * sqrt(var[0] / DRAWS));
    ck_assert_double_eq_tol(sum2 / DRAWS / var[0], 1, 5 * sqrt(2.0 / DRAWS) + 1e-3);
    free(draw);
    cr_posterior_close(p);
    cr_scoring_close(&s);
}
END_TEST

static bool on_line(void *ctx, const char *line)
{
    json_array_append_new(((struct answer *)ctx)->lines, json_loads(line, 0, NULL));
    return true;
}

START_TEST(answers)
{
    struct call call;
    struct answer a, b;
    call_init(&call, "point", "laplace");
    fit(&call);
    answer_init(&a, "point");
    double point = nll_of(&a);
    answer_free(&a);
    answer_init(&a, "laplace");
    double linear = nll_of(&a);
    ck_assert_uint_eq(a.result.samples, 10000);
    ck_assert_uint_eq(a.result.n_members, 1);
    ck_assert(linear != point);
    a.options.posterior_temperature = 1e-12; /* 1e-6 of jitter remains */
    ck_assert_double_eq_tol(nll_of(&a), point, 1e-4);
    a.options.posterior_temperature = 0;
    a.options.mean = true;
    ck_assert(nll_of(&a) == point);
    a.options.mean = false;
    a.options.weights = true;
    nll_of(&a);
    ck_assert_uint_eq(a.result.n_members, 10);
    a.options.samples = 1;
    double drawn = nll_of(&a);
    struct cr_export_options o = {.size = sizeof o, .adapter = call.output, .format = "peft", .sample_set = true};
    char draw[1024];
    snprintf(draw, sizeof draw, "%s", cr_train_path("draw"));
    o.output = draw;
    ck_assert_int_eq(cr_export(&o, NULL, NULL), CR_OK);
    answer_init(&b, "draw");
    ck_assert(nll_of(&b) == drawn);
    answer_free(&a);
    answer_free(&b);
    /* The same lines for any batches and threads. */
    answer_init(&a, "laplace");
    answer_init(&b, "laplace");
    b.options.batch_size = 3;
    b.host.n_threads = 3;
    ck_assert_int_eq(cr_predict(&a.options, &a.host, on_line, &a, &a.err), CR_OK);
    ck_assert_int_eq(cr_predict(&b.options, &b.host, on_line, &b, &b.err), CR_OK);
    ck_assert_uint_eq(json_array_size(a.lines), CR_TRAIN_CHOICES);
    ck_assert(json_equal(a.lines, b.lines));
    double information = json_real_value(json_object_get(json_array_get(a.lines, 0), "mutual_information"));
    ck_assert_double_gt(information, 0);
    answer_free(&a);
    answer_free(&b);
}
END_TEST

/* A validation file takes the best of the precisions it tried. */
START_TEST(precision_by_validation)
{
    struct call call;
    call_init(&call, "point", "chosen");
    call.options.valid = other;
    fit(&call);
    json_t *summary = json_load_file(cr_train_path("chosen/summary.json"), 0, NULL);
    const json_t *trials = json_object_get(summary, "trials");
    double best = HUGE_VAL;
    ck_assert_uint_eq(json_array_size(trials), 9);
    for (size_t i = 0; i < 9; i++) {
        best = fmin(best, json_real_value(json_object_get(json_array_get(trials, i), "valid_nll")));
    }
    ck_assert(call.result.valid_nll[1] == best);
    ck_assert_str_eq(json_string_value(json_object_get(summary, "chosen_by")), "validation");
    json_decref(summary);
    struct answer a;
    answer_init(&a, "chosen");
    a.options.samples = 1000; /* as in the trials; factors were not yet rounded to f32 there */
    ck_assert_double_eq_tol(nll_of(&a), best, 1e-4);
    answer_free(&a);
    answer_init(&a, "point");
    ck_assert_double_eq_tol(nll_of(&a), call.result.valid_nll[0], 1e-6);
    answer_free(&a);
    call_init(&call, "point", "given");
    call.options.prior_precision = 7;
    fit(&call);
    ck_assert(call.result.prior_precision == 7 && isnan(call.result.valid_nll[0]));
}
END_TEST

static void expect_choice(const char *output, const char *chosen_by)
{
    char name[64];
    snprintf(name, sizeof name, "%s/summary.json", output);
    json_t *summary = json_load_file(cr_train_path(name), 0, NULL);
    ck_assert_str_eq(json_string_value(json_object_get(summary, "chosen_by")), chosen_by);
    bool by_file = strcmp(chosen_by, "validation") == 0;
    ck_assert_int_eq(json_is_string(json_object_get(summary, "valid")), by_file);
    json_decref(summary);
}

/* What the run held out chooses unless it is told otherwise, is what the curvature is gathered on, or is not there. */
START_TEST(held_out_part_by_default)
{
    struct call call;
    char held_out[1024];
    snprintf(held_out, sizeof held_out, "%s", cr_train_path("point/valid.jsonl"));
    call_init(&call, "point", "default");
    fit(&call);
    expect_choice("default", "validation");
    ck_assert_ptr_nonnull(strstr(call.note, "point/valid.jsonl"));
    call_init(&call, "point", "named");
    call.options.valid = held_out;
    fit(&call);
    ck_assert_str_eq(call.note, "");
    ck_assert(cr_train_same("default/" CR_POSTERIOR_FILE, "named/" CR_POSTERIOR_FILE));
    call_init(&call, "point", "evidence");
    call.options.no_valid = true;
    fit(&call);
    expect_choice("evidence", "evidence");
    call_init(&call, "point", "both");
    call.options.no_valid = true;
    call.options.prior_precision = 3;
    fit(&call);
    expect_choice("both", "given");
    call_init(&call, "point", "itself");
    call.options.data = held_out;
    fit(&call);
    expect_choice("itself", "evidence");
    ck_assert_int_eq(remove(held_out), 0);
    call_init(&call, "point", "absent");
    fit(&call);
    expect_choice("absent", "evidence");
    ck_assert_str_eq(call.note, "");
    ck_assert(cr_train_same("absent/" CR_POSTERIOR_FILE, "evidence/" CR_POSTERIOR_FILE));
}
END_TEST

/* The lines of `data` that are not in the run's valid.jsonl, as a file. */
static void write_trained(const char *name)
{
    size_t n, n_out;
    struct cr_buf kept = {0};
    char *text = (char *)cr_train_bytes("choices.jsonl", &n),
         *out = (char *)cr_train_bytes("point/valid.jsonl", &n_out);
    for (char *line = strtok(text, "\n"); line != NULL; line = strtok(NULL, "\n")) {
        if (strstr(out, line) == NULL) {
            cr_buf_printf(&kept, "%s\n", line);
        }
    }
    cr_train_write(name, kept.data, kept.n);
    cr_buf_free(&kept);
    cr_free(text);
    cr_free(out);
}

/* The examples that the run held out of its file are no training examples: the same as from a file without them, of
 * which alone the run does not know. Those of other files all count, and all of a run that held nothing out. */
START_TEST(held_out_part_does_not_count)
{
    struct call call;
    char trained[1024];
    snprintf(trained, sizeof trained, "%s", cr_train_path("trained.jsonl"));
    write_trained("trained.jsonl");
    call_init(&call, "point", "split");
    call.options.no_valid = true;
    fit(&call);
    ck_assert_uint_eq(call.result.n_examples, CR_TRAIN_CHOICES - 3);
    ck_assert_ptr_null(strstr(call.warning, " the run in "));
    call_init(&call, "point", "without");
    call.options.no_valid = true;
    call.options.data = trained;
    fit(&call);
    ck_assert_uint_eq(call.result.n_examples, CR_TRAIN_CHOICES - 3);
    ck_assert_ptr_nonnull(strstr(call.warning, "trained.jsonl is not the file that the run in "));
    ck_assert(cr_train_same("split/" CR_POSTERIOR_FILE, "without/" CR_POSTERIOR_FILE));
    struct cr_train_run run;
    cr_train_run_init(&run, "all");
    run.options.no_valid = true;
    run.options.steps = 1;
    cr_train_must(&run);
    call_init(&call, "all", "counted");
    call.options.no_valid = true;
    fit(&call);
    ck_assert_uint_eq(call.result.n_examples, CR_TRAIN_CHOICES);
    ck_assert_ptr_null(strstr(call.warning, " the run in "));
    /* Without a summary nothing is known of the run; one that is damaged is none. */
    cr_train_write("point/summary.json", "{\"run_id\": 3", 12);
    call_init(&call, "point", "unknown");
    call.options.no_valid = true;
    fit(&call);
    ck_assert_uint_eq(call.result.n_examples, CR_TRAIN_CHOICES);
}
END_TEST

/* Of examples that are too long both calls must have left out the same ones. */
START_TEST(held_out_part_cannot_be_told)
{
    struct cr_train_run run;
    struct call call;
    struct cr_buf buf = {0};
    for (int i = 0; i < 20; i++) {
        cr_buf_printf(&buf, "{\"question\":\"%d%s?\",\"choices\":[\"a\",\"b\"],\"answer\":%d}\n", i,
                      i == 7 ? " and a question that goes on for longer than all the others do" : "", i % 2);
    }
    cr_train_write("uneven.jsonl", buf.data, buf.n);
    cr_buf_free(&buf);
    snprintf(data, sizeof data, "%s", cr_train_path("uneven.jsonl"));
    cr_train_run_init(&run, "uneven");
    run.options.data = data;
    run.options.steps = 1;
    cr_train_must(&run);
    struct cr_scoring s;
    open_scoring(&s, "uneven");
    uint32_t longest = s.main.data.max_ids;
    cr_scoring_close(&s);
    call_init(&call, "uneven", "same");
    call.options.no_valid = true;
    fit(&call);
    ck_assert_uint_eq(call.result.n_examples, 18);
    ck_assert_ptr_null(strstr(call.warning, " the run in "));
    call_init(&call, "uneven", "shorter");
    call.options.no_valid = true;
    call.options.max_seq_length = longest - 1;
    call.options.on_long_skip = true;
    fit(&call);
    ck_assert_uint_eq(call.result.n_examples, 19);
    ck_assert_ptr_nonnull(strstr(call.warning, "cannot be told"));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("laplace_fit answers");
    TCase *all = tcase_create("laplace_fit answers");
    tcase_add_checked_fixture(all, setup, cr_train_dir_drop);
    tcase_set_timeout(all, 300);
    tcase_add_test(all, precision_by_the_evidence);
    tcase_add_test(all, draws_and_the_linear_model);
    tcase_add_test(all, answers);
    tcase_add_test(all, precision_by_validation);
    tcase_add_test(all, held_out_part_by_default);
    tcase_add_test(all, held_out_part_does_not_count);
    tcase_add_test(all, held_out_part_cannot_be_told);
    suite_add_tcase(suite, all);
    return cr_run_suite(suite);
}
