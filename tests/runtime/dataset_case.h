/* dataset_case: data files of a directory of its own, opened with a tiny vocabulary. */
#ifndef CR_TESTS_DATASET_CASE_H
#define CR_TESTS_DATASET_CASE_H

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/core/alloc.h"
#include "runtime/data/dataset.h"
#include "tests/support/io_test.h"
#include "tests/support/tiny_vocab.h"

static char dir[] = "/tmp/credence-data-XXXXXX";
static char path[128];
static struct cr_tiny_vocab vocab;
static struct cr_dataset dataset;
static struct cr_error err;
static char logged[4096];

static inline void log_line(void *ctx, enum cr_log_level level, const char *line)
{
    (void)ctx;
    ck_assert_int_eq(level, CR_LOG_WARNING);
    ck_assert_uint_lt(strlen(logged) + strlen(line) + 2, sizeof logged);
    strcat(strcat(logged, line), "\n");
}

static const struct cr_host host = {.log = log_line};
static struct cr_dataset_options options = {.max_seq_length = 4000};

static inline void setup(void)
{
    ck_assert_ptr_nonnull(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/d.jsonl", dir);
    ck_assert(cr_tiny_vocab_open(&vocab, NULL));
    logged[0] = '\0';
    memset(&err, 0, sizeof err);
}

static inline void teardown(void)
{
    cr_dataset_close(&dataset);
    cr_tiny_vocab_close(&vocab);
    unlink(path);
    rmdir(dir);
    ck_assert_int_eq(cr_alloc_live(), 0);
}

static inline cr_status open_bytes(const void *data, size_t n)
{
    cr_test_put_file(path, data, n);
    cr_dataset_close(&dataset);
    return cr_dataset_open(path, vocab.tokenizer, &options, &host, &dataset, &err);
}

static inline cr_status open_text(const char *text)
{
    return open_bytes(text, strlen(text));
}

#endif
