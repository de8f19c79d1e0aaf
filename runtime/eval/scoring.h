/* scoring: a model, with one or several sets of adapter weights, looks at the examples of a file and says what it
 * expects.
 *
 * An example's numbers are the same bits for any batch, order, thread count and backend. The probabilities of choices
 * are the restricted softmax over the example's own label tokens, in double, from f32 logits; texts get the NLL of
 * their target tokens. Several sets: the mean of their probabilities, token by token for texts; as many as memory and
 * CR_PASS_TOKENS have room for share a pass, which changes no bit. Call with the floating-point state of
 * runtime/thread/float_env.h. Private to runtime/eval.
 */
#ifndef CR_EVAL_SCORING_H
#define CR_EVAL_SCORING_H

#include "credence/credence.h"
#include "runtime/data/batch.h"
#include "runtime/eval/linear.h"
#include "runtime/eval/sets.h"
#include "runtime/metrics/metrics.h"
#include "runtime/model/engine.h"
#include "runtime/thread/workers.h"
#include "runtime/tokenizer/tokenizer.h"

/* More sets than anyone needs; keeps sizes far from overflow. */
enum { CR_SAMPLES_MAX = 10000 };

/* Examples to look at. */
struct cr_scoring_set {
    struct cr_dataset data;
    uint32_t *order; /* owned: [n] examples that count, in file order */
    size_t n;
    uint32_t *set_of; /* owned: by task (data/batch.h), NULL where all sets answer together */
    uint64_t n_global;
    const char *path; /* borrowed */
};

struct cr_scoring {
    struct cr_eval_options options; /* checked, defaults resolved; strings borrowed from the caller */
    const struct cr_host *host;
    struct cr_workers workers;

    struct cr_model *model;
    struct cr_tokenizer *tokenizer;
    struct cr_scoring_set main, ood, calibration; /* the latter of options.ood, .calibrate, else empty */
    struct cr_sets sets;
    struct cr_engine *engine;
    uint32_t n_labels;            /* that the engine was made with */
    const int32_t *label_ids;     /* [n_labels] of one of the sets; NULL for texts */
    struct cr_token_batch batch;  /* examples once */
    struct cr_token_batch shared; /* the same for each of several sets, or by task */
    uint32_t *sorted,
        *row_of; /* owned: by task, examples of a batch by set, and the row of each example's next result */
    float
        *scratch; /* owned: results of a batch, one stretch of scratch_floats a set, then those of a pass of several */
    size_t scratch_floats;
    double *work;               /* owned: probabilities and NLL of the members of one example */
    struct cr_running *running; /* owned: of one example */
    double temperature;         /* of the scores' `calibrated`: NaN before temperature.h has fitted it */

    bool keeps;          /* outcomes of every example after each number of members are kept; set before opening */
    bool answers;        /* questions without an answer are wanted too, as for predictions; set before opening */
    bool differentiates; /* gradients of single examples will be asked for; set before opening, or by a posterior
                          * that answers by the linearised model */
    struct cr_jacobian jacobian;     /* where it does */
    struct cr_linear_answer *linear; /* owned: of the examples of a batch, NULL: sets of weights answer */

    uint64_t tokens; /* non-padding tokens that entered passes */
    double seconds;  /* in passes */
};

/* What the first members say together of an example, in nats; of texts the NLL alone, the rest NaN. */
struct cr_running {
    double nll; /* choices: of the answer; texts: sum over the targets */
    struct cr_doubt doubt;
    double disagreement; /* share of them whose answer is not that of the mean of their logits */
};

/* One example after its pass. Pointers hold until the next one. */
struct cr_score {
    uint32_t index; /* in the dataset */
    const struct cr_example *example;
    const double *probs;      /* [n_choices]; NULL for texts */
    const double *calibrated; /* the same at the fitted temperature, NULL without one */
    double calibrated_nll;    /* of the answer */
    const float *logits;      /* [n_choices]; NULL for texts and for several members */
    uint64_t n_targets;
    bool global; /* by task, of an unknown one: the common set answered */
    size_t n_members;
    const double *member_probs;       /* [n_members][n_choices]; NULL for texts */
    const struct cr_running *running; /* [n_members] of the first 1, 2, ... members */
    const struct cr_running *all;     /* the last of them */
};

/* A failure ends the run and is passed on. */
typedef cr_status cr_score_fn(void *ctx, const struct cr_score *score, struct cr_error *err);

/* Copies the options of any version of the struct, sets defaults and checks what needs no file. out->adapters may point
 * into *out, which must then stay where it is. */
cr_status cr_eval_check_options(const struct cr_eval_options *given, struct cr_eval_options *out, struct cr_error *err);

/* Reads model, data and adapter and makes the engine. *scoring must be zeroed; close it whatever is returned.
 * Errors: CR_E_USAGE, CR_E_IO, CR_E_INPUT, CR_E_BUSY (another base), CR_E_MEMORY (predicted above the budget). */
cr_status cr_scoring_open(const struct cr_eval_options *options, const struct cr_host *host, struct cr_scoring *scoring,
                          struct cr_error *err);
void cr_scoring_close(struct cr_scoring *scoring);

/* Leaves out of the examples of `data` those that the run of this adapter directory held out of that very file, where
 * its summary says how; where it names another file, or other examples of it count, warns. Errors: CR_E_MEMORY. */
cr_status cr_scoring_keep_trained(struct cr_scoring *s, const char *adapter, struct cr_error *err);

/* Calls fn once an example of one of s's sets in file order. Errors: CR_E_STOPPED between two batches, CR_E_DIVERGED
 * for a logit or loss that is not finite (naming the line), CR_E_IO when the model file changed meanwhile, those of the
 * engine and of fn.
 */
cr_status cr_scoring_run(struct cr_scoring *s, const struct cr_scoring_set *set, cr_score_fn *fn, void *ctx,
                         struct cr_error *err);

/* CR_E_IO, naming it, when the model file is not what it was: asked before anything from a pass is believed. */
cr_status cr_scoring_unchanged(const struct cr_scoring *s, struct cr_error *err);

#endif
