/* engine_prefix_case: engines with learned prefixes. */
#ifndef CR_TESTS_ENGINE_PREFIX_CASE_H
#define CR_TESTS_ENGINE_PREFIX_CASE_H

#include <string.h>

#include "tests/runtime/prefix_case.h"
#include "tests/support/engine_test.h"

static const int32_t label_ids[3] = {256, 257, 258};
enum { N_LABELS = 3, MAX_TOKENS = 160, N_WORKERS = 3 };

struct kind {
    enum cr_tier tier;
    uint32_t n_labels, n_members;
    bool train, recompute;
};

static inline struct cr_engine *make_engine(const struct cr_model *model, const struct cr_prefix *prefix,
                                            const struct cr_parallel *parallel, const struct kind *kind)
{
    struct cr_engine_options options = {.model = model,
                                        .n_members = kind->n_members,
                                        .parallel = parallel,
                                        .tier = kind->tier,
                                        .max_tokens = MAX_TOKENS,
                                        .max_seq = 100,
                                        .label_ids = kind->n_labels > 0 ? label_ids : NULL,
                                        .n_labels = kind->n_labels,
                                        .prefix = prefix,
                                        .max_prefixes = 6,
                                        .train = kind->train,
                                        .recompute = kind->recompute};
    return cr_test_engine(&options);
}

static inline double train(struct cr_engine *e, struct cr_prefix *prefix, const struct cr_token_batch *batch)
{
    struct cr_engine_noise noise = {.dropout = 0};
    double loss = 0;
    memset(prefix->grads, 0, cr_prefix_floats(prefix) * sizeof(float));
    cr_test_train(e, batch, &noise, &loss);
    return loss;
}

#endif
