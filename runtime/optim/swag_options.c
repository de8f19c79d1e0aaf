#include "runtime/optim/swag_options.h"

#include <inttypes.h>
#include <math.h>

#include "runtime/core/error.h"

/* Epochs of annealing where no steps are said: the settings of the paper's runs. */
enum { ANNEAL_EPOCHS = 5, ROWS_MAX = 256 };

cr_status cr_swag_options_check(const struct cr_finetune_options *o, struct cr_error *err)
{
    if (!(o->swag_start >= 0 && o->swag_start < 1)) {
        return cr_fail(err, CR_E_USAGE, "--swag-start %g, expected a number from 0 to below 1", o->swag_start);
    }
    if (!(o->swag_lr > 0 && isfinite(o->swag_lr))) {
        return cr_fail(err, CR_E_USAGE, "--swag-lr %g, expected a number above 0", o->swag_lr);
    }
    if (o->swag_rank < 2 || o->swag_rank > ROWS_MAX) { /* the divisor is K - 1 */
        return cr_fail(err, CR_E_USAGE, "--swag-rank %u, expected 2 to %d", o->swag_rank, ROWS_MAX);
    }
    if ((unsigned)o->swag_head > CR_NO || (unsigned)o->swag_from_best > CR_NO) {
        return cr_fail(err, CR_E_USAGE, "--swag-head or --swag-from out of range");
    }
    if (o->head_lr > 0 && o->swag_head == CR_NO) {
        return cr_fail(err, CR_E_USAGE,
                       "--head-lr %g: the label rows of the model stay frozen; --swag-head trained trains them",
                       o->head_lr);
    }
    if (o->swag_from_best == CR_YES && o->no_valid) {
        return cr_fail(err, CR_E_USAGE, "--no-valid leaves nothing for --swag-from best to look at");
    }
    return o->swag_scale >= 0 && isfinite(o->swag_scale)
               ? CR_OK
               : cr_fail(err, CR_E_USAGE, "scale of SWAG %g, expected 0 or a number above it", o->swag_scale);
}

static json_t *word(enum cr_tristate choice, const char *yes, const char *no)
{
    return json_string(choice == CR_YES ? yes : choice == CR_NO ? no : "auto");
}

void cr_swag_options_record(const struct cr_finetune_options *o, json_t *object)
{
    bool epoch = o->swag_every == CR_SWAG_EPOCH;
    json_object_set_new(object, "swag-start", json_real(o->swag_start));
    json_object_set_new(object, "swag-every", epoch ? json_string("epoch") : json_integer(o->swag_every));
    json_object_set_new(object, "swag-rank", json_integer(o->swag_rank));
    json_object_set_new(object, "swag-lr", json_real(o->swag_lr));
    json_object_set_new(object, "swag-anneal", json_integer(o->swag_anneal));
    json_object_set_new(object, "swag-schedule", json_string(o->swag_cosine ? "cosine" : "linear"));
    json_object_set_new(object, "swag-scale", json_real(o->swag_scale));
    json_object_set_new(object, "swag-head", word(o->swag_head, "trained", "frozen"));
    json_object_set_new(object, "swag-from", word(o->swag_from_best, "best", "last"));
    if (o->swag_head != CR_NO) {
        json_object_set_new(object, "head-lr", json_real(o->head_lr > 0 ? o->head_lr : o->lr));
    }
}

bool cr_swag_options_own_rows(const struct cr_finetune_options *o, bool choices)
{
    return o->swag_head == CR_YES || (o->swag_head == CR_AUTO && choices);
}

cr_status cr_swag_options_plan(const struct cr_method_setup *setup, struct cr_swag_plan *plan, struct cr_error *err)
{
    const struct cr_finetune_options *o = setup->options;
    bool by_length = o->swag_every == 0;
    uint64_t every = by_length ? 1 : o->swag_every == CR_SWAG_EPOCH ? setup->steps_per_epoch : o->swag_every;
    uint64_t anneal = o->swag_anneal > 0 ? o->swag_anneal : ANNEAL_EPOCHS * setup->steps_per_epoch;
    CR_TRY(cr_swag_plan_init(plan, setup->n_steps, o->swag_start, every, o->swag_lr, anneal, err));
    plan->cosine = o->swag_cosine;
    if (by_length) {
        plan->every = cr_swag_interval(plan->n_steps - plan->start, o->swag_rank);
    }
    return cr_swag_snapshots(plan) >= 2
               ? CR_OK
               : cr_fail(err, CR_E_USAGE,
                         "one snapshot in %" PRIu64 " steps has no spread: an earlier --swag-start or a "
                         "smaller --swag-every takes more",
                         setup->n_steps);
}

cr_status cr_swag_options_from_best(const struct cr_method_setup *setup, const struct cr_swag_plan *plan, bool *out,
                                    struct cr_error *err)
{
    enum cr_tristate choice = setup->options->swag_from_best;
    bool some = setup->first_eval > 0 && setup->first_eval <= plan->start;
    *out = some && choice != CR_NO;
    return some || choice != CR_YES
               ? CR_OK
               : cr_fail(err, CR_E_USAGE,
                         "--swag-from best: no validation in the first %" PRIu64 " steps, after which snapshots begin: "
                         "a smaller --eval-every or a later --swag-start brings one",
                         plan->start);
}
