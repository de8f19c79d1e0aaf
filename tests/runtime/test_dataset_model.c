/* Choices with the vocabulary of SmolLM2 against reference prompts and label tokens. Skipped without the model:
 * CREDENCE_TEST_MODEL, else the demo's cache. */
#include <check.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/data/dataset.h"
#include "runtime/io/gguf.h"
#include "tests/support/kernel_test.h"
#include "tests/support/model_file.h"

START_TEST(choices_match_the_reference)
{
    char path[] = "/tmp/credence-choices-XXXXXX";
    struct cr_error err = {0};
    struct cr_gguf *gguf = NULL;
    struct cr_tokenizer *tokenizer = NULL;
    struct cr_dataset dataset = {0};
    const struct cr_dataset_options options = {.max_seq_length = 2048};
    const char *lines =
        "{\"question\":\"@anonymous LOVE that!\",\"choices\":[\"negative\",\"positive\"],\"answer\":1}\n"
        "{\"question\":\"worst service ever, never again\",\"choices\":[\"negative\",\"positive\"],"
        "\"answer\":\"A\"}\n"
        "{\"question\":\"q\",\"choices\":[\"1\",\"2\",\"3\",\"4\",\"5\"],\"answer\":4}\n";
    int fd = mkstemp(path);
    ck_assert_int_eq(write(fd, lines, strlen(lines)), (ssize_t)strlen(lines));
    close(fd);
    json_t *golden = json_load_file(CR_TEST_DATA "/smollm2_choices.json", 0, NULL);
    ck_assert_ptr_nonnull(golden);
    ck_assert_msg(cr_gguf_open(cr_test_model_path(), &gguf, &err) == CR_OK, "%s", err.message);
    ck_assert_msg(cr_tokenizer_open(gguf, &tokenizer, &err) == CR_OK, "%s", err.message);
    cr_status status = cr_dataset_open(path, tokenizer, &options, NULL, &dataset, &err);
    unlink(path);
    ck_assert_msg(status == CR_OK, "%s", err.message);
    for (size_t i = 0; i < 2; i++) {
        const char *text = json_string_value(json_array_get(json_object_get(golden, "texts"), i));
        struct cr_ids ids = {0};
        ck_assert_int_eq(cr_tokenize(tokenizer, text, strlen(text), 0, &ids, NULL, &err), CR_OK);
        ck_assert_uint_eq(dataset.examples[i].n_ids, ids.n);
        ck_assert_mem_eq(dataset.examples[i].ids, ids.ids, ids.n * sizeof *ids.ids);
        ck_assert_int_eq(dataset.examples[i].answer,
                         json_integer_value(json_array_get(json_object_get(golden, "answers"), i)));
        cr_ids_deinit(&ids);
    }
    ck_assert_uint_eq(dataset.n_labels, 5);
    for (size_t i = 0; i < 5; i++) {
        ck_assert_int_eq(dataset.label_ids[i],
                         json_integer_value(json_array_get(json_object_get(golden, "label_ids_A_to_E"), i)));
    }
    cr_dataset_close(&dataset);
    cr_tokenizer_close(tokenizer);
    cr_gguf_close(gguf);
    json_decref(golden);
}
END_TEST

int main(void)
{
    if (!cr_test_model_present()) {
        printf("SKIP: %s is not there\n", cr_test_model_path());
        return 77;
    }
    Suite *suite = suite_create("dataset_model");
    TCase *tcase = tcase_create("dataset_model");
    suite_add_tcase(suite, tcase);
    tcase_add_test(tcase, choices_match_the_reference);
    return cr_run_suite(suite);
}
