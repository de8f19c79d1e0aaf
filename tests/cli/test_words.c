/* Flags of one word: code asks for the word, and a word that the flag does not have ends the program. */
#include <check.h>
#include <signal.h>
#include <stdint.h>

#include "runtime/cli/args.h"
#include "tests/support/kernel_test.h"

static bool is_after(const char *flag, const char *value, enum cr_cli_option_id id, const char *word)
{
    struct cr_cli_args args = {0};
    struct cr_error err = {0};
    char *argv[] = {(char *)(uintptr_t) "finetune", (char *)(uintptr_t)flag, (char *)(uintptr_t)value, NULL};
    ck_assert_int_eq(cr_cli_args_parse(&args, "finetune", CR_CLI_FINETUNE, value == NULL ? 1 : 3, argv, &err), CR_OK);
    bool is = cr_cli_is(&args, id, word);
    cr_cli_args_deinit(&args);
    return is;
}

START_TEST(words)
{
    ck_assert(is_after("--on-long", "skip", CR_CLI_ON_LONG, "skip"));
    ck_assert(!is_after("--on-long", "cut", CR_CLI_ON_LONG, "skip"));
    ck_assert(is_after("--on-long", "cut", CR_CLI_ON_LONG, "cut"));
    ck_assert(!is_after("--keep", "best", CR_CLI_ON_LONG, "cut")); /* not given: no word, the default neither */
    ck_assert(is_after("--swag-schedule", "linear", CR_CLI_SWAG_SCHEDULE, "linear"));
}
END_TEST

/* Each ends by SIGABRT, so one a test: a word of another flag, a beginning of a word, a flag of a number. */
static const struct {
    const char *flag, *value;
    enum cr_cli_option_id id;
    const char *word;
} wrong[] = {
    {"--on-long", "skip", CR_CLI_ON_LONG, "best"},
    {NULL, NULL, CR_CLI_ON_LONG, "drop"},
    {"--on-long", "skip", CR_CLI_ON_LONG, "ski"},
    {"--rank", "4", CR_CLI_RANK, "4"},
};

START_TEST(no_word_of_the_flag)
{
    is_after(wrong[_i].flag, wrong[_i].value, wrong[_i].id, wrong[_i].word);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("words");
    TCase *tcase = tcase_create("words");
    tcase_add_test(tcase, words);
    tcase_add_loop_test_raise_signal(tcase, no_word_of_the_flag, SIGABRT, 0, (int)(sizeof wrong / sizeof *wrong));
    suite_add_tcase(suite, tcase);
    return cr_run_suite(suite);
}
