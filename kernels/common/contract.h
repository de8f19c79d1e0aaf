/* contract: the checks behind the checked entries of all families.
 *
 * A cr_contract collects the first violation of one call: the functions below do nothing once it has failed, so an
 * entry is a list of checks and then the call. The message says entry, argument, value found and value expected.
 * Nothing is read but the arguments and, where said, what describes shapes.
 */
#ifndef CR_COMMON_CONTRACT_H
#define CR_COMMON_CONTRACT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "credence/kernels/qgemm.h"
#include "credence/kernels/tl16.h"
#include "credence/status.h"

/* The largest dimension of a call. 2^40 with 64-bit sizes: times 256 ranks and 64-byte lines it still fits. */
#define CR_DIMENSION_MAX (SIZE_MAX >> 24)

struct cr_contract {
    const char *entry; /* "qgemm fwd" */
    struct cr_error *err;
    cr_status status;
};

/* A table, its function and the arguments are there, and begin <= end. */
struct cr_contract cr_contract_open(const char *entry, const void *ops, const void *args, size_t begin, size_t end,
                                    struct cr_error *err);

/* The entry needs this to hold; `text` says what was expected of the argument. */
void cr_contract_that(struct cr_contract *c, bool holds, const char *argument, const char *text);

/* found >= least, both in the unit that the argument's name tells. */
void cr_contract_at_least(struct cr_contract *c, size_t found, size_t least, const char *argument);
void cr_contract_at_most(struct cr_contract *c, size_t found, size_t most, const char *argument);

/* Not NULL. */
void cr_contract_pointer(struct cr_contract *c, const void *pointer, const char *argument);

/* A dimension: at least 1, and so small that products with sizes of lines cannot overflow. */
void cr_contract_dimension(struct cr_contract *c, size_t value, const char *argument);

/* end <= limit; both bounds multiples of step, or end the limit. */
void cr_contract_range(struct cr_contract *c, size_t begin, size_t end, size_t step, size_t limit);

/* Elements of vectors in chunks: begin a multiple of one. The last chunk may be short and only the caller knows where
 * the vectors end, so `end` is free up to what a stream of noise can number. */
void cr_contract_elements(struct cr_contract *c, size_t begin, size_t end, size_t chunk);

/* Finite once it has been rounded to f32: half a unit beyond the largest is rounded to infinity. */
static inline bool cr_contract_f32(double x)
{
    return x > -0x1.ffffffp127 && x < 0x1.ffffffp127;
}

/* A known operand type that can hold n_features (pairs in bf16). */
void cr_contract_operand_type(struct cr_contract *c, enum cr_xtype type, size_t n_features, const char *argument);

/* n_blocks token blocks of `block_bytes`, `stride_bytes` apart: there, aligned to lines, apart, addressable. */
void cr_contract_blocks(struct cr_contract *c, const void *base, size_t stride_bytes, size_t block_bytes,
                        size_t n_blocks, const char *argument);

/* The same for f32 with the stride in floats. */
void cr_contract_f32_blocks(struct cr_contract *c, const void *base, size_t stride_floats, size_t n_features,
                            size_t n_blocks, const char *argument);

/* A matrix of blocks of a type that this library multiplies with, whole blocks a row, addressable. */
void cr_contract_matrix(struct cr_contract *c, const struct cr_qmat *w);

/* 64-byte aligned and large enough. needed_bytes SIZE_MAX, a cr_<op>_scratch_bytes of what cannot be, is refused. */
void cr_contract_scratch(struct cr_contract *c, const void *scratch, size_t found_bytes, size_t needed_bytes);

#endif
