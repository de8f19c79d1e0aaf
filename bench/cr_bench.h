/* cr_bench: what a bench_<family>.c needs: registering entries, memory, inputs, comparison, the parallel loop.
 *
 * bench_<family>.c defines cr_bench_<family>(), which registers an entry for every tier, type and shape; main calls it
 * because of the file's name. An entry is set up only when it is selected, verified against its definition in double,
 * then timed by the protocol of measure.h.
 *
 * Names: family/operation/type/shape/tier, e.g. qgemm/fwd/q4_1/M1024_N2048_K2048/avx512_bf16.
 * Counters: `flops` and `bytes_per_second` at the median time, `peak_share` = our rate over that of the unit,
 * `stream_share` = our bytes a second over those of a plain loop on arrays of that level of memory, `onednn_ratio` =
 * our speed over oneDNN's, `share_p90` and `share_best` of the first share given, `items_per_second` and
 * `cycles_per_item` of entries that make items.
 */
#ifndef CR_BENCH_H
#define CR_BENCH_H

#include <stdbool.h>
#include <stddef.h>

#include "bench/units.h"
#include "credence/cpu.h"
#include "credence/parallel.h"

#ifdef __cplusplus
extern "C" {
#endif

struct cr_bench_entry {
    char name[120];
    /* Returns the state of the entry; its memory is best taken from cr_bench_memory. NULL = cannot be set up. */
    void *(*open)(const struct cr_bench_entry *entry);
    /* Compares with the definition; false and one line in message when it differs. */
    bool (*verify)(void *state, char *message, size_t message_bytes);
    void (*run)(void *state);
    /* The peer's product of the same shape; false when there is none. NULL = never. */
    bool (*peer)(void *state);
    void (*close)(void *state); /* NULL when all of the state is cr_bench_memory */
    double flops, bytes;        /* of one run: arithmetic, and bytes read and written once each */
    double items;               /* of one run: normals, weights, parameters; 0 = nothing to count */
    double work;                /* of one run in operations of `unit`; 0 = flops */
    enum cr_bench_unit unit;    /* that computes; CR_UNIT_NONE = arithmetic does not bound it */
    enum cr_bench_unit memory;  /* CR_UNIT_L1 ... CR_UNIT_DRAM: level of its arrays; CR_UNIT_NONE = not bound by it */
    enum cr_tier tier;
    size_t shape[6]; /* for open: meaning is the family's, as of type and flag */
    int type;
    bool flag;
    bool tour; /* part of the selection of about five minutes */
};

/* Every family's registration for the tiers given (ascending), called by main: one CR_FAMILY(name) a bench_<name>.c,
 * listed by the build. */
#define CR_FAMILY(name) void cr_bench_##name(const enum cr_tier *tiers, size_t n_tiers);
#include "families.inc"
#undef CR_FAMILY

/* Copies the entry. */
void cr_bench_register(const struct cr_bench_entry *entry);

/* Zeroed, 64-byte aligned, freed after the entry's close. Never NULL: without memory the program ends. */
void *cr_bench_memory(size_t n_bytes);

/* Runs fn(arg, begin, end, worker) over [0, n) in calls of at most `grain`: on one thread in one call, else over the
 * runtime's parallel loop with cr_bench_threads() workers, each with a scratch of its own. */
void cr_bench_over(cr_task_fn *fn, void *arg, size_t n, size_t grain);
int cr_bench_threads(void);

/* The tiers whose table differs from that of the tier before, ascending; returns their number, at most n_tiers. table
 * writes the family's functions at a tier to out: table_bytes that hold nothing else. */
size_t cr_bench_tiers(enum cr_tier *out, const enum cr_tier *tiers, size_t n_tiers,
                      void (*table)(enum cr_tier tier, void *out), size_t table_bytes);
enum { CR_BENCH_TIERS = 32 };

/* Arithmetic of one lanes_exp: what an exponential counts in `flops`. */
enum { CR_BENCH_EXP_FLOPS = 20 };

/* oneDNN: C[m][n] = A[m][k] B[k][n], weights packed beforehand, on cr_bench_threads() threads. NULL when built without
 * it or when the type is not supported. */
struct cr_onednn;
struct cr_onednn *cr_onednn_open(size_t m, size_t n, size_t k, bool bf16);
void cr_onednn_run(struct cr_onednn *product);
void cr_onednn_close(struct cr_onednn *product);
/* "oneDNN 2.6.3", or "none". Static storage. */
const char *cr_onednn_name(void);

#ifdef __cplusplus
}
#endif
#endif
