#include "tests/support/cross/check.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MAX_TESTS = 64 };

struct test {
    TFun *fn;
    const char *name;
    int signal, begin, end;
    bool is_loop;
};

struct TCase {
    const char *name;
    TCase *next;
    struct test tests[MAX_TESTS];
    size_t n_tests;
};

struct Suite {
    const char *name;
    TCase *first;
};

struct SRunner {
    Suite *suite;
    int n_run, n_failed;
};

static void *take(size_t n_bytes)
{
    void *p = calloc(1, n_bytes);
    if (p == NULL) {
        fprintf(stderr, "no memory for the tests\n");
        exit(2);
    }
    return p;
}

Suite *suite_create(const char *name)
{
    Suite *suite = take(sizeof *suite);
    suite->name = name;
    return suite;
}

void suite_add_tcase(Suite *suite, TCase *tcase)
{
    TCase **link = &suite->first;
    while (*link != NULL) {
        link = &(*link)->next;
    }
    *link = tcase;
}

TCase *tcase_create(const char *name)
{
    TCase *tcase = take(sizeof *tcase);
    tcase->name = name;
    return tcase;
}

void tcase_set_timeout(TCase *tcase, double seconds)
{
    (void)tcase;
    (void)seconds;
}

void cr_cross_add(TCase *tcase, TFun *fn, const char *name, int signal, int begin, int end, int is_loop)
{
    if (tcase->n_tests == MAX_TESTS) {
        fprintf(stderr, "more than %d tests in %s\n", MAX_TESTS, tcase->name);
        exit(2);
    }
    tcase->tests[tcase->n_tests++] = (struct test){fn, name, signal, begin, end, is_loop != 0};
}

void cr_cross_fail(const char *file, int line, const char *format, ...)
{
    va_list args;
    printf("%s:%d: ", file, line);
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    printf("\n");
    fflush(stdout);
    _exit(1);
}

/* Whether one test ended as it should. */
static bool run_one(const struct test *test, int i)
{
    fflush(NULL);
    pid_t child = fork();
    if (child < 0) {
        perror("fork");
        return false;
    }
    if (child == 0) {
        if (test->signal != 0) { /* a crash that is wanted leaves no core file */
            setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
        }
        test->fn(i);
        fflush(NULL);
        _exit(0);
    }
    int status;
    while (waitpid(child, &status, 0) != child) {
    }
    int signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    if (signal != test->signal) {
        printf("ended by signal %d, expected %d\n", signal, test->signal);
        return false;
    }
    return signal != 0 || WEXITSTATUS(status) == 0;
}

SRunner *srunner_create(Suite *suite)
{
    SRunner *runner = take(sizeof *runner);
    runner->suite = suite;
    return runner;
}

void srunner_run_all(SRunner *runner, enum print_output mode)
{
    (void)mode;
    const char *fork_mode = getenv("CK_FORK");
    bool forks = fork_mode == NULL || strcmp(fork_mode, "no") != 0;
    for (TCase *tcase = runner->suite->first; tcase != NULL; tcase = tcase->next) {
        for (size_t t = 0; t < tcase->n_tests; t++) {
            const struct test *test = &tcase->tests[t];
            for (int i = test->begin; i < test->end; i++) {
                if (!forks && test->signal == 0) {
                    test->fn(i);
                } else if (forks && !run_one(test, i)) {
                    printf("FAILED %s: %s", tcase->name, test->name);
                    printf(test->is_loop ? " %d\n" : "\n", i);
                    runner->n_failed++;
                }
                runner->n_run++;
            }
        }
    }
    printf("%s: %d tests, %d failed\n", runner->suite->name, runner->n_run, runner->n_failed);
    fflush(stdout);
}

int srunner_ntests_failed(const SRunner *runner)
{
    return runner->n_failed;
}

void srunner_free(SRunner *runner)
{
    while (runner->suite->first != NULL) {
        TCase *next = runner->suite->first->next;
        free(runner->suite->first);
        runner->suite->first = next;
    }
    free(runner->suite);
    free(runner);
}
