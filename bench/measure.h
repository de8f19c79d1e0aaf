/* measure: the protocol of one entry.
 *
 * Every timed sample stands between two bursts of the unit that bounds the entry and of its level of memory; what is
 * kept of a sample is the ratio of its rate to the mean of the two, so that a neighbour who slows the machine slows
 * both. Samples whose brackets differ by more than 5 % in what bounds the entry are
 * dropped, unless too few would be left. Short runs are
 * repeated inside a sample until it lasts about a millisecond. The peer, where there is one, runs in turn, as often.
 */
#ifndef CR_BENCH_MEASURE_H
#define CR_BENCH_MEASURE_H

#include "bench/cr_bench.h"

#ifdef __cplusplus
extern "C" {
#endif

struct cr_bench_result {
    struct cr_bench_entry entry;
    size_t n_samples, n_dropped;                            /* of all and those that differed in their brackets */
    double seconds;                                         /* of one run, median; 0 = not timed */
    double peak_share, stream_share, share_p90, share_best; /* 0 = does not apply */
    double peer_seconds, onednn_ratio;                      /* medians; 0 = no peer */
    double cycles_per_item;
    char error[400]; /* why it could not be set up or is wrong; "" = fine */
};

struct cr_bench_run;

/* Sets up and verifies. NULL with a line in message when it fails. */
struct cr_bench_run *cr_bench_run_open(const struct cr_bench_entry *entry, char *message, size_t message_bytes);
void cr_bench_run_close(struct cr_bench_run *run); /* NULL is fine */

/* Warms up and finds how many runs make a sample; done once, later calls return the same number. */
size_t cr_bench_run_warm(struct cr_bench_run *run);

/* The three parts of one sample: calibrate, run, calibrate and let the peer run. */
void cr_bench_run_before(struct cr_bench_run *run);
void cr_bench_run_timed(struct cr_bench_run *run);
void cr_bench_run_after(struct cr_bench_run *run);

/* Statistics of all samples so far. */
void cr_bench_run_result(struct cr_bench_run *run, struct cr_bench_result *result);

#ifdef __cplusplus
}
#endif
#endif
