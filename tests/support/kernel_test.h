/* kernel_test: what every kernel test needs. Tiers to walk, guarded buffers, deterministic fills, bounded comparison.
 *
 * All functions end the running Check test with a message when something is wrong. Single-threaded use.
 * Environment: CREDENCE_CPU caps the walk, CREDENCE_TEST_REQUIRE=avx2,avx512 fails when one of those is not walked,
 * CREDENCE_TEST_TIERS=scalar,neon walks only these, CREDENCE_TEST_SEED replaces the seed (default 1),
 * CREDENCE_TEST_LIGHT=1 makes slow checks look at a sample (for emulated processors).
 */
#ifndef CR_TESTS_KERNEL_TEST_H
#define CR_TESTS_KERNEL_TEST_H

#include <check.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "credence/cpu.h"

/* Tiers this CPU can run, ascending, scalar first. Returns their number. */
enum { CR_TEST_TIERS = 10 };
size_t cr_test_tiers(enum cr_tier tiers[CR_TEST_TIERS]);

/* What CREDENCE_CPU caps this test to, for struct cr_host; NULL = nothing. */
const char *cr_test_cap(void);

/* Step of a loop over what a slow check looks at: 1, or `light` with CREDENCE_TEST_LIGHT=1. The kernels still compute
 * everything. Choose it without a common factor with the pattern of the data. */
size_t cr_test_every(size_t light);

/* Counter-based generator (splitmix64): the same stream on every machine. */
struct cr_rng {
    uint64_t state;
};
struct cr_rng cr_rng_make(uint64_t stream);
uint64_t cr_rng_next(struct cr_rng *rng);
uint32_t cr_rng_below(struct cr_rng *rng, uint32_t n);
float cr_rng_uniform(struct cr_rng *rng, float low, float high);
void cr_fill_f32(struct cr_rng *rng, float *out, size_t n, float low, float high);
void cr_fill_bf16(struct cr_rng *rng, uint16_t *out, size_t n, float low, float high);
void cr_fill_bytes(struct cr_rng *rng, void *out, size_t n_bytes);

/* A buffer between unreadable pages, filled with 0xff (NaN as f32, f16 and bf16). CR_AT_END: its last byte (rounded up
 * to `align`) lies before the unreadable page; CR_AT_START: its first byte lies behind one. The bytes between the
 * buffer and the pages hold canaries, checked by cr_guard_free. align is a power of two up to 4096. */
enum cr_guard_side { CR_AT_END, CR_AT_START };
void *cr_guard_alloc(size_t n_bytes, size_t align, enum cr_guard_side side);
/* Makes the pages of a buffer read-only (on) or writable again: a kernel that writes an input dies. */
void cr_guard_protect(void *buffer, bool on);
void cr_guard_free(void *buffer);
/* Frees every buffer still alive (and checks its canaries). */
void cr_guard_free_all(void);

/* 0xff in every byte. */
void cr_poison(void *out, size_t n_bytes);

/* Each |got - want| <= bound; NaN only where want is NaN. Reports the worst place. */
void cr_expect_within(const char *what, const float *got, const double *want, const double *bound, size_t n);
/* The same bits, except that any NaN equals any NaN. */
void cr_expect_same(const char *what, const float *got, const float *want, size_t n);
/* The same bytes. */
void cr_expect_bytes(const char *what, const void *got, const void *want, size_t n_bytes);

/* Runs a suite of one program: number of failures != 0 gives exit status 1; 77, a skip, where the CPU lacks the tier
 * of CREDENCE_CPU. */
int cr_run_suite(Suite *suite);

#endif
