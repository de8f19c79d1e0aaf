#include "runtime/optim/ivon_options.h"

#include <math.h>

#include "runtime/core/error.h"

/* ess where nothing is said (presets.c has the measurements), but never less than the data has targets: that would be a
 * posterior wider than Bayes' rule gives. */
#define ESS_LEAST 3e5

/* Settings that kernels divide by in f32. zero_too: stands for a default. */
static cr_status check_taken(const char *name, double value, bool zero_too, struct cr_error *err)
{
    bool good = cr_ivon_takes(value) || (zero_too && value == 0);
    return good ? CR_OK : cr_fail(err, CR_E_USAGE, "%s %g, expected a number from 2^-126 to 2^126", name, value);
}

cr_status cr_ivon_check(const struct cr_finetune_options *o, struct cr_error *err)
{
    CR_TRY(check_taken("--ess", o->ess, true, err)); /* 0: by the data */
    CR_TRY(check_taken("--hess-init", o->hess_init, false, err));
    if (!(o->clip_radius > 0)) {
        return cr_fail(err, CR_E_USAGE, "--clip-radius %g, expected a number above 0", o->clip_radius);
    }
    if (!(o->beta1 >= 0 && o->beta1 < 1 && o->beta2 >= 0 && o->beta2 <= 1)) {
        return cr_fail(err, CR_E_USAGE, "beta1 %g and beta2 %g, expected 0 to below 1 and 0 to 1", o->beta1, o->beta2);
    }
    if (o->mc_samples < 1 || o->mc_samples > 65535) {
        return cr_fail(err, CR_E_USAGE, "--mc-samples %u, expected 1 to 65535", o->mc_samples);
    }
    CR_TRY(check_taken("ess of B", o->ess_b, true, err)); /* 0: as A */
    CR_TRY(check_taken("hess-init of B", o->hess_init_b, true, err));
    if (!(o->lr_b >= 0 && isfinite(o->lr_b))) {
        return cr_fail(err, CR_E_USAGE, "lr of B %g, expected a number from 0", o->lr_b);
    }
    return o->clip_radius_b >= 0
               ? CR_OK
               : cr_fail(err, CR_E_USAGE, "clip radius of B %g, expected a number above 0", o->clip_radius_b);
}

void cr_ivon_resolve(struct cr_finetune_options *o, uint64_t n_examples, uint64_t n_targets)
{
    (void)n_examples;
    if (!(o->ess > 0)) {
        o->ess = fmax(ESS_LEAST, (double)n_targets);
    }
}

static void set_number(json_t *object, const char *key, double value)
{
    json_object_set_new(object, key, isfinite(value) ? json_real(value) : json_string("none"));
}

void cr_ivon_record(const struct cr_finetune_options *o, json_t *object)
{
    set_number(object, "ess", o->ess);
    set_number(object, "hess-init", o->hess_init);
    set_number(object, "clip-radius", o->clip_radius);
    set_number(object, "beta1", o->beta1);
    set_number(object, "beta2", o->beta2);
    json_object_set_new(object, "mc-samples", json_integer(o->mc_samples));
    json_object_set_new(object, "hess-approx", json_string(o->gradsq ? "gradsq" : "price"));
    json_object_set_new(object, "debias", json_boolean(!o->no_debias));
    json_object_set_new(object, "rescale-lr", json_boolean(o->rescale_lr));
    const char *const keys[] = {"lr-b", "ess-b", "hess-init-b", "clip-radius-b"};
    const double values[] = {o->lr_b, o->ess_b, o->hess_init_b, o->clip_radius_b};
    for (int i = 0; i < 4; i++) {
        if (values[i] > 0) {
            set_number(object, keys[i], values[i]);
        }
    }
}

struct cr_ivon_settings cr_ivon_settings_of(const struct cr_finetune_options *o)
{
    struct cr_ivon_settings s = {.gradsq = o->gradsq,
                                 .debias = !o->no_debias,
                                 .rescale_lr = o->rescale_lr,
                                 .n_samples = o->mc_samples,
                                 .seed = o->seed};
    struct cr_ivon_group *a = &s.groups[CR_IVON_GROUP_A];
    struct cr_ivon_group *b = &s.groups[CR_IVON_GROUP_B];
    *a = (struct cr_ivon_group){.lr_factor = 1,
                                .ess = o->ess,
                                .hess_init = o->hess_init,
                                .beta1 = o->beta1,
                                .beta2 = o->beta2,
                                .weight_decay = o->weight_decay,
                                .clip_radius = o->clip_radius};
    *b = *a;
    b->lr_factor = o->lr_b > 0 ? o->lr_b / o->lr : 1;
    b->ess = o->ess_b > 0 ? o->ess_b : a->ess;
    b->hess_init = o->hess_init_b > 0 ? o->hess_init_b : a->hess_init;
    b->clip_radius = o->clip_radius_b > 0 ? o->clip_radius_b : a->clip_radius;
    return s;
}
