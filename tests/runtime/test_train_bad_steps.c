/* Steps whose loss is not a finite number: the first is skipped, the second in a row halves the learning rate, the
 * third ends the run. */
#include <check.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/data/batch.h"
#include "runtime/io/gguf.h"
#include "tests/support/kernel_test.h"
#include "tests/support/train_test.h"

enum { N_EXAMPLES = 10, BAD_TOKEN = '~', BLOCK_BYTES = 34, SCALE_BYTES = 2 };

/* A file with numbers that are not finite is refused, so one overflows: feature 0 is zero in the embedding of every
 * token but '~', where it is all there is, and the first layer's norm multiplies it by nearly the largest float. Rows
 * are Q8_0 blocks: a scale (f16) and 32 quants. Byte tokens are their own ids. */
static void spoil_model(void)
{
    size_t n;
    uint8_t *data = cr_train_bytes("model.gguf", &n);
    struct cr_gguf *gguf = NULL;
    struct cr_error err = {0};
    ck_assert_msg(cr_gguf_parse(data, n, "model.gguf", &gguf, &err) == CR_OK, "%s", err.message);
    const struct cr_gguf_tensor *embedding = cr_gguf_tensor_find(gguf, "token_embd.weight");
    const struct cr_gguf_tensor *norm = cr_gguf_tensor_find(gguf, "blk.0.attn_norm.weight");
    ck_assert(embedding != NULL && norm != NULL);
    size_t row_bytes = embedding->bytes / embedding->ne[1];
    uint8_t *rows = data + cr_gguf_data_offset(gguf) + embedding->offset;
    for (size_t row = 0; row < embedding->ne[1]; row++) {
        rows[row * row_bytes + SCALE_BYTES] = 0;
    }
    uint8_t *bad = rows + BAD_TOKEN * row_bytes;
    for (size_t i = 0; i < row_bytes; i++) {
        if (i % BLOCK_BYTES >= SCALE_BYTES) {
            bad[i] = i == SCALE_BYTES ? 100 : 0;
        }
    }
    float huge = 3e38f;
    memcpy(data + cr_gguf_data_offset(gguf) + norm->offset, &huge, sizeof huge);
    cr_gguf_close(gguf);
    cr_train_write("model.gguf", data, n);
    cr_free(data);
}

/* Ten examples of which the first n_bad hold the token. */
static void put_examples(int n_bad)
{
    char text[N_EXAMPLES * 80];
    size_t used = 0;
    for (int i = 0; i < N_EXAMPLES; i++) {
        used += (size_t)snprintf(text + used, sizeof text - used,
                                 "{\"question\":\"number %d%s\",\"choices\":[\"left\",\"right\"],\"answer\":%d}\n", i,
                                 i < n_bad ? "~" : "", i & 1);
    }
    cr_train_write("choices.jsonl", text, used);
}

/* A seed whose first epoch has examples 0 and 1 side by side (or not), one example a step. */
static uint64_t seed_of_order(bool side_by_side)
{
    uint32_t pool[N_EXAMPLES], order[N_EXAMPLES];
    for (uint32_t i = 0; i < N_EXAMPLES; i++) {
        pool[i] = i;
    }
    for (uint64_t seed = 0;; seed++) {
        ck_assert_uint_lt(seed, 1000);
        int at[2] = {0, 0};
        cr_epoch_order(pool, N_EXAMPLES, seed, 0, order);
        for (int i = 0; i < N_EXAMPLES; i++) {
            if (order[i] < 2) {
                at[order[i]] = i;
            }
        }
        /* not at the end, so that good steps follow */
        if ((abs(at[0] - at[1]) == 1) == side_by_side && at[0] < N_EXAMPLES - 1 && at[1] < N_EXAMPLES - 1) {
            return seed;
        }
    }
}

static void init(struct cr_train_run *run, const char *output, uint64_t seed)
{
    cr_train_run_init(run, output);
    run->options.no_valid = true;
    run->options.batch_size = 1;
    run->options.report_every = 1;
    run->options.save_every = 1;
    run->options.lr_schedule = CR_LR_CONSTANT;
    run->options.seed = seed;
}

static double last_rate(const char *output)
{
    char *journal = cr_train_journal(output);
    char *last = journal + strlen(journal) - 1;
    while (last > journal && last[-1] != '\n') {
        last--;
    }
    json_t *line = json_loads(last, 0, NULL);
    double rate = json_real_value(json_object_get(line, "lr"));
    json_decref(line);
    cr_free(journal);
    return rate;
}

static void check_counts(const char *summary_path, json_int_t skipped, json_int_t halvings)
{
    json_t *summary = json_load_file(cr_train_path(summary_path), 0, NULL);
    ck_assert_int_eq(json_integer_value(json_object_get(summary, "skipped_steps")), skipped);
    ck_assert_int_eq(json_integer_value(json_object_get(summary, "lr_halvings")), halvings);
    json_decref(summary);
}

START_TEST(one_bad_step_is_skipped)
{
    spoil_model();
    put_examples(2);
    struct cr_train_run run;
    init(&run, "out", seed_of_order(false));
    cr_train_must(&run);
    ck_assert_int_eq(run.n_warnings, 2);
    ck_assert_ptr_nonnull(strstr(run.last_warning, "skipped: the loss is ")); /* nan or -nan */
    ck_assert_uint_eq(run.result.steps, N_EXAMPLES);
    check_counts("out/summary.json", 2, 0);
    ck_assert_double_eq(last_rate("out"), run.options.lr);
}
END_TEST

START_TEST(two_in_a_row_halve_the_rate)
{
    spoil_model();
    put_examples(2);
    struct cr_train_run run;
    init(&run, "whole", seed_of_order(true));
    cr_train_must(&run);
    ck_assert_ptr_nonnull(strstr(run.last_warning, "halved"));
    check_counts("whole/summary.json", 2, 1);
    ck_assert_double_eq(last_rate("whole"), run.options.lr / 2);

    /* A run that is stopped after every step goes on with the halved rate. */
    init(&run, "cut", seed_of_order(true));
    run.stop_at = 1;
    cr_status status = cr_train_run_go(&run);
    run.options.resume = true;
    for (int i = 0; status == CR_E_STOPPED && i < 2 * N_EXAMPLES; i++) {
        status = cr_train_run_go(&run);
    }
    ck_assert_msg(status == CR_OK, "%s", run.err.message);
    cr_train_same_outputs("whole", "cut");
}
END_TEST

START_TEST(three_in_a_row_end_the_run)
{
    spoil_model();
    put_examples(N_EXAMPLES);
    struct cr_train_run run;
    init(&run, "out", 1);
    cr_train_must_fail(&run, CR_E_DIVERGED, "at step 3: the loss is");
    ck_assert(!cr_train_exists("out/adapter.gguf"));
}
END_TEST

START_TEST(divergence)
{
    struct cr_train_run run;
    cr_train_run_init(&run, "out");
    run.options.steps = 40;
    run.options.lr = 9e5;
    run.options.weight_decay = 1e3; /* every step multiplies the weights by nine hundred million */
    run.options.max_grad_norm = 0;
    cr_train_must_fail(&run, CR_E_DIVERGED, "last finite checkpoint");
    ck_assert(!cr_train_exists("out/adapter.gguf"));
    ck_assert(!cr_train_exists("out/summary.json"));
    ck_assert(cr_train_exists("out/checkpoints"));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("bad steps");
    TCase *all = tcase_create("all");
    tcase_add_checked_fixture(all, cr_train_dir_make, cr_train_dir_drop);
    tcase_set_timeout(all, 120);
    tcase_add_test(all, one_bad_step_is_skipped);
    tcase_add_test(all, two_in_a_row_halve_the_rate);
    tcase_add_test(all, three_in_a_row_end_the_run);
    tcase_add_test(all, divergence);
    suite_add_tcase(suite, all);
    return cr_run_suite(suite);
}
