/* cr_bench: registering an entry of credence-bench from C.
 *
 * An entry is set up lazily (only when the filter selects it), verified against its reference, then timed. Every timed
 * run stands between two runs of a calibration loop of the matching unit; runs whose brackets differ by more than 5 %
 * are dropped. Counters: `flops` and `bytes_per_second` at the median time, `peak_share` = median over runs of our
 * rate / the rate of the calibration loop around it, `stream_share` the same against a memory stream, `onednn_ratio` =
 * median time of the peer / ours, both measured in turn.
 *
 * Names: family/direction/type/shape/tier, e.g. qgemm/fwd/q4_1/M1024_N2048_K2048/avx512_bf16.
 */
#ifndef CR_BENCH_H
#define CR_BENCH_H

#include <stdbool.h>
#include <stddef.h>

#include "credence/cpu.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What an entry is measured against. */
enum cr_bench_unit {
    CR_UNIT_NONE,
    CR_UNIT_FMA_AVX2,   /* f32 FMA on 256 bits */
    CR_UNIT_FMA_AVX512, /* f32 FMA on 512 bits */
    CR_UNIT_BF16,       /* VDPBF16PS on 512 bits */
    CR_UNITS
};

struct cr_bench_entry {
    char name[120];
    /* Returns the state of the entry (owned by the caller, given back to close), NULL when out of memory. */
    void *(*open)(const struct cr_bench_entry *entry);
    /* Compares with the reference; false and one line in message when it differs. */
    bool (*verify)(void *state, char *message, size_t message_bytes);
    void (*run)(void *state);
    /* The peer's product of the same shape; false when there is none. NULL = never. */
    bool (*peer)(void *state);
    void (*close)(void *state);
    double flops, bytes; /* of one run */
    enum cr_bench_unit unit;
    enum cr_tier tier;
    size_t shape[4]; /* for open: meaning is the family's */
    int type;
    bool flag;
};

/* Copies the entry. */
void cr_bench_register(const struct cr_bench_entry *entry);

/* Every family's registration for the tiers given (ascending); called by main. */
void cr_bench_qgemm(const enum cr_tier *tiers, size_t n_tiers);

/* Calibration: one burst of about a quarter of a millisecond; operations a second. 0 for CR_UNIT_NONE. */
double cr_bench_peak(enum cr_bench_unit unit);
/* Bytes a second of y = a * y + x over arrays far larger than the caches; 0 when out of memory. */
double cr_bench_stream(void);
/* Seconds of processor time of this thread: entries run on one thread, and neighbours' time is not theirs. */
double cr_bench_now(void);

/* oneDNN: C[m][n] = A[m][k] B[k][n] on one thread, weights packed beforehand. NULL when built without it or when the
 * type is not supported. */
struct cr_onednn;
struct cr_onednn *cr_onednn_open(size_t m, size_t n, size_t k, bool bf16);
void cr_onednn_run(struct cr_onednn *product);
void cr_onednn_close(struct cr_onednn *product);

#ifdef __cplusplus
}
#endif
#endif
