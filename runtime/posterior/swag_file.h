/* swag_file: the moments and deviations of a swag run as one block of memory, and in files.
 *
 * posterior.safetensors holds .mean, .m2 (sum of squared deviations: variance times n) and .dev, bf16 [held][matrix];
 * its numbers are n, k (the divisor's), the scale that draws are made with, and of label rows those of own_head.h.
 */
#ifndef CR_POSTERIOR_SWAG_FILE_H
#define CR_POSTERIOR_SWAG_FILE_H

#include "runtime/posterior/own_head.h"
#include "runtime/posterior/swag.h"

/* Numbers of a run as they stand in checkpoints and at the head of a packed result. */
struct cr_swag_head {
    uint64_t layout; /* sizeof this struct */
    uint64_t n, n_rows;
    uint64_t best_step; /* of the evaluations before the snapshots the best; 0: none yet, or not kept */
    double best_nll;
    uint64_t zero[3];
};

/* A result: head, mean, mean_low, m2, rows. As floats every one of its words is finite (bf16 deviations are). */
uint64_t cr_swag_result_bytes(uint32_t n_rows, uint64_t n_params);
void cr_swag_pack(const struct cr_swag *swag, void *result);
void cr_swag_unpack(struct cr_swag *swag, const void *result); /* of the same shape */

/* Moments and the deviations held are finite and sums of squares not negative. Errors: CR_E_INPUT. */
cr_status cr_swag_check(const struct cr_swag *swag, struct cr_error *err);

cr_status cr_swag_write(const struct cr_swag *swag, double scale, struct cr_head_nll nll,
                        const struct cr_posterior_about *about, const char *dir, struct cr_error *err);

/* swag: arrays are made and owned by it (cr_swag_free), as what head holds; of the rows only those held: nothing can be
 * collected into it. Its means must be the parameters of
 * *adapter, which gets the mean label rows that the posterior has. On failure *adapter may have got them already. */
cr_status cr_swag_read(const char *dir, struct cr_adapter **adapter, const struct cr_adapter_base *base,
                       struct cr_swag *swag, double *scale, struct cr_own_head *head, struct cr_error *err);
void cr_swag_free(struct cr_swag *swag); /* zeroed: no effect */

#endif
