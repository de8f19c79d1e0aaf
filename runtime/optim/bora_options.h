/* bora_options: what a run says of method bora: refusals (CR_E_USAGE), what the data decide, the record in files (as in
 * runtime/posterior/method.h). Private to runtime/optim.
 */
#ifndef CR_OPTIM_BORA_OPTIONS_H
#define CR_OPTIM_BORA_OPTIONS_H

#include <jansson.h>
#include <stdbool.h>

#include "credence/credence.h"

/* mode: "tasks", "joined", "global". */
bool cr_bora_mode_is(const struct cr_finetune_options *o, const char *mode);
/* Whether the prior is of the plain distance, not of its square. */
bool cr_bora_is_norm(const struct cr_finetune_options *o);

cr_status cr_bora_check(const struct cr_finetune_options *o, struct cr_error *err);
void cr_bora_resolve(struct cr_finetune_options *o, uint64_t n_examples, uint64_t n_targets);
void cr_bora_record(const struct cr_finetune_options *o, json_t *object);

#endif
