/* Options of an evaluation: defaults, and what can be refused before any file is read. */
#include <math.h>
#include <string.h>

#include "runtime/core/options.h"
#include "runtime/eval/scoring.h"
#include "runtime/io/file.h"
#include "runtime/io/json.h"
#include "runtime/metrics/metrics.h"
#include "runtime/posterior/output_dir.h"

void cr_eval_options_init(struct cr_eval_options *options)
{
    *options = (struct cr_eval_options){.size = sizeof *options};
}

static cr_status check_paths(const struct cr_eval_options *o, struct cr_error *err)
{
    if (o->model == NULL || o->data == NULL) {
        return cr_fail(err, CR_E_USAGE, "%s is required", o->model == NULL ? "--model" : "--data");
    }
    const char *inputs[] = {o->model, o->data, o->ood, o->calibrate};
    const char *names[] = {"--model", "--data", "--ood", "--calibrate"};
    for (size_t i = 0; i < 4 + o->n_adapters; i++) {
        const char *input = i < 4 ? inputs[i] : o->adapters[i - 4];
        if (cr_same_file(o->json, input) || cr_same_file(o->report, input)) {
            return cr_fail(err, CR_E_USAGE, "%s is the same file as %s",
                           cr_same_file(o->json, input) ? "--json" : "--report", i < 4 ? names[i] : "--adapter");
        }
    }
    for (size_t i = 0; i < o->n_adapters; i++) {
        CR_TRY(cr_output_keep_adapter(o->adapters[i], "--json", o->json, err));
        CR_TRY(cr_output_keep_adapter(o->adapters[i], "--report", o->report, err));
    }
    if (cr_same_file(o->calibrate, o->data) || cr_same_file(o->calibrate, o->ood)) {
        return cr_fail(err, CR_E_USAGE,
                       "--calibrate is the same file as %s: a temperature fitted on the examples that it is judged by "
                       "says nothing; give the validation file",
                       cr_same_file(o->calibrate, o->data) ? "--data" : "--ood");
    }
    if (o->json != NULL && o->report != NULL && (strcmp(o->json, o->report) == 0 || cr_same_file(o->json, o->report))) {
        return cr_fail(err, CR_E_USAGE, "--json and --report are the same file");
    }
    CR_TRY(cr_check_output("--json", o->json, err));
    return cr_check_output("--report", o->report, err);
}

static cr_status check_draws(const struct cr_eval_options *o, struct cr_error *err)
{
    if (o->n_adapters == 0 && o->samples > 1) {
        return cr_fail(err, CR_E_USAGE, "--samples %u: the base model is one set of weights, with 1 sample",
                       o->samples);
    }
    if (o->samples > CR_SAMPLES_MAX) {
        return cr_fail(err, CR_E_USAGE, "--samples %u, expected at most %d", o->samples, CR_SAMPLES_MAX);
    }
    if (o->mean && (o->samples > 1 || o->mc_dropout || o->weights)) {
        return cr_fail(err, CR_E_USAGE, "--mean is one set of weights: --%s has no meaning with it",
                       o->mc_dropout ? "mc-dropout"
                       : o->weights  ? "weights"
                                     : "samples");
    }
    if (!(o->posterior_temperature >= 0) || !isfinite(o->posterior_temperature)) {
        return cr_fail(err, CR_E_USAGE, "--posterior-temperature %g, expected a number above 0",
                       o->posterior_temperature);
    }
    if (o->mean && o->posterior_temperature > 0) {
        return cr_fail(err, CR_E_USAGE, "--mean draws nothing: --posterior-temperature has no meaning with it");
    }
    if (o->vertex_set && (o->mean || o->samples > 0 || o->n_adapters == 0)) {
        return cr_fail(err, CR_E_USAGE, "--vertex %u: %s", o->vertex,
                       o->n_adapters == 0 ? "needs an --adapter"
                                          : "is one set of weights, without --mean or --samples");
    }
    if (!(o->prune >= 0 && o->prune < 1)) {
        return cr_fail(err, CR_E_USAGE, "--prune %g, expected a number from 0 to below 1", o->prune);
    }
    if (o->n_adapters == 0 && (o->mc_dropout || o->weights || o->posterior_temperature > 0 || o->prune > 0)) {
        return cr_fail(err, CR_E_USAGE, "--%s needs an --adapter",
                       o->mc_dropout  ? "mc-dropout"
                       : o->weights   ? "weights"
                       : o->prune > 0 ? "prune"
                                      : "posterior-temperature");
    }
    return CR_OK;
}

cr_status cr_eval_check_options(const struct cr_eval_options *given, struct cr_eval_options *out, struct cr_error *err)
{
    struct cr_eval_options o;
    cr_eval_options_init(&o);
    CR_TRY(cr_options_copy(&o, sizeof o, given, err));
    if (o.n_adapters == 0 && o.adapter != NULL) {
        o.adapters = &o.adapter;
        o.n_adapters = 1;
    }
    o.adapter = o.n_adapters > 0 ? o.adapters[0] : NULL;
    CR_TRY(check_paths(&o, err));
    CR_TRY(check_draws(&o, err));
    if (o.max_seq_length == 1 || o.max_seq_length >= (uint32_t)1 << 31) {
        return cr_fail(err, CR_E_USAGE, "--max-seq-length %u, expected 2 to the context of the model",
                       o.max_seq_length);
    }
    if (o.seed > UINT32_MAX) {
        return cr_fail(err, CR_E_USAGE, "--seed %llu, expected 0 to 4294967295", (unsigned long long)o.seed);
    }
    if (o.n_bins > CR_BINS_MAX) {
        return cr_fail(err, CR_E_USAGE, "n_bins %u, expected at most %d", o.n_bins, CR_BINS_MAX);
    }
    CR_TRY(cr_json_check_object("settings_json", o.settings_json, err));
    o.n_bins = o.n_bins > 0 ? o.n_bins : CR_BINS_DEFAULT;
    *out = o;
    if (o.adapters == &o.adapter) { /* what was given may end before *out does */
        out->adapters = &out->adapter;
    }
    return CR_OK;
}
