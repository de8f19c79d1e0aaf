/* method_test: what runs of cr_finetune (train_test.h) left behind, looked at by tests of their methods. Every failure
 * is the test's.
 */
#ifndef CR_TESTS_METHOD_TEST_H
#define CR_TESTS_METHOD_TEST_H

#include "runtime/io/checkpoint.h"
#include "runtime/posterior/posterior.h"

/* The checkpoint of a step of dir/output; close it. */
void cr_method_step(const char *output, int step, struct cr_checkpoint *out);

/* Floats of a section, which must be there; n, their number, may be NULL. */
const float *cr_method_section(const struct cr_checkpoint *checkpoint, uint32_t kind, size_t *n);

/* The posterior of dir/name. Returns owned. */
struct cr_posterior *cr_method_open(const char *name);

/* Posterior and adapter files of two outputs are equal. */
void cr_method_same(const char *a, const char *b);

/* NLL on other.jsonl of dir/adapter: `samples` draws at that temperature (each 0: as the method has it), or its mean
 * where the temperature is negative. */
double cr_method_nll(const char *adapter, uint32_t samples, double temperature, size_t *n_members);

#endif
