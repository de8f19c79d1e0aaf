/* nll: mean negative log-likelihood of examples under a model with its adapter as it stands.
 *
 * Several sets of parameters: of the mean of their probabilities, token by token for texts.
 * Choices: mean over examples of -log softmax(answer) over the example's own label tokens. Texts: mean over target
 * tokens, whole vocabulary. Sums in double in the order given, logarithm and exponential without the C library: the
 * same bits for any packing, thread count and backend.
 */
#ifndef CR_EVAL_NLL_H
#define CR_EVAL_NLL_H

#include "runtime/data/batch.h"
#include "runtime/model/engine.h"

struct cr_nll_job {
    struct cr_engine *engine;     /* all borrowed */
    struct cr_token_batch *batch; /* large enough for every example */
    const struct cr_dataset *dataset;
    const uint32_t *examples; /* [n] */
    size_t n;
    uint32_t n_labels;      /* that the engine was made with */
    uint32_t n_sets;        /* members of the engine, whose mean probability counts */
    const uint32_t *set_of; /* each example by the member of its task alone, as in data/batch.h, `examples` sorted;
                             * and the mean is one over examples, of the sum of their targets. NULL: by all members */
    double *set_nll;        /* [n_sets] work */
    float *scratch;         /* [n_sets][cr_nll_scratch_floats]; with set_of one */
    const struct cr_host *host;
    double *each; /* NLL of every target in order; NULL: not kept */
};

struct cr_nll {
    double mean; /* NaN when there are no targets */
    uint64_t n_targets, n_tokens;
};

size_t cr_nll_scratch_floats(size_t max_rows, uint32_t n_labels);

/* Errors: CR_E_STOPPED when the host asks to stop between two batches, and those of the engine. */
cr_status cr_nll_mean(const struct cr_nll_job *job, struct cr_nll *out, struct cr_error *err);

/* -log softmax(logits [n])[answer] in double; n at most CR_LABELS_MAX. */
double cr_label_nll(const float *logits, uint32_t n, uint32_t answer);

#endif
