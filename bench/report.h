/* report: the results as one self-contained page, and the peaks as lines of text. */
#ifndef CR_BENCH_REPORT_H
#define CR_BENCH_REPORT_H

#include "bench/measure.h"

#ifdef __cplusplus
extern "C" {
#endif

struct cr_bench_report {
    const struct cr_cpu *cpu;
    enum cr_tier tier; /* highest one timed */
    const char *command;
    const struct cr_bench_result *results;
    size_t n_results;
};

/* False with a line on standard error when the file cannot be written; the file is replaced at once or not at all. */
bool cr_bench_report_write(const struct cr_bench_report *report, const char *path);

/* Every unit of this CPU, one a line: name, operations or bytes a second. */
void cr_bench_print_peaks(void);

#ifdef __cplusplus
}
#endif
#endif
