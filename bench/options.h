/* options: the flags of credence-bench. What begins with --benchmark_ is Google Benchmark's. */
#ifndef CR_BENCH_OPTIONS_H
#define CR_BENCH_OPTIONS_H

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

struct cr_bench_options {
    const char *cpu;    /* cap by name: flag, else CREDENCE_CPU; NULL = none */
    const char *report; /* HTML file to write; NULL = none */
    int threads;        /* 1 unless given */
    bool tour, smoke, peaks, list, json_on_stdout;
    int argc; /* arguments for Google Benchmark */
    char **argv;
    char command[1000]; /* the whole line, for the report */
};

/* Fills *options; it keeps pointers into argv. Returns -1 to go on, else the exit status: 0 after --help, 2 after a
 * wrong flag, both with something printed. */
int cr_bench_options_parse(struct cr_bench_options *options, int argc, char **argv);

#ifdef __cplusplus
}
#endif
#endif
