#include "tests/support/engine_test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/model/engine_internal.h"
#include "tests/support/kernel_test.h"

struct cr_test_model cr_test_model_make(const struct cr_tiny_spec *spec)
{
    struct cr_test_model m = {0};
    struct cr_error err = {0};
    struct cr_gguf *gguf;
    size_t n;
    ck_assert_msg(cr_tiny_model_bytes(spec, &m.bytes, &n, &err) == CR_OK, "%s", err.message);
    ck_assert_msg(cr_gguf_parse(m.bytes, n, "tiny", &gguf, &err) == CR_OK, "%s", err.message);
    ck_assert_msg(cr_model_from_gguf(gguf, "tiny", true, &m.model, &err) == CR_OK, "%s", err.message);
    return m;
}

void cr_test_model_free(struct cr_test_model *m)
{
    cr_model_close(m->model);
    cr_free(m->bytes);
}

struct cr_test_lora cr_test_lora_make(const struct cr_model *model, uint32_t targets, uint32_t rank, float scale,
                                      float range)
{
    struct cr_test_lora l = {0};
    uint32_t n_slots = model->config.n_layers * CR_N_PROJ;
    l.lora = calloc(n_slots, sizeof *l.lora);
    for (int pass = 0; pass < 2; pass++) {
        size_t at = 0;
        for (uint32_t i = 0; i < n_slots; i++) {
            const struct cr_qmat *w = &model->layers[i / CR_N_PROJ].proj[i % CR_N_PROJ];
            if ((targets >> (i % CR_N_PROJ) & 1) == 0) {
                continue;
            }
            if (pass == 1) {
                l.lora[i] = (struct cr_lora){.a = l.params + at,
                                             .b = l.params + at + rank * w->n_cols,
                                             .grad_a = l.grads + at,
                                             .grad_b = l.grads + at + rank * w->n_cols,
                                             .rank = rank,
                                             .n_in = (uint32_t)w->n_cols,
                                             .n_out = (uint32_t)w->n_rows,
                                             .tensor_id = i,
                                             .scale = scale};
            }
            at += rank * (w->n_cols + w->n_rows);
        }
        if (pass == 0) {
            l.n_params = at;
            l.params = cr_zalloc(at, sizeof(float));
            l.grads = cr_zalloc(at, sizeof(float));
        }
    }
    struct cr_rng rng = cr_rng_make(77);
    cr_fill_f32(&rng, l.params, l.n_params, -range, range);
    return l;
}

void cr_test_lora_free(struct cr_test_lora *l)
{
    free(l->lora);
    cr_free(l->params);
    cr_free(l->grads);
}

struct cr_token_batch cr_test_batch_make(const uint32_t *lengths, const uint32_t *examples, size_t n, uint32_t n_labels,
                                         float weight)
{
    size_t total = 0;
    for (size_t i = 0; i < n; i++) {
        total += lengths[i];
    }
    size_t room = (total + 15) / 16 * 16;
    struct cr_token_batch b = {.n_tokens = total, .n_blocks = room / 16, .max_tokens = room, .max_rows = room};
    b.ids = calloc(room, sizeof *b.ids);
    b.pos = calloc(room, sizeof *b.pos);
    b.example = calloc(room, sizeof *b.example);
    b.seg = calloc(n + 2, sizeof *b.seg);
    b.row_token = calloc(room, sizeof *b.row_token);
    b.row_target = calloc(room, sizeof *b.row_target);
    b.row_choices = calloc(room, sizeof *b.row_choices);
    b.row_weight = calloc(room, sizeof *b.row_weight);
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        struct cr_rng rng = cr_rng_make(5000 + examples[i]);
        b.seg[b.n_seg++] = (uint32_t)at;
        for (uint32_t t = 0; t < lengths[i]; t++) {
            b.ids[at + t] = (int32_t)cr_rng_below(&rng, CR_TINY_TOKENS);
            b.pos[at + t] = t;
            b.example[at + t] = examples[i];
            bool counts = n_labels > 0 ? t + 1 == lengths[i] : t > 0;
            if (counts) {
                size_t row = b.n_rows++;
                b.row_token[row] = (uint32_t)(n_labels > 0 ? at + t : at + t - 1);
                b.row_target[row] = n_labels > 0 ? (int32_t)(examples[i] % n_labels) : b.ids[at + t];
                b.row_choices[row] = n_labels;
                b.row_weight[row] = weight;
            }
        }
        at += lengths[i];
    }
    if (at < room) {
        b.seg[b.n_seg++] = (uint32_t)at;
    }
    for (; at < room; at++) {
        b.example[at] = UINT32_MAX;
    }
    b.seg[b.n_seg] = (uint32_t)room;
    return b;
}

void cr_test_batch_free(struct cr_token_batch *b)
{
    free(b->ids);
    free(b->pos);
    free(b->example);
    free(b->seg);
    free(b->row_token);
    free(b->row_target);
    free(b->row_choices);
    free(b->row_weight);
}

struct cr_engine *cr_test_engine(const struct cr_engine_options *options)
{
    struct cr_engine *e;
    struct cr_error err = {0};
    ck_assert_msg(cr_engine_create(options, &e, &err) == CR_OK, "%s", err.message);
    return e;
}

void cr_test_train(struct cr_engine *e, const struct cr_token_batch *batch, const struct cr_engine_noise *noise,
                   double *loss)
{
    struct cr_error err = {0};
    ck_assert_msg(cr_engine_train(e, batch, noise, loss, &err) == CR_OK, "%s", err.message);
}

bool cr_test_rounds(enum cr_tier tier)
{
    return tier == CR_TIER_AVX512_BF16 || tier == CR_TIER_AMX;
}

double cr_test_gradient_slack(enum cr_tier tier)
{
    double variance = cr_test_rounds(tier) ? 2 * 0x1p-18 / 3 : 128 * 0x1p-48 / 3;
    return 8 * 28 * variance / 2;
}

double cr_test_cosine(const float *a, const float *b, size_t n)
{
    double dot = 0, aa = 0, bb = 0;
    for (size_t i = 0; i < n; i++) {
        dot += (double)a[i] * (double)b[i];
        aa += (double)a[i] * (double)a[i];
        bb += (double)b[i] * (double)b[i];
    }
    return dot / sqrt(aa * bb);
}

double cr_test_loss(struct cr_engine *e, const struct cr_token_batch *batch, uint32_t n_labels)
{
    struct cr_error err = {0};
    double loss = 0;
    float *out = calloc(batch->n_rows * (n_labels > 0 ? n_labels : 1), sizeof(float));
    cr_status status =
        n_labels > 0 ? cr_engine_label_logits(e, batch, out, &err) : cr_engine_token_nll(e, batch, out, &err);
    ck_assert_msg(status == CR_OK, "%s", err.message);
    for (size_t row = 0; row < batch->n_rows; row++) {
        double nll = (double)out[row];
        if (n_labels > 0) {
            double sum = 0, z0 = (double)out[row * n_labels + (size_t)batch->row_target[row]];
            for (uint32_t c = 0; c < n_labels; c++) {
                sum += exp((double)out[row * n_labels + c] - z0);
            }
            nll = log(sum);
        }
        loss += (double)batch->row_weight[row] * nll;
    }
    free(out);
    return loss;
}

void cr_test_gradient_by(cr_test_loss_fn *loss_of, struct cr_engine *e, const struct cr_token_batch *batch,
                         uint32_t n_labels, float *param, const float *grad, size_t n, const char *what)
{
    double norm2 = 0;
    for (size_t i = 0; i < n; i++) {
        norm2 += (double)grad[i] * (double)grad[i];
    }
    double norm = sqrt(norm2);
    ck_assert_msg(norm > 1e-6, "%s: gradient norm %g", what, norm);
    float *saved = malloc(n * sizeof(float));
    memcpy(saved, param, n * sizeof(float));
    double best = HUGE_VAL;
    for (double move = 3e-2; move > 3e-3; move /= 3) {
        double step = move / norm, loss[2], actual = 0;
        for (int side = 0; side < 2; side++) {
            for (size_t i = 0; i < n; i++) {
                param[i] = (float)((double)saved[i] + (side == 0 ? -step : step) * (double)grad[i] / norm);
            }
            loss[side] = loss_of(e, batch, n_labels);
        }
        actual = (loss[1] - loss[0]) / (2 * step);
        double error = fabs(actual - norm) / norm;
        best = error < best ? error : best;
    }
    memcpy(param, saved, n * sizeof(float));
    free(saved);
    ck_assert_msg(best <= 1e-3, "%s: difference quotient off by %.2e of the gradient (norm %g)", what, best, norm);
}

void cr_test_logits(struct cr_engine *e, const struct cr_token_batch *batch, float *logits)
{
    size_t n_vocab = e->model->output.n_rows;
    struct cr_error err = {0};
    float *nll = cr_alloc(batch->n_rows, sizeof *nll);
    ck_assert_msg(cr_engine_token_nll(e, batch, nll, &err) == CR_OK, "%s", err.message);
    float *z = cr_alloc(e->rows.n_blocks * n_vocab * CR_LANES, sizeof *z);
    struct cr_qgemm_args gemm = {.w = e->model->output,
                                 .x = e->head_x,
                                 .x_stride = cr_head_stride_bytes(e),
                                 .y = z,
                                 .y_stride = n_vocab * CR_LANES,
                                 .n_blocks = e->rows.n_blocks};
    e->qgemm.fwd(&gemm, 0, n_vocab, e->scratch);
    for (size_t t = 0; t < e->rows.n_blocks * CR_LANES; t++) {
        for (size_t v = 0; v < n_vocab && e->row_of[t] != CR_NO_ROW; v++) {
            logits[e->row_of[t] * n_vocab + v] = z[(t / CR_LANES * n_vocab + v) * CR_LANES + t % CR_LANES];
        }
    }
    cr_free(z);
    cr_free(nll);
}
