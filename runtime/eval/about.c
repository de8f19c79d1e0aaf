#include "runtime/eval/about.h"

#include <inttypes.h>

#include "runtime/core/number.h"
#include "runtime/io/file.h"
#include "runtime/io/hash.h"

struct page {
    struct cr_kept *kept; /* borrowed */
    struct cr_review_about *about;
};

static cr_status add_fact(const struct page *page, const char *key, struct cr_buf *value, struct cr_error *err)
{
    struct cr_report_pair *fact = &page->about->facts[page->about->n_facts];
    fact->key = key;
    CR_TRY(cr_kept_text(page->kept, value, &fact->value, err));
    page->about->n_facts++;
    return CR_OK;
}

static cr_status add_adapter_fact(const struct page *page, const struct cr_scoring *s, struct cr_error *err)
{
    const struct cr_sets *sets = &s->sets;
    struct cr_buf text = {0};
    if (sets->n_posteriors == 0) {
        cr_buf_puts(&text, "none: the base model alone");
    } else {
        const struct cr_adapter *a = sets->posteriors[0]->adapter;
        for (size_t i = 0; i < sets->n_posteriors; i++) {
            cr_buf_printf(&text, "%s%s",
                          i == 0                       ? ""
                          : i + 1 < sets->n_posteriors ? ", "
                                                       : " and ",
                          s->options.adapters[i]);
        }
        cr_buf_printf(&text, ", method %s, %s", sets->method, sets->n_posteriors > 1 ? "the first of " : "");
        if (a->prefix != NULL) {
            cr_buf_printf(&text, "%" PRIu32 " vertices of %" PRIu32 " rows", a->prefix->n_vertices, a->prefix->n_rows);
        } else {
            cr_buf_printf(&text, "rank %" PRIu32 ",", a->rank);
        }
        for (int p = 0, n = 0; p < CR_N_PROJ; p++) {
            if ((a->targets >> p & 1) != 0) {
                cr_buf_printf(&text, "%s %s", n++ > 0 ? "," : "", cr_proj_hf_name((enum cr_proj)p));
            }
        }
    }
    if (sets->n > 1) {
        cr_buf_printf(&text, "; mean of %zu sets of weights", sets->n);
    }
    return add_fact(page, "Adapter", &text, err);
}

static cr_status add_calibration_fact(const struct page *page, const struct cr_scoring *s,
                                      const struct cr_eval_result *r, struct cr_error *err)
{
    struct cr_buf text = {0};
    char at[CR_NUMBER_BYTES], fitted[CR_NUMBER_BYTES], raw[CR_NUMBER_BYTES];
    if (r->calibrated == NULL) {
        return CR_OK;
    }
    cr_buf_printf(&text, "%s, fitted on %" PRIu64 " examples of %s, whose NLL is %s at it, %s raw",
                  cr_number_fixed(at, r->temperature, 4), r->n_calibration, s->options.calibrate,
                  cr_number_fixed(fitted, r->calibration_nll[1], 4), cr_number_fixed(raw, r->calibration_nll[0], 4));
    return add_fact(page, "Temperature", &text, err);
}

cr_status cr_scoring_about(const struct cr_scoring *s, const struct cr_eval_result *r, struct cr_kept *kept,
                           struct cr_review_about *out, struct cr_error *err)
{
    struct page page = {.kept = kept, .about = out};
    struct cr_buf text = {0};
    char hex[33];
    cr_buf_printf(&text, "Evaluation of %s",
                  cr_base_name(s->sets.n_posteriors > 0 ? s->options.adapter : s->options.model));
    if (s->sets.n_posteriors > 1) {
        cr_buf_printf(&text, " and %zu more together", s->sets.n_posteriors - 1);
    }
    cr_buf_printf(&text, " on %s", cr_base_name(s->options.data));
    CR_TRY(cr_kept_text(kept, &text, &out->title, err));
    cr_buf_printf(&text, "%s, %s, %" PRIu32 " layers, width %" PRIu32 ", weights %s", s->options.model,
                  s->model->config.architecture, s->model->config.n_layers, s->model->config.n_embd,
                  cr_hex_64(hex, s->model->base_hash));
    CR_TRY(add_fact(&page, "Model", &text, err));
    CR_TRY(add_adapter_fact(&page, s, err));
    struct cr_hash128 digest = {.high = s->main.data.digest[0], .low = s->main.data.digest[1]};
    cr_buf_printf(&text, "%s, %zu of %zu examples, contents %s", s->options.data, s->main.n, s->main.data.n,
                  cr_hex_128(hex, digest));
    CR_TRY(add_fact(&page, "Data", &text, err));
    if (s->main.data.n_truncated + s->main.data.n_skipped > 0) {
        cr_buf_printf(&text, "%" PRIu64 " cut to %" PRIu32 " tokens, %" PRIu64 " left out", s->main.data.n_truncated,
                      s->options.max_seq_length, s->main.data.n_skipped);
        CR_TRY(add_fact(&page, "Long examples", &text, err));
    }
    CR_TRY(add_calibration_fact(&page, s, r, err));
    if (s->ood.path != NULL) {
        cr_buf_printf(&text, "%s, %zu of %zu examples", s->ood.path, s->ood.n, s->ood.data.n);
        CR_TRY(add_fact(&page, "Elsewhere", &text, err));
    }
    cr_buf_printf(&text, "%" PRIu64 " tokens in %.0f s (%.0f tokens/s), %s, %d thread%s, credence %s", s->tokens,
                  s->seconds, r->tok_s, cr_tier_name(s->workers.tier), s->workers.parallel->n_workers,
                  s->workers.parallel->n_workers == 1 ? "" : "s", CREDENCE_VERSION);
    return add_fact(&page, "Run", &text, err);
}
