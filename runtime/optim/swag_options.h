/* swag_options: settings of a swag run: refusals, what files record, and when snapshots are taken. */
#ifndef CR_OPTIM_SWAG_OPTIONS_H
#define CR_OPTIM_SWAG_OPTIONS_H

#include "runtime/posterior/method.h"
#include "runtime/posterior/swag.h"

cr_status cr_swag_options_check(const struct cr_finetune_options *o, struct cr_error *err);
void cr_swag_options_record(const struct cr_finetune_options *o, json_t *object);
bool cr_swag_options_own_rows(const struct cr_finetune_options *o, bool choices);

/* Errors, CR_E_USAGE: fewer than two snapshots, which have no spread. */
cr_status cr_swag_options_plan(const struct cr_method_setup *setup, struct cr_swag_plan *plan, struct cr_error *err);

/* Whether there is a best validation before the snapshots to start from. Errors, CR_E_USAGE: asked for and there is
 * none. */
cr_status cr_swag_options_from_best(const struct cr_method_setup *setup, const struct cr_swag_plan *plan, bool *out,
                                    struct cr_error *err);

#endif
