/* Whole runs with method ivon: what an option says reaches the step, and what several samples are clipped by. One step
 * of a run is made again by the library from its checkpoints: beta1 is 1/2, so that the momentum of the first step is
 * half the gradient, exactly. */
#include <check.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/posterior/ivon.h"
#include "runtime/thread/parallel.h"
#include "tests/support/kernel_test.h"
#include "tests/support/method_test.h"
#include "tests/support/train_test.h"

enum { MAX_PARAMS = 1 << 16 };

#define LR 0.5
#define ESS 2e4
#define HESS_INIT 1e-3
#define DECAY 0.1
#define RADIUS 0.02

static struct cr_parallel serial;

static void setup(void)
{
    cr_train_dir_make();
    cr_parallel_serial(&serial);
}

static void init(struct cr_train_run *run, const char *output)
{
    cr_train_run_init(run, output);
    run->options.method = "ivon";
    run->options.no_valid = true;
    run->options.steps = 1;
    run->options.save_every = 1;
    run->options.lr = LR;
    run->options.lr_schedule = CR_LR_CONSTANT;
    run->options.ess = ESS;
    run->options.hess_init = HESS_INIT;
    run->options.weight_decay = DECAY;
    run->options.clip_radius = RADIUS;
    run->options.beta1 = 0.5;
    run->options.beta2 = 0.9;
    run->options.max_grad_norm = 0;
    run->options.seed = 3;
}

/* Settings of the run, said again by hand. */
static struct cr_ivon_settings settings(void)
{
    struct cr_ivon_group g = {.lr_factor = 1,
                              .ess = ESS,
                              .hess_init = HESS_INIT,
                              .beta1 = 0.5,
                              .beta2 = 0.9,
                              .weight_decay = DECAY,
                              .clip_radius = RADIUS};
    return (struct cr_ivon_settings){.debias = true, .n_samples = 1, .seed = 3, .groups = {g, g}};
}

/* Mean and curvature after the first step of the run in dir/output, and its gradient. */
struct after {
    float mean[MAX_PARAMS], hess[MAX_PARAMS], grad[MAX_PARAMS];
    size_t n;
};

static void read_step(const char *output, struct after *after)
{
    struct cr_checkpoint checkpoint;
    cr_method_step(output, 1, &checkpoint);
    const float *mean = cr_method_section(&checkpoint, CR_CKPT_WEIGHTS, &after->n);
    const float *momentum = cr_method_section(&checkpoint, CR_CKPT_OPTIMISER, NULL);
    const float *hess = cr_method_section(&checkpoint, CR_CKPT_HESSIAN, NULL);
    ck_assert_uint_le(after->n, MAX_PARAMS);
    memcpy(after->mean, mean, after->n * sizeof *mean);
    memcpy(after->hess, hess, after->n * sizeof *hess);
    for (size_t i = 0; i < after->n; i++) {
        after->grad[i] = 2 * momentum[i];
    }
    cr_checkpoint_close(&checkpoint);
}

/* The step that the library makes of a gradient from the start of the run in dir/output. */
static void step_of_library(const char *output, const struct cr_ivon_settings *s, const float *grad, struct after *out)
{
    struct cr_ivon ivon;
    struct cr_posterior *start = NULL;
    struct cr_error err = {0};
    enum cr_tier tiers[CR_TEST_TIERS];
    enum cr_tier best = tiers[cr_test_tiers(tiers) - 1];
    char name[64];
    size_t n_parts;
    snprintf(name, sizeof name, "%s/checkpoints/step-00000000.cck", output);
    start = cr_method_open(name);
    struct cr_ivon_part *parts = cr_ivon_parts_of(start->adapter, &n_parts);
    out->n = start->adapter->n_params;
    cr_status status =
        cr_ivon_init(&ivon, start->adapter->params, out->n, parts, n_parts, s, false, best, &serial, &err);
    ck_assert_msg(status == CR_OK, "%s", err.message);
    cr_ivon_step(&ivon, 0, grad, LR, 1, NULL);
    memcpy(out->mean, ivon.mean, out->n * sizeof *ivon.mean);
    memcpy(out->hess, ivon.hess, out->n * sizeof *ivon.hess);
    cr_ivon_deinit(&ivon);
    cr_free(parts);
    cr_posterior_close(start);
}

/* Each option alone: the run's step is the library's with that setting, and not the one without. */
START_TEST(options_reach_the_step)
{
    static struct after run_after, with, without;
    struct cr_train_run run;
    struct cr_ivon_settings plain = settings(), s = settings();
    init(&run, "out");
    switch (_i) {
    case 0:
        run.options.gradsq = s.gradsq = true;
        break;
    case 1:
        run.options.no_debias = true;
        s.debias = false;
        break;
    case 2:
        run.options.rescale_lr = s.rescale_lr = true;
        break;
    default:
        run.options.ess_b = s.groups[CR_IVON_GROUP_B].ess = 9e4;
        break;
    }
    cr_train_must(&run);
    read_step("out", &run_after);
    step_of_library("out", &s, run_after.grad, &with);
    step_of_library("out", &plain, run_after.grad, &without);
    size_t bytes = with.n * sizeof(float);
    ck_assert_uint_eq(run_after.n, with.n);
    ck_assert_mem_eq(run_after.mean, with.mean, bytes);
    ck_assert_mem_eq(run_after.hess, with.hess, bytes);
    ck_assert(memcmp(with.mean, without.mean, bytes) != 0 || memcmp(with.hess, without.hess, bytes) != 0);
}
END_TEST

static double norm_of(const struct after *after)
{
    double sum = 0;
    for (size_t i = 0; i < after->n; i++) {
        sum += (double)after->grad[i] * (double)after->grad[i];
    }
    return sqrt(sum);
}

static void run_clipped(const char *output, double max_norm, struct after *after)
{
    struct cr_train_run run;
    init(&run, output);
    run.options.mc_samples = 3;
    run.options.max_grad_norm = max_norm;
    cr_train_must(&run);
    read_step(output, after);
}

/* Of several samples the norm of the mean gradient decides, not the larger one of the samples. */
START_TEST(several_samples_are_clipped_by_their_mean)
{
    static struct after whole, above, below;
    run_clipped("whole", 0, &whole);
    double norm = norm_of(&whole);
    size_t bytes = whole.n * sizeof(float);
    run_clipped("above", 1.001 * norm, &above);
    ck_assert_mem_eq(above.grad, whole.grad, bytes);
    ck_assert_mem_eq(above.mean, whole.mean, bytes);
    ck_assert_mem_eq(above.hess, whole.hess, bytes);
    run_clipped("below", 0.25 * norm, &below);
    /* (norm + 1e-6) divides, and each number is rounded to f32 once more */
    ck_assert_double_eq_tol(norm_of(&below), 0.25 * norm, 0.25 * 1e-6 + 0x1p-22 * norm);
    ck_assert_mem_eq(below.hess, whole.hess, bytes); /* clipping is of the momentum alone */
    char *journal = cr_train_journal("whole");
    json_t *line = json_loads(journal, JSON_DISABLE_EOF_CHECK, NULL);
    ck_assert_double_gt(json_number_value(json_object_get(line, "grad_norm")), 1.01 * norm); /* of the samples */
    json_decref(line);
    cr_free(journal);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("ivon_train_fields");
    TCase *all = tcase_create("all");
    tcase_set_timeout(all, 120);
    tcase_add_checked_fixture(all, setup, cr_train_dir_drop);
    tcase_add_loop_test(all, options_reach_the_step, 0, 4);
    tcase_add_test(all, several_samples_are_clipped_by_their_mean);
    suite_add_tcase(suite, all);
    return cr_run_suite(suite);
}
