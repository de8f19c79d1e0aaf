/* joined: adapters of tasks that act beside a common one, as adapters of twice the rank.
 *
 *   W x + s B_0 (A_0 x) + s B_d (A_d x) = W x + s [B_0 B_d] ([A_0; A_d] x)
 * Sets as in a run of bora: the common one first. Joined set d > 0 is that of task d with the common one, joined set 0
 * the common one beside zeros.
 */
#ifndef CR_POSTERIOR_JOINED_H
#define CR_POSTERIOR_JOINED_H

#include "runtime/adapter/adapter.h"

/* The joined adapters of `sets`, filled; returns owned. Errors: CR_E_MEMORY. */
cr_status cr_joined_create(const struct cr_adapter *sets, bool with_grads, struct cr_adapter **out,
                           struct cr_error *err);

/* Projection `slot` (of one set) of every joined set from that of `sets`. */
void cr_joined_fill(struct cr_adapter *joined, const struct cr_adapter *sets, size_t slot);

/* Adds the joined gradients of a projection to those of the sets: the common one gets the sum over joined sets. */
void cr_joined_gather(const struct cr_adapter *joined, struct cr_adapter *sets, size_t slot);

#endif
