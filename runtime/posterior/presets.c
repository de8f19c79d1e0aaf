/* The settings that a method starts from: one row each for the tuned defaults and for those of a paper.
 *
 * adamw: IVON-LoRA's baseline is the paper's. ivon, tuned: for runs of about 500 to 1,000 steps, where h hardly leaves
 * hess_init and sigma0 = 1 / sqrt(ess hess_init) and the step lr clip_radius decide; the best on held-out tweets of the
 * search in bench/RESULTS.md, for 300 training texts as for 2,300. ivon, paper: arXiv 2411.04421 and its scripts, the
 * row for ARC and OpenBookQA.
 *
 * ensemble, tuned: those of adamw on four projections, at gain 1 with the model's head, the rate the best of the search
 * in bench/RESULTS.md on 300 texts; paper: arXiv 2405.14438, its runs on CIFAR-100, with label rows of every member's
 * own that start around the model's.
 *
 * blob: starting values of spread and prior are those of arXiv 2406.11675 in both, the rate its own in the paper's;
 * its adapters on the output head are not here.
 *
 * bora, tuned: those of adamw without clipping, which would let one task's gradient scale the steps of the others;
 * paper: arXiv 2407.15857 as its program has it, the row of its table that is best for every task; tau belongs to the
 * distance not squared, the rate to tau (bora_options), and a task weighs by its documents, its tokens alike. Not
 * so here: its loss at the end tokens that pad a batch, its validation by batch and task (ours: by document).
 *
 * swag, tuned: rates and clipping are the best of the search in bench/RESULTS.md, 300 tweets (150 steps, snapshots in
 * the last two fifths, every fifth step), the steps between snapshots from the same table carried over to longer runs:
 * between K + 1 and 4 (K + 1) snapshots, every 25 steps where both hold. Paper: arXiv 2405.03425, its scripts for
 * OpenBookQA; label rows trained and drawn with the rest, snapshots from the best validation before them on.
 */
#include <math.h>
#include <string.h>

#include "runtime/core/error.h"
#include "runtime/posterior/method.h"

struct swag_preset {
    double start, lr, scale;
    uint32_t every, rank, anneal;
    enum cr_tristate head, from_best;
};

/* A snapshot an epoch from the ninth of 18 on, the rate annealed over five to a tenth. */
static const struct swag_preset swag_paper = {.start = 8.0 / 18,
                                              .lr = 3e-5,
                                              .scale = 1,
                                              .every = CR_SWAG_EPOCH,
                                              .rank = 5,
                                              .head = CR_AUTO,
                                              .from_best = CR_AUTO};

struct ensemble_preset {
    uint32_t members;
    double init_gain;
    bool heads;
};

static const struct ensemble_preset ensemble_paper = {.members = 16, .init_gain = 10, .heads = true};

struct bora_preset {
    double tau, alpha;
    uint32_t rank, patience, length;
    const char *prior;
};

static const struct bora_preset bora_paper = {
    .tau = 100, .rank = 16, .alpha = 16, .patience = 8, .length = 128, .prior = "norm"};

struct prefix_preset {
    uint32_t vertices, length;
};

/* arXiv 2310.15793 names no settings; length and rate are the best of the search in bench/RESULTS.md, 300 tweets. */
static const struct prefix_preset prefix_tuned = {.vertices = 3, .length = 40};

struct preset {
    const char *method, *name; /* NULL: the tuned defaults */
    double lr;                 /* NaN: goes with what else is set */
    double warmup, max_grad_norm, dropout;
    uint32_t batch_size;
    uint64_t steps;                         /* 0: by epochs */
    double ess, hess_init, clip_radius;     /* ess 0: by the data */
    double epochs;                          /* 0: 1 */
    const struct swag_preset *swag;         /* NULL: as initialised */
    const char *targets;                    /* NULL: as initialised */
    const struct bora_preset *bora;         /* NULL: as initialised */
    const struct prefix_preset *prefix;     /* NULL: none is trained */
    const struct ensemble_preset *ensemble; /* NULL: as initialised */
    enum cr_lr_schedule schedule;
    const char *refused; /* why there is no such preset */
};

static const struct preset presets[] = {
    {.method = "adamw", .lr = 2e-4, .max_grad_norm = 1, .batch_size = 8},
    {.method = "adamw",
     .name = "paper",
     .lr = 5e-5,
     .max_grad_norm = 1,
     .dropout = 0.1,
     .batch_size = 4,
     .steps = 10000},
    {.method = "ivon", .lr = 0.5, .warmup = 0.06, .batch_size = 8, .hess_init = 1e-3, .clip_radius = 1e-3},
    {.method = "ivon",
     .name = "paper",
     .lr = 0.03,
     .dropout = 0.1,
     .batch_size = 4,
     .steps = 10000,
     .ess = 1e6,
     .hess_init = 1e-3,
     .clip_radius = 1e-3},
    {.method = "swag", .lr = 3e-3, .batch_size = 8},
    {.method = "swag",
     .name = "paper",
     .lr = 3e-4,
     .warmup = 0.06,
     .dropout = 0.1,
     .batch_size = 16,
     .epochs = 18,
     .swag = &swag_paper},
    {.method = "ensemble", .lr = 3e-3, .max_grad_norm = 1, .batch_size = 8, .targets = "q_proj,k_proj,v_proj,o_proj"},
    {.method = "ensemble",
     .name = "paper",
     .lr = 1e-4,
     .warmup = 500,
     .max_grad_norm = 1,
     .batch_size = 32,
     .epochs = 16,
     .schedule = CR_LR_COSINE,
     .ensemble = &ensemble_paper,
     .targets = "q_proj,k_proj,v_proj,o_proj"},
    {.method = "blob", .lr = 2e-4, .warmup = 0.06, .max_grad_norm = 1, .batch_size = 8},
    {.method = "blob", .name = "paper", .lr = 1e-4, .warmup = 0.06, .batch_size = 4, .steps = 5000},
    {.method = "bora", .lr = 2e-4, .batch_size = 8},
    {.method = "bora",
     .name = "paper",
     .lr = (double)NAN,
     .batch_size = 64,
     .epochs = 1000,
     .schedule = CR_LR_CONSTANT,
     .bora = &bora_paper},
    {.method = "prefix", .lr = 1e-2, .warmup = 0.06, .max_grad_norm = 1, .batch_size = 8, .prefix = &prefix_tuned},
    {.method = "prefix", .name = "paper", .refused = "its abstract and its repository name no settings"},
};

static void apply_swag(const struct swag_preset *swag, struct cr_finetune_options *options)
{
    options->swag_start = swag->start;
    options->swag_lr = swag->lr;
    options->swag_scale = swag->scale;
    options->swag_every = swag->every;
    options->swag_rank = swag->rank;
    options->swag_anneal = swag->anneal;
    options->swag_head = swag->head;
    options->swag_from_best = swag->from_best;
}

static cr_status refuse(const char *what, const char *name, const char *expected, struct cr_error *err)
{
    char shown[CR_ESCAPE_BYTES];
    return cr_fail(err, CR_E_USAGE, "%s \"%s\" unknown, expected %s", what,
                   cr_escape(shown, sizeof shown, name, strlen(name)), expected);
}

cr_status cr_preset_apply(const char *method, const char *preset, struct cr_finetune_options *options,
                          struct cr_error *err)
{
    bool known = false;
    method = method != NULL ? method : "adamw";
    for (size_t i = 0; i < sizeof presets / sizeof presets[0]; i++) {
        const struct preset *p = &presets[i];
        if (strcmp(p->method, method) != 0) {
            continue;
        }
        known = true;
        if (preset == NULL ? p->name != NULL : p->name == NULL || strcmp(p->name, preset) != 0) {
            continue;
        }
        if (p->refused != NULL) {
            return cr_fail(err, CR_E_USAGE, "--preset %s of method %s: %s", p->name, p->method, p->refused);
        }
        options->method = p->method;
        options->preset = p->name;
        options->lr = p->lr;
        options->warmup = p->warmup;
        options->max_grad_norm = p->max_grad_norm;
        options->dropout = p->dropout;
        options->batch_size = p->batch_size;
        options->steps = p->steps;
        options->ess = p->ess;
        options->hess_init = p->hess_init;
        options->clip_radius = p->clip_radius;
        options->targets = p->targets != NULL ? p->targets : options->targets;
        options->epochs = p->epochs > 0 ? p->epochs : options->epochs;
        options->lr_schedule = p->schedule;
        if (p->ensemble != NULL) {
            options->members = p->ensemble->members;
            options->init_gain = p->ensemble->init_gain;
            options->member_heads = p->ensemble->heads;
        }
        if (p->bora != NULL) {
            options->tau = p->bora->tau;
            options->rank = p->bora->rank;
            options->alpha = p->bora->alpha;
            options->patience = p->bora->patience;
            options->max_seq_length = p->bora->length;
            options->bora_prior = p->bora->prior;
        }
        if (p->swag != NULL) {
            apply_swag(p->swag, options);
        }
        if (p->prefix != NULL) {
            options->vertices = p->prefix->vertices;
            options->prefix_length = p->prefix->length;
        }
        return CR_OK;
    }
    return known ? refuse("--preset", preset, "paper", err) : refuse("--method", method, cr_method_names(), err);
}
