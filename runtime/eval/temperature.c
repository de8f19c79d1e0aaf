#include "runtime/eval/temperature.h"

#include "runtime/core/alloc.h"
#include "runtime/metrics/calibrate.h"

struct gathered {
    struct cr_logits set;
    double *logits; /* owned, as the next two: what `set` looks at */
    uint32_t *n_classes, *labels;
};

/* z of one example. */
static void logits_of(const struct cr_score *score, double *z)
{
    if (score->logits == NULL) {
        cr_log_probs(score->probs, score->example->n_choices, z);
        return;
    }
    for (uint32_t c = 0; c < score->example->n_choices; c++) {
        z[c] = (double)score->logits[c];
    }
}

static cr_status gather(void *ctx, const struct cr_score *score, struct cr_error *err)
{
    struct gathered *g = ctx;
    size_t i = g->set.n++;
    (void)err;
    logits_of(score, g->logits + i * g->set.stride);
    g->n_classes[i] = score->example->n_choices;
    g->labels[i] = score->example->answer;
    return CR_OK;
}

static cr_status fit(struct cr_scoring *s, struct gathered *g, double nll[2], struct cr_error *err)
{
    size_t n = s->calibration.n;
    g->set.stride = s->n_labels;
    g->logits = cr_alloc(n * g->set.stride, sizeof *g->logits);
    g->n_classes = cr_alloc(n, sizeof *g->n_classes);
    g->labels = cr_alloc(n, sizeof *g->labels);
    if (g->logits == NULL || g->n_classes == NULL || g->labels == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for the logits of %zu examples", n);
    }
    CR_TRY(cr_scoring_run(s, &s->calibration, gather, g, err));
    g->set.logits = g->logits;
    g->set.n_classes = g->n_classes;
    g->set.labels = g->labels;
    s->temperature = cr_temperature_fit(&g->set);
    nll[0] = cr_temperature_nll(&g->set, 1);
    nll[1] = cr_temperature_nll(&g->set, s->temperature);
    return CR_OK;
}

cr_status cr_temperature_of(struct cr_scoring *s, double nll[2], struct cr_error *err)
{
    struct gathered g = {0};
    cr_status status = fit(s, &g, nll, err);
    cr_free(g.logits);
    cr_free(g.n_classes);
    cr_free(g.labels);
    return status;
}

void cr_temperature_apply(double temperature, const struct cr_score *score, double *probs, double *nll)
{
    double z[CR_LABELS_MAX];
    uint32_t n = score->example->n_choices;
    logits_of(score, z);
    for (uint32_t c = 0; c < n; c++) {
        z[c] /= temperature;
    }
    cr_softmax(z, n, probs);
    *nll = cr_softmax_nll(z, n, score->example->answer);
}
