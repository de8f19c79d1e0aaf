#include "runtime/eval/ood.h"

#include <math.h>

#include "credence/kernels/math.h"
#include "runtime/core/alloc.h"
#include "runtime/metrics/metrics.h"

struct scores {
    struct cr_scored *entropy, *information; /* owned: [n_in + n_out] */
    struct cr_ood_entropies kept;
    double sum_in, sum_out;
    size_t n;
};

static void add(struct scores *s, uint32_t n_choices, double entropy, double information, bool elsewhere)
{
    double share = entropy / cr_ln((double)n_choices);
    s->entropy[s->n] = (struct cr_scored){.score = share, .positive = elsewhere};
    s->information[s->n++] = (struct cr_scored){.score = information, .positive = elsewhere};
    *(elsewhere ? &s->sum_out : &s->sum_in) += share;
    *(elsewhere ? &s->kept.out[s->kept.n_out++] : &s->kept.in[s->kept.n_in++]) = share;
}

static cr_status add_score(void *ctx, const struct cr_score *score, struct cr_error *err)
{
    (void)err;
    add(ctx, score->example->n_choices, score->all->doubt.entropy, score->all->doubt.mutual_information, true);
    return CR_OK;
}

static cr_status measure(struct cr_scoring *s, const struct cr_outcomes *in, struct scores *scores,
                         struct cr_ood_metrics *out, struct cr_error *err)
{
    for (size_t i = 0; i < in->n; i++) {
        const struct cr_outcome *o = &in->items[i];
        add(scores, s->main.data.examples[o->index].n_choices, o->entropy, o->mutual_information, false);
    }
    CR_TRY(cr_scoring_run(s, &s->ood, add_score, scores, err));
    out->n_in = in->n;
    out->n_out = s->ood.n;
    out->mean_in = scores->sum_in / (double)out->n_in;
    out->mean_out = scores->sum_out / (double)out->n_out;
    out->auroc = cr_auroc(scores->entropy, scores->n);
    out->average_precision = cr_average_precision(scores->entropy, scores->n);
    bool several = s->sets.n > 1 || s->sets.logit_draws > 0;
    out->information_auroc = several ? cr_auroc(scores->information, scores->n) : (double)NAN;
    out->information_average_precision = several ? cr_average_precision(scores->information, scores->n) : (double)NAN;
    return CR_OK;
}

cr_status cr_ood_measure(struct cr_scoring *s, const struct cr_outcomes *in, struct cr_ood_metrics *out,
                         struct cr_ood_entropies *entropies, struct cr_error *err)
{
    size_t n = in->n + s->ood.n;
    struct scores scores = {.entropy = cr_alloc(n, sizeof(struct cr_scored)),
                            .information = cr_alloc(n, sizeof(struct cr_scored)),
                            .kept = {.in = cr_alloc(in->n, sizeof(double)), .out = cr_alloc(s->ood.n, sizeof(double))}};
    bool room =
        scores.entropy != NULL && scores.information != NULL && scores.kept.in != NULL && scores.kept.out != NULL;
    cr_status status = room ? measure(s, in, &scores, out, err)
                            : cr_fail(err, CR_E_MEMORY, "no memory for the scores of %zu examples", n);
    if (status == CR_OK) {
        *entropies = scores.kept;
    } else {
        cr_ood_entropies_deinit(&scores.kept);
    }
    cr_free(scores.entropy);
    cr_free(scores.information);
    return status;
}
