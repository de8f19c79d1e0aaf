#include "tests/support/method_test.h"

#include <check.h>
#include <stdio.h>

#include "runtime/posterior/method.h"
#include "tests/support/kernel_test.h"
#include "tests/support/train_test.h"

void cr_method_step(const char *output, int step, struct cr_checkpoint *out)
{
    char name[300];
    snprintf(name, sizeof name, "%s/checkpoints/step-%08d.cck", output, step);
    ck_assert_int_eq(cr_checkpoint_open(cr_train_path(name), out, NULL), CR_OK);
}

const float *cr_method_section(const struct cr_checkpoint *checkpoint, uint32_t kind, size_t *n)
{
    const struct cr_checkpoint_section *found = cr_checkpoint_find(checkpoint, kind);
    ck_assert_ptr_nonnull(found);
    if (n != NULL) {
        *n = found->bytes / sizeof(float);
    }
    return found->data;
}

struct cr_posterior *cr_method_open(const char *name)
{
    struct cr_posterior *posterior = NULL;
    struct cr_error err = {0};
    ck_assert_msg(cr_posterior_open(cr_train_kept(name), NULL, false, NULL, CR_TIER_SCALAR, &posterior, &err) == CR_OK,
                  "%s", err.message);
    return posterior;
}

void cr_method_same(const char *a, const char *b)
{
    static const char *const names[] = {CR_POSTERIOR_FILE};
    cr_train_same_files(a, b, names, 1);
    cr_train_same_outputs(a, b);
}

double cr_method_nll(const char *adapter, uint32_t samples, double temperature, size_t *n_members)
{
    struct cr_eval_options o;
    struct cr_eval_result result = {0};
    struct cr_error err = {0};
    cr_eval_options_init(&o);
    o.model = cr_train_kept("model.gguf");
    o.data = cr_train_kept("other.jsonl");
    o.adapter = cr_train_kept(adapter);
    o.samples = samples;
    o.mean = temperature < 0;
    o.posterior_temperature = temperature < 0 ? 0 : temperature;
    struct cr_host host = {.n_threads = 1, .cpu_cap = cr_test_cap()};
    ck_assert_msg(cr_eval(&o, &host, &result, &err) == CR_OK, "%s", err.message);
    *n_members = result.n_members;
    double nll = result.all.nll;
    cr_eval_result_deinit(&result);
    return nll;
}
