#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/cli/commands.h"
#include "runtime/cli/conflicts.h"
#include "runtime/cli/message.h"
#include "runtime/cli/output.h"
#include "runtime/cli/settings.h"

static void fill_texts(const struct cr_cli_args *args, struct cr_finetune_options *o)
{
    o->model = cr_cli_text(args, CR_CLI_MODEL);
    o->data = cr_cli_text(args, CR_CLI_DATA);
    o->output = cr_cli_text(args, CR_CLI_OUTPUT);
    o->valid = cr_cli_text(args, CR_CLI_VALID);
    o->adapter = cr_cli_text(args, CR_CLI_ADAPTER);
    o->trace = cr_cli_text(args, CR_CLI_TRACE);
    o->chat_template = cr_cli_text(args, CR_CLI_CHAT_TEMPLATE);
    o->system = cr_cli_text(args, CR_CLI_SYSTEM);
    o->normalize = cr_cli_text(args, CR_CLI_NORMALIZE);
    o->bora_mode = cr_cli_text(args, CR_CLI_BORA_MODE);
    o->lambda_per = cr_cli_text(args, CR_CLI_LAMBDA_PER);
    if (cr_cli_given(args, CR_CLI_TARGETS)) {
        o->targets = cr_cli_text(args, CR_CLI_TARGETS);
    }
}

static void fill_numbers(const struct cr_cli_args *args, struct cr_finetune_options *o)
{
    o->rank = (uint32_t)cr_cli_uint(args, CR_CLI_RANK, o->rank);
    o->alpha = cr_cli_real(args, CR_CLI_ALPHA, o->alpha);
    o->dropout = cr_cli_real(args, CR_CLI_DROPOUT, o->dropout);
    o->epochs = cr_cli_real(args, CR_CLI_EPOCHS, o->epochs);
    o->steps = cr_cli_given(args, CR_CLI_EPOCHS) ? 0 : cr_cli_uint(args, CR_CLI_STEPS, o->steps);
    o->batch_size = (uint32_t)cr_cli_uint(args, CR_CLI_BATCH_SIZE, o->batch_size);
    o->grad_accumulation_steps =
        (uint32_t)cr_cli_uint(args, CR_CLI_GRAD_ACCUMULATION_STEPS, o->grad_accumulation_steps);
    o->lr = cr_cli_real(args, CR_CLI_LR, o->lr);
    o->warmup = cr_cli_real(args, CR_CLI_WARMUP, o->warmup);
    o->weight_decay = cr_cli_real(args, CR_CLI_WEIGHT_DECAY, o->weight_decay);
    o->max_grad_norm = cr_cli_real(args, CR_CLI_MAX_GRAD_NORM, o->max_grad_norm);
    o->max_seq_length = (uint32_t)cr_cli_uint(args, CR_CLI_MAX_SEQ_LENGTH, o->max_seq_length);
    o->patience = (uint32_t)cr_cli_uint(args, CR_CLI_PATIENCE, o->patience);
    o->eval_every = (uint32_t)cr_cli_uint(args, CR_CLI_EVAL_EVERY, o->eval_every);
    o->save_every = (uint32_t)cr_cli_uint(args, CR_CLI_SAVE_EVERY, o->save_every);
    o->report_every = (uint32_t)cr_cli_uint(args, CR_CLI_REPORT_EVERY, o->report_every);
    o->seed = cr_cli_uint(args, CR_CLI_SEED, o->seed);
    o->ess = cr_cli_real(args, CR_CLI_ESS, o->ess);
    o->hess_init = cr_cli_real(args, CR_CLI_HESS_INIT, o->hess_init);
    o->clip_radius = cr_cli_real(args, CR_CLI_CLIP_RADIUS, o->clip_radius);
    o->swag_start = cr_cli_real(args, CR_CLI_SWAG_START, o->swag_start);
    o->swag_every = (uint32_t)cr_cli_uint(args, CR_CLI_SWAG_EVERY, o->swag_every);
    o->swag_rank = (uint32_t)cr_cli_uint(args, CR_CLI_SWAG_RANK, o->swag_rank);
    o->swag_lr = cr_cli_real(args, CR_CLI_SWAG_LR, o->swag_lr);
    o->members = (uint32_t)cr_cli_uint(args, CR_CLI_MEMBERS, o->members);
    o->tau = cr_cli_real(args, CR_CLI_TAU, o->tau);
    o->init_gain = cr_cli_real(args, CR_CLI_INIT_GAIN, o->init_gain);
    o->prior_std = cr_cli_real(args, CR_CLI_PRIOR_STD, o->prior_std);
    o->kl_lr = cr_cli_real(args, CR_CLI_KL_LR, o->kl_lr);
    o->vertices = (uint32_t)cr_cli_uint(args, CR_CLI_VERTICES, o->vertices);
    o->prefix_length = (uint32_t)cr_cli_uint(args, CR_CLI_PREFIX_LENGTH, o->prefix_length);
    o->head_lr = cr_cli_real(args, CR_CLI_HEAD_LR, o->head_lr);
    o->valid_draws = (uint32_t)cr_cli_uint(args, CR_CLI_VALID_DRAWS, o->valid_draws);
    o->cosine_weight = cr_cli_real(args, CR_CLI_COSINE_WEIGHT, o->cosine_weight);
    o->mc_samples = (uint32_t)cr_cli_uint(args, CR_CLI_MC_SAMPLES, o->mc_samples);
}

static enum cr_tristate yes_or_no(const struct cr_cli_args *args, enum cr_cli_option_id id, const char *yes,
                                  const char *no, enum cr_tristate otherwise)
{
    return cr_cli_is(args, id, yes) ? CR_YES : cr_cli_is(args, id, no) ? CR_NO : otherwise;
}

static enum cr_lr_schedule lr_schedule(const struct cr_cli_args *args, enum cr_lr_schedule otherwise)
{
    return cr_cli_is(args, CR_CLI_LR_SCHEDULE, "linear")     ? CR_LR_LINEAR
           : cr_cli_is(args, CR_CLI_LR_SCHEDULE, "cosine")   ? CR_LR_COSINE
           : cr_cli_is(args, CR_CLI_LR_SCHEDULE, "constant") ? CR_LR_CONSTANT
                                                             : otherwise;
}

static void fill_choices(const struct cr_cli_args *args, struct cr_finetune_options *o)
{
    o->lr_schedule = lr_schedule(args, o->lr_schedule);
    o->grad_checkpoint = yes_or_no(args, CR_CLI_GRAD_CHECKPOINT, "yes", "no", CR_AUTO);
    o->on_long_skip = cr_cli_is(args, CR_CLI_ON_LONG, "skip");
    o->train_on_prompt = cr_cli_is(args, CR_CLI_MASK_PROMPT, "no");
    o->no_valid = cr_cli_given(args, CR_CLI_NO_VALID);
    if (cr_cli_given(args, CR_CLI_SWAG_SCHEDULE)) {
        o->swag_cosine = cr_cli_is(args, CR_CLI_SWAG_SCHEDULE, "cosine");
    }
    o->swag_head = yes_or_no(args, CR_CLI_SWAG_HEAD, "trained", "frozen", o->swag_head);
    o->swag_from_best = yes_or_no(args, CR_CLI_SWAG_FROM, "best", "last", o->swag_from_best);
    o->keep_best_set = cr_cli_given(args, CR_CLI_KEEP);
    o->keep_best = cr_cli_is(args, CR_CLI_KEEP, "best");
    o->resume = cr_cli_given(args, CR_CLI_RESUME);
    o->force = cr_cli_given(args, CR_CLI_FORCE);
    o->allow_inexact = cr_cli_given(args, CR_CLI_ALLOW_INEXACT);
    o->dry_run = cr_cli_given(args, CR_CLI_DRY_RUN);
}

static void print_result(const struct cr_finetune_options *o, const struct cr_finetune_result *r)
{
    if (o->dry_run) {
        cr_cli_print("would train %llu weights in %llu steps on %llu examples\npredicted: %.0f MiB, %.0f s\n",
                     (unsigned long long)r->n_params, (unsigned long long)r->steps, (unsigned long long)r->n_train,
                     r->predicted_mb, r->predicted_seconds);
        return;
    }
    if (r->nothing_to_do) {
        cr_cli_print("nothing to do: the run in %s is finished\n", o->output);
        return;
    }
    cr_cli_print("%llu steps, %llu tokens in %.1f s (%.0f tokens/s), peak memory %.0f MiB\n",
                 (unsigned long long)r->steps, (unsigned long long)r->tokens, r->seconds, r->tok_s, r->peak_rss_mb);
    cr_cli_print("final loss %.4f", r->final_loss);
    if (isfinite(r->best_nll)) {
        cr_cli_print(", best validation NLL %.4f at step %llu", r->best_nll, (unsigned long long)r->best_step);
    }
    cr_cli_print("\nadapter: %s\n", o->output);
}

cr_status cr_cli_run_finetune(const struct cr_cli_args *args, struct cr_cli_host *host, struct cr_error *err)
{
    struct cr_finetune_options options;
    struct cr_finetune_result result = {0};
    cr_status status = cr_cli_check_pairs(args, err);
    if (status != CR_OK) {
        return status;
    }
    status = cr_finetune_options_for(&options, cr_cli_text(args, CR_CLI_METHOD), cr_cli_text(args, CR_CLI_PRESET), err);
    if (status == CR_OK) {
        status = cr_cli_check_method(args, options.method, err);
    }
    if (status != CR_OK) {
        return status;
    }
    fill_texts(args, &options);
    fill_numbers(args, &options);
    fill_choices(args, &options);
    char *settings = cr_cli_settings_json(args);
    if (settings == NULL) {
        return cr_cli_fail(err, CR_E_MEMORY, "no memory for the settings");
    }
    options.settings_json = settings;
    status = cr_finetune(&options, &host->host, &result, err);
    cr_cli_host_finish(host, status);
    if (status == CR_OK) {
        print_result(&options, &result);
    }
    free(settings);
    return status;
}
