#include "runtime/train/train.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "runtime/core/alloc.h"
#include "runtime/core/options.h"
#include "runtime/io/file.h"
#include "runtime/io/json.h"
#include "runtime/posterior/output_dir.h"

/* The largest number of steps: far beyond any run, and exact in a double. */
#define MAX_STEPS ((uint64_t)1 << 50)

void cr_finetune_options_init(struct cr_finetune_options *options)
{
    *options = (struct cr_finetune_options){
        .size = sizeof *options,
        .method = "adamw",
        .targets = "q_proj,v_proj",
        .rank = 8,
        .epochs = 1,
        .batch_size = 8,
        .grad_accumulation_steps = 1,
        .lr = 2e-4,
        .max_grad_norm = 1,
        .save_every = 200,
        .report_every = 10,
        .keep_checkpoints = 2,
        .hess_init = 1e-3,
        .clip_radius = 1e-3,
        .mc_samples = 1,
        .beta1 = 0.9,
        .beta2 = 0.99999,
        .swag_start = 0.6,
        .swag_rank = 10,
        .swag_lr = 5e-4,
        .swag_anneal = 50,
        .swag_head = CR_NO,
        .swag_from_best = CR_NO,
        .members = 4,
        .head_noise = 0.01,
        .prior_std = 0.2,
        .kl_lr = 0.01,
        .rho_init = 0.05,
        .tau = (double)NAN,
        .bora_spread = 1e-3,
        .valid_draws = 10,
    };
}

cr_status cr_finetune_options_for(struct cr_finetune_options *options, const char *method, const char *preset,
                                  struct cr_error *err)
{
    struct cr_finetune_options made;
    cr_finetune_options_init(&made);
    CR_TRY(cr_preset_apply(method, preset, &made, err));
    *options = made;
    return CR_OK;
}

/* A trace that cannot be written is refused before the training. In the output directory itself it may be written,
 * which the run is going to make. */
static cr_status check_trace(const struct cr_finetune_options *o, struct cr_error *err)
{
    struct stat info;
    if (o->trace == NULL || o->dry_run || stat(o->output, &info) == 0) {
        return cr_check_output("--trace", o->trace, err);
    }
    char *inside = cr_path_join(o->output, cr_base_name(o->trace));
    if (inside == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for a path");
    }
    bool made = strcmp(inside, o->trace) == 0;
    cr_free(inside);
    return made ? CR_OK : cr_check_output("--trace", o->trace, err);
}

static cr_status check_paths(const struct cr_finetune_options *o, struct cr_error *err)
{
    if (o->model == NULL || o->data == NULL || (o->output == NULL && !o->dry_run)) {
        return cr_fail(err, CR_E_USAGE, "%s is required",
                       o->model == NULL  ? "--model"
                       : o->data == NULL ? "--data"
                                         : "--output");
    }
    const char *inputs[] = {o->model, o->data, o->valid, o->adapter};
    const char *names[] = {"--model", "--data", "--valid", "--adapter"};
    struct cr_output_input kept[5] = {{"--trace", o->trace}};
    for (int i = 0; i < 4; i++) {
        kept[i + 1] = (struct cr_output_input){names[i], inputs[i]};
        if (cr_same_file(o->output, inputs[i])) {
            return cr_fail(err, CR_E_USAGE, "--output is the same as %s", names[i]);
        }
        if (cr_same_file(o->trace, inputs[i])) {
            return cr_fail(err, CR_E_USAGE, "--trace is the same as %s", names[i]);
        }
    }
    if (!o->dry_run) {
        CR_TRY(cr_output_keep_inputs(o->output, true, kept, sizeof kept / sizeof kept[0], err));
    }
    return check_trace(o, err);
}

static cr_status in_range(const char *name, double value, double min, double below, struct cr_error *err)
{
    if (!(isfinite(value) && value >= min && value < below)) {
        return cr_fail(err, CR_E_USAGE, "--%s %g, expected a number from %g to below %g", name, value, min, below);
    }
    return CR_OK;
}

static cr_status at_least_one(const char *name, uint64_t value, struct cr_error *err)
{
    return value > 0 ? CR_OK : cr_fail(err, CR_E_USAGE, "--%s 0, expected at least 1", name);
}

static cr_status check_numbers(const struct cr_finetune_options *o, struct cr_error *err)
{
    if (o->rank < 1 || o->rank > 256) {
        return cr_fail(err, CR_E_USAGE, "--rank %u, expected 1 to 256", o->rank);
    }
    CR_TRY(in_range("alpha", o->alpha, 0, 1e6, err));
    if (o->alpha > 0 && !((float)o->alpha >= FLT_MIN)) {
        return cr_fail(err, CR_E_USAGE, "--alpha %g, expected a number that is not 0 as f32", o->alpha);
    }
    CR_TRY(in_range("dropout", o->dropout, 0, 1, err));
    CR_TRY(in_range("head-lr", o->head_lr, 0, 1e6, err));
    CR_TRY(in_range("weight-decay", o->weight_decay, 0, 1e6, err));
    CR_TRY(in_range("max-grad-norm", o->max_grad_norm, 0, 1e30, err));
    CR_TRY(in_range("warmup", o->warmup, 0, (double)MAX_STEPS, err));
    if (o->warmup >= 1 && o->warmup != (double)(uint64_t)o->warmup) {
        return cr_fail(err, CR_E_USAGE, "--warmup %g, expected a fraction below 1 or a whole number of steps",
                       o->warmup);
    }
    if (o->steps == 0 && !(isfinite(o->epochs) && o->epochs > 0 && o->epochs < 1e9)) {
        return cr_fail(err, CR_E_USAGE, "--epochs %g, expected more than 0 and below 1e9", o->epochs);
    }
    if (o->steps >= MAX_STEPS) {
        return cr_fail(err, CR_E_USAGE, "--steps %llu, expected below 2^50", (unsigned long long)o->steps);
    }
    if (o->seed > UINT32_MAX) {
        return cr_fail(err, CR_E_USAGE, "--seed %llu, expected 0 to 4294967295", (unsigned long long)o->seed);
    }
    if (o->max_seq_length == 1 || o->max_seq_length >= (uint32_t)1 << 31) {
        return cr_fail(err, CR_E_USAGE, "--max-seq-length %u, expected 2 to the context of the model",
                       o->max_seq_length);
    }
    CR_TRY(at_least_one("batch-size", o->batch_size, err));
    CR_TRY(at_least_one("grad-accumulation-steps", o->grad_accumulation_steps, err));
    CR_TRY(at_least_one("save-every", o->save_every, err));
    CR_TRY(at_least_one("report-every", o->report_every, err));
    return at_least_one("keep-checkpoints", o->keep_checkpoints, err);
}

static cr_status check_rate(const struct cr_finetune_options *o, const struct cr_method *method, struct cr_error *err)
{
    if (isnan(o->lr) && method->own_rate) {
        return CR_OK;
    }
    CR_TRY(in_range("lr", o->lr, 0, 1e6, err));
    return o->lr > 0 ? CR_OK : cr_fail(err, CR_E_USAGE, "--lr 0, expected more than 0");
}

/* Validation that is asked for and excluded; a preset may have asked. */
static cr_status check_validation(const struct cr_finetune_options *o, struct cr_error *err)
{
    if (!o->no_valid) {
        return CR_OK;
    }
    if (o->valid != NULL) {
        return cr_fail(err, CR_E_USAGE, "--no-valid and --valid exclude each other");
    }
    if (o->patience > 0) {
        return cr_fail(err, CR_E_USAGE,
                       "--no-valid leaves nothing for --patience %u%s%s to look at; --patience 0 trains to the end",
                       o->patience, o->preset != NULL ? " of --preset " : "", o->preset != NULL ? o->preset : "");
    }
    return o->keep_best_set && o->keep_best
               ? cr_fail(err, CR_E_USAGE, "--no-valid leaves nothing for --keep best to look at")
               : CR_OK;
}

static cr_status check_conflicts(const struct cr_finetune_options *o, struct cr_error *err)
{
    const struct cr_method *method = o->method != NULL ? cr_method_find(o->method) : NULL;
    if (method == NULL) {
        char shown[CR_ESCAPE_BYTES];
        const char *name = o->method != NULL ? o->method : "";
        return cr_fail(err, CR_E_USAGE, "--method \"%s\" unknown, expected %s",
                       cr_escape(shown, sizeof shown, name, strlen(name)), cr_method_names());
    }
    CR_TRY(check_rate(o, method, err));
    if (method->check != NULL) {
        CR_TRY(method->check(o, err));
    }
    if (!method->prefix && (o->vertices > 0 || o->prefix_length > 0)) {
        return cr_fail(err, CR_E_USAGE, "--%s belongs to --method prefix, not to %s",
                       o->vertices > 0 ? "vertices" : "prefix-length", method->name);
    }
    if ((unsigned)o->lr_schedule > CR_LR_CONSTANT || (unsigned)o->grad_checkpoint > CR_NO) {
        return cr_fail(err, CR_E_USAGE, "--lr-schedule or --grad-checkpoint out of range");
    }
    CR_TRY(check_validation(o, err));
    if (o->force && o->resume) {
        return cr_fail(err, CR_E_USAGE, "--force and --resume exclude each other");
    }
    return CR_OK;
}

cr_status cr_train_check_options(const struct cr_finetune_options *given, struct cr_finetune_options *out,
                                 struct cr_error *err)
{
    struct cr_finetune_options o;
    cr_finetune_options_init(&o);
    CR_TRY(cr_options_copy(&o, sizeof o, given, err));
    CR_TRY(check_paths(&o, err));
    CR_TRY(check_numbers(&o, err));
    CR_TRY(check_conflicts(&o, err));
    CR_TRY(cr_json_check_object("settings_json", o.settings_json, err));
    if (o.targets == NULL) {
        o.targets = "q_proj,v_proj";
    }
    if (!(o.alpha > 0)) {
        double scale = cr_method_find(o.method)->scale;
        o.alpha = (scale > 0 ? scale : 2) * o.rank;
    }
    if (!o.keep_best_set) {
        o.keep_best = o.valid != NULL || o.patience > 0;
    }
    *out = o;
    return CR_OK;
}
