/* sets: the parameter sets that answer together: draws of a posterior, points, or several adapters as a mixture.
 *
 * All sets are drawn once, when they are made, keyed by (seed, adapter, sample, tensor): an answer never depends on its
 * neighbours. Order: the first sample of every adapter, then the second of every adapter, so that the first k times the
 * number of adapters are what k samples would have been. All weigh the same. With MC dropout a set is a point with a
 * mask stream of its own. A prefix is one set of parameters of which every set shows another mixture: the centroid, one
 * vertex, or a draw keyed by (seed, sample, example, layer), without the layer where it was trained so. Private to
 * runtime/eval.
 */
#ifndef CR_EVAL_SETS_H
#define CR_EVAL_SETS_H

#include "credence/credence.h"
#include "runtime/data/batch.h"
#include "runtime/model/engine.h"
#include "runtime/posterior/posterior.h"

/* Most sets of one pass: as many token blocks as a micro-batch has; a pass of more has tokens enough. */
enum { CR_SETS_SHOWN = CR_MICRO_TOKENS / 16 };

struct cr_set {
    struct cr_lora *slots; /* owned: [n_layers * CR_N_PROJ], into params */
    float *params;         /* owned */
    struct cr_engine_noise noise;
};

struct cr_sets_prefix {
    struct cr_prefix seen; /* n_rows 0: no prefix */
    bool draws;
    double fixed[CR_PREFIX_VERTICES_MAX]; /* what every text sees without draws */
    uint64_t seed;
    size_t first; /* sample of member 0 */
};

struct cr_sets {
    struct cr_posterior **posteriors; /* owned, each owned */
    size_t n_posteriors;              /* 0: the base alone, as one set */
    struct cr_set *items;             /* owned: [n]; by task the common one and those of the tasks */
    size_t n;                         /* that answer together; by task 1 */
    bool by_task;                     /* which of the items answers is decided by the example */
    size_t n_slots;
    size_t n_shown;        /* sets that may share a pass, members of the engine */
    struct cr_lora *slots; /* owned: [n_shown][n_slots] what the engine reads; made with the largest rank of each place.
                            * NULL: the base alone */
    struct cr_sets_prefix prefix;
    struct cr_engine_noise *noise; /* owned: [n_shown] */
    struct cr_label_rows *rows;    /* owned: [n_shown], NULL where no adapter has any of its own */
    uint32_t samples;              /* of each adapter */
    uint32_t logit_draws;          /* of the linearised model around the one set; 0: sets of weights answer */
    double temperature;
    char method[16]; /* "base", the recorded method, "lora" where none is recorded, or "mixture" */
};

/* Opens the adapters and decides how many sets there will be. Errors: CR_E_USAGE for samples, temperatures or pruning
 * that these adapters do not have; those of cr_posterior_open. *sets must be zeroed; close it whatever is returned. */
cr_status cr_sets_open(const struct cr_eval_options *options, const struct cr_model *model, enum cr_tier tier,
                       const struct cr_host *host, struct cr_sets *sets, struct cr_error *err);
uint64_t cr_sets_bytes(const struct cr_sets *sets); /* that cr_sets_draw allocates */
cr_status cr_sets_draw(const struct cr_eval_options *options, struct cr_sets *sets, struct cr_error *err);
void cr_sets_close(struct cr_sets *sets);

/* Items there are: all are shown at once by task. */
size_t cr_sets_items(const struct cr_sets *sets);

/* The item that answers for a task (NULL: an example without one); 0 is the common one. */
uint32_t cr_sets_of_task(const struct cr_sets *sets, const char *task);

/* What the engine shows to every text, or NULL. */
static inline const struct cr_prefix *cr_sets_prefix(const struct cr_sets *sets)
{
    return sets->prefix.seen.n_rows > 0 ? &sets->prefix.seen : NULL;
}

/* Whether every text is shown something of its own, a mask or a mixture: then it shares no tokens with others. */
static inline bool cr_sets_by_text(const struct cr_sets *sets, const struct cr_eval_options *options)
{
    return options->mc_dropout || sets->prefix.draws;
}

/* The members of the engine's next passes are sets [first, first + n), n at most n_shown. */
void cr_sets_show(struct cr_sets *sets, size_t first, size_t n, struct cr_engine *engine);

#endif
