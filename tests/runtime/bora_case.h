/* bora_case: whole runs with method bora over questions whose tasks go around. */
#ifndef CR_TESTS_BORA_CASE_H
#define CR_TESTS_BORA_CASE_H

#include <check.h>

#include "runtime/core/buf.h"
#include "tests/support/train_test.h"

enum { STEPS = 9, N_LINES = 24 };

/* Questions whose tasks go around; `only` leaves out the other tasks, `flipped` answers one otherwise. */
static inline void put_choices(const char *name, int n_tasks, int only, int flipped)
{
    struct cr_buf buf = {0};
    for (int i = 0; i < N_LINES; i++) {
        int task = i % n_tasks, answer = (i / 2 + (task == flipped)) % 2;
        if (only < 0 || task == only) {
            cr_buf_printf(&buf, "{\"question\":\"%.*s %d\",\"choices\":[\"a\",\"b\"],\"answer\":%d,\"task\":\"t%d\"}\n",
                          3 + i * 7 % 20, "some words to be looked at here", i, answer, task);
        }
    }
    cr_train_write(name, buf.data, buf.n);
    cr_buf_free(&buf);
}

static inline void put_texts(const char *name)
{
    struct cr_buf buf = {0};
    for (int i = 0; i < N_LINES; i++) {
        cr_buf_printf(&buf, "{\"text\":\"number %d of the %.*s\",\"task\":\"t%d\"}\n", i, i * 5 % 13, "long long list",
                      i % 3);
    }
    cr_train_write(name, buf.data, buf.n);
    cr_buf_free(&buf);
}

/* Texts of 8, 16 and 32 target tokens, by task. */
static inline void put_powers(const char *name)
{
    struct cr_buf buf = {0};
    for (int i = 0; i < N_LINES; i++) {
        cr_buf_printf(&buf, "{\"text\":\"%.*s\",\"task\":\"t%d\"}\n", 8 << i % 3,
                      &"manywordsthatgoonwithoutanyblankbetweenthemsoalltokensarebytes"[i], i % 3);
    }
    cr_train_write(name, buf.data, buf.n);
    cr_buf_free(&buf);
}

static inline void full_init(struct cr_train_run *run, const char *output, const char *data)
{
    struct cr_finetune_options own;
    ck_assert_int_eq(cr_finetune_options_for(&own, "bora", NULL, NULL), CR_OK);
    cr_train_full_init(run, output);
    run->options.method = "bora";
    run->options.max_grad_norm = own.max_grad_norm;
    run->options.data = cr_train_kept(data);
    run->options.tau = 3;
    run->options.save_every = 1;
    run->options.keep_checkpoints = 20;
    run->options.report_every = 1;
}

#endif
