/* ivon_options: what a run says of method ivon: refusals (CR_E_USAGE), what the data decide, the record in files, and
 * the settings of the optimiser (as in runtime/posterior/method.h). Private to runtime/optim.
 */
#ifndef CR_OPTIM_IVON_OPTIONS_H
#define CR_OPTIM_IVON_OPTIONS_H

#include <jansson.h>

#include "credence/credence.h"
#include "runtime/posterior/ivon.h"

cr_status cr_ivon_check(const struct cr_finetune_options *o, struct cr_error *err);
void cr_ivon_resolve(struct cr_finetune_options *o, uint64_t n_examples, uint64_t n_targets);
void cr_ivon_record(const struct cr_finetune_options *o, json_t *object);
struct cr_ivon_settings cr_ivon_settings_of(const struct cr_finetune_options *o);

#endif
