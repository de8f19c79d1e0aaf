/* options: own flags are taken out, short spellings become Google Benchmark's. */
#include "bench/options.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/thread/parallel.h"

enum { MAX_THREADS = 256, MAX_ARGUMENTS = 64 };

static const char usage[] =
    "usage: credence-bench [FLAGS]\n"
    "\n"
    "Times every kernel of this library against the peak of this machine, measured in the same run.\n"
    "\n"
    "  --filter REGEX    entries whose name matches, -REGEX those that do not; names are\n"
    "                    family/operation/type/shape/tier; the same as --benchmark_filter=REGEX\n"
    "  --list            print the names instead of running\n"
    "  --tour            the selection of about five minutes\n"
    "  --smoke           verify the smallest entry of every kind, time nothing\n"
    "  --threads N       run over the runtime's parallel loop on N threads, 0 = all (default 1)\n"
    "  --cpu TIER        no tier above this one (also: CREDENCE_CPU)\n"
    "  --min-time S      seconds that an entry is timed at least\n"
    "  --json FILE       results as JSON as well, - = on standard output and nothing else there\n"
    "  --report FILE     a page with a roofline and a table\n"
    "  --peaks           print what this machine's units reach, and stop\n"
    "  --benchmark_...   any flag of Google Benchmark\n";

static char words[MAX_ARGUMENTS][4096]; /* arguments made here; some versions of Google Benchmark keep pointers */
static char *arguments[MAX_ARGUMENTS + 1];
static int n_arguments;

static bool pass(const char *flag, const char *value)
{
    if (n_arguments == MAX_ARGUMENTS || strlen(flag) + strlen(value) >= sizeof words[0]) {
        fprintf(stderr, "credence-bench: too many or too long arguments\n");
        return false;
    }
    snprintf(words[n_arguments], sizeof words[0], "%s%s", flag, value);
    arguments[n_arguments] = words[n_arguments];
    n_arguments++;
    return true;
}

/* -1, or 2 when value is no number of threads. */
static int set_threads(struct cr_bench_options *o, const char *value)
{
    char *end;
    long n = strtol(value, &end, 10);
    if (*value == '\0' || *end != '\0' || n < 0 || n > MAX_THREADS) {
        fprintf(stderr, "credence-bench: --threads %s: expected 0 to %d\n", value, MAX_THREADS);
        return 2;
    }
    o->threads = n > 0 ? (int)n : cr_thread_count(0);
    o->threads = o->threads > MAX_THREADS ? MAX_THREADS : o->threads;
    return -1;
}

/* -1 when the flag was known, 2 when its value was wrong or missing, 1 when it is not one of these. */
static int set_valued(struct cr_bench_options *o, const char *flag, const char *value)
{
    static const char *const flags[] = {"--filter", "--min-time", "--json", "--report", "--threads", "--cpu"};
    size_t which = 0;
    while (which < sizeof flags / sizeof flags[0] && strcmp(flag, flags[which]) != 0) {
        which++;
    }
    if (which == sizeof flags / sizeof flags[0]) {
        return 1;
    }
    if (value == NULL) {
        fprintf(stderr, "credence-bench: %s needs a value\n", flag);
        return 2;
    }
    switch (which) {
    case 0:
        return pass("--benchmark_filter=", value) ? -1 : 2;
    case 1:
        return pass("--benchmark_min_time=", value) ? -1 : 2;
    case 2:
        if (strcmp(value, "-") == 0) {
            o->json_on_stdout = true;
            return pass("--benchmark_format=", "json") ? -1 : 2;
        }
        return pass("--benchmark_out=", value) && pass("--benchmark_out_format=", "json") ? -1 : 2;
    case 3:
        o->report = value;
        return -1;
    case 4:
        return set_threads(o, value);
    default:
        o->cpu = value;
        return -1;
    }
}

static bool set_plain(struct cr_bench_options *o, const char *flag)
{
    bool *const fields[] = {&o->tour, &o->smoke, &o->peaks, &o->list};
    static const char *const flags[] = {"--tour", "--smoke", "--peaks", "--list"};
    for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++) {
        if (strcmp(flag, flags[i]) == 0) {
            *fields[i] = true;
            return true;
        }
    }
    return false;
}

/* One flag at argv[*i], --flag VALUE or --flag=VALUE; as set_valued. */
static int set_flag(struct cr_bench_options *o, int argc, char **argv, int *i)
{
    char flag[32];
    const char *equals = strchr(argv[*i], '='), *value = equals != NULL ? equals + 1 : NULL;
    size_t length = equals != NULL ? (size_t)(equals - argv[*i]) : strlen(argv[*i]);
    if (length >= sizeof flag || (equals == NULL && set_plain(o, argv[*i]))) {
        return length >= sizeof flag ? 1 : -1;
    }
    memcpy(flag, argv[*i], length);
    flag[length] = '\0';
    bool next = value == NULL && *i + 1 < argc;
    int status = set_valued(o, flag, next ? argv[*i + 1] : value);
    *i += status == -1 && next;
    return status;
}

static void join(char *out, size_t n_bytes, int argc, char **argv)
{
    size_t used = 0;
    for (int i = 0; i < argc && used < n_bytes; i++) {
        int n = snprintf(out + used, n_bytes - used, "%s%s", i > 0 ? " " : "", argv[i]);
        used += n > 0 ? (size_t)n : 0;
    }
}

int cr_bench_options_parse(struct cr_bench_options *o, int argc, char **argv)
{
    *o = (struct cr_bench_options){.cpu = getenv("CREDENCE_CPU"), .threads = 1, .argv = arguments};
    join(o->command, sizeof o->command, argc, argv);
    if (!pass(argc > 0 ? argv[0] : "credence-bench", "")) {
        return 2;
    }
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            fputs(usage, stdout);
            return 0;
        }
        int status = set_flag(o, argc, argv, &i);
        if (status == 1 && !pass(argv[i], "")) {
            status = 2;
        }
        if (status == 2) {
            return 2;
        }
        o->list = o->list || strcmp(argv[i], "--benchmark_list_tests") == 0 ||
                  strcmp(argv[i], "--benchmark_list_tests=true") == 0;
    }
    bool good =
        (!o->list || pass("--benchmark_list_tests=", "true")) && (!o->smoke || pass("--benchmark_min_time=", "0"));
    o->argc = n_arguments;
    return good ? -1 : 2;
}
