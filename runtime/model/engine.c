/* engine: memory plan, creation, and the entry points of a pass. */
#include "runtime/model/engine.h"

#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/model/engine_internal.h"

static uint32_t first_adapted(const struct cr_engine *e)
{
    uint32_t n_layers = e->options.prefix == NULL ? e->model->config.n_layers : 0;
    for (uint32_t layer = 0; layer < n_layers; layer++) {
        for (enum cr_proj proj = 0; proj < CR_N_PROJ; proj++) {
            if (cr_engine_rank(e, layer, proj) > 0) {
                return layer;
            }
        }
    }
    return n_layers;
}

/* Everything that does not need memory. */
static void configure(struct cr_engine *e, const struct cr_engine_options *options)
{
    const struct cr_model_config *config = &options->model->config;
    memset(e, 0, sizeof *e);
    e->options = *options;
    e->options.max_seq = options->max_seq > CR_LANES ? options->max_seq : CR_LANES; /* the pad segment counts too */
    e->model = options->model;
    e->embd = config->n_embd;
    e->q = (size_t)config->n_heads * config->head_dim;
    e->kv = (size_t)config->n_kv * config->head_dim;
    e->ff = config->n_ff;
    e->n_members = options->n_members > 0 ? options->n_members : 1;
    e->max_blocks = cr_tl16_blocks(options->max_tokens);
    cr_qgemm_ops_init(&e->qgemm, options->tier);
    cr_lowrank_ops_init(&e->lowrank, options->tier);
    cr_attention_ops_init(&e->attention, options->tier);
    cr_norm_ops_init(&e->norm, options->tier);
    cr_rope_ops_init(&e->rope, options->tier);
    cr_act_ops_init(&e->act, options->tier);
    cr_cast_ops_init(&e->cast, options->tier);
    cr_embed_ops_init(&e->embed, options->tier);
    cr_xent_ops_init(&e->xent, options->tier);
    e->xt = e->qgemm.x_type;
    e->first_layer = first_adapted(e);
}

size_t cr_engine_bytes(const struct cr_engine_options *options)
{
    struct cr_engine e;
    configure(&e, options);
    return cr_engine_plan(&e, NULL) + sizeof e + e.model->config.n_layers * (sizeof *e.states + sizeof *e.x_in);
}

cr_status cr_engine_create(const struct cr_engine_options *options, struct cr_engine **out, struct cr_error *err)
{
    uint32_t n_layers = options->model->config.n_layers;
    struct cr_engine *e = cr_zalloc(1, sizeof *e);
    if (e == NULL) {
        return cr_fail(err, CR_E_MEMORY, "engine: no memory for %zu bytes", sizeof *e);
    }
    configure(e, options);
    e->states = cr_zalloc(n_layers, sizeof *e->states);
    e->x_in = cr_zalloc(n_layers, sizeof *e->x_in);
    size_t bytes = cr_engine_plan(e, NULL);
    /* zeroed so that pad lanes are finite numbers before anything has run */
    e->arena = cr_zalloc(1, bytes);
    if (e->states == NULL || e->x_in == NULL || e->arena == NULL) {
        cr_engine_destroy(e);
        return cr_fail(err, CR_E_MEMORY, "engine: no memory for %zu bytes of activations", bytes);
    }
    cr_engine_plan(e, e->arena);
    const struct cr_model_config *config = &e->model->config;
    cr_rope_table(e->rope_table, cr_engine_positions(e), config->n_rot, config->rope_base, config->rope_freq_scale,
                  e->model->rope_factors);
    if (options->label_ids != NULL) {
        cr_model_label_rows(e->model, options->tier, options->label_ids, options->n_labels, e->label_rows);
    }
    *out = e;
    return CR_OK;
}

void cr_engine_destroy(struct cr_engine *engine)
{
    if (engine != NULL) {
        cr_free(engine->arena);
        cr_free(engine->states);
        cr_free(engine->x_in);
        cr_free(engine);
    }
}

/* Checks a batch against the plan and sets the pass up. */
static cr_status begin(struct cr_engine *e, const struct cr_token_batch *batch, bool labels, struct cr_error *err)
{
    if (batch->n_blocks > e->max_blocks || batch->n_blocks == 0 || batch->n_rows == 0 ||
        batch->n_rows > e->max_blocks * CR_LANES) {
        return cr_fail(err, CR_E_USAGE, "engine: batch of %zu blocks and %zu rows, planned for %zu blocks",
                       batch->n_blocks, batch->n_rows, e->max_blocks);
    }
    if (labels != (e->options.label_ids != NULL)) {
        return cr_fail(err, CR_E_USAGE, "engine: made for %s, asked for %s",
                       e->options.label_ids != NULL ? "label tokens" : "the whole vocabulary",
                       labels ? "label tokens" : "the whole vocabulary");
    }
    for (size_t s = 0; s < batch->n_seg; s++) {
        if (batch->seg[s + 1] - batch->seg[s] > e->options.max_seq) {
            return cr_fail(err, CR_E_USAGE, "engine: sequence of %u tokens, planned for %zu",
                           batch->seg[s + 1] - batch->seg[s], e->options.max_seq);
        }
    }
    CR_TRY(cr_parts_set(e, batch, err));
    CR_TRY(cr_lead_set(e, err));
    return cr_prefix_set(e, err);
}

static cr_status stopped(struct cr_error *err)
{
    return cr_fail(err, CR_E_STOPPED, "stopped within a pass");
}

cr_status cr_engine_train(struct cr_engine *engine, const struct cr_token_batch *batch,
                          const struct cr_engine_noise *noise, double *loss, struct cr_error *err)
{
    bool labels = engine->options.label_ids != NULL;
    CR_TRY(begin(engine, batch, labels, err));
    engine->noise = noise;
    engine->train = true;
    if (!cr_forward(engine)) {
        return stopped(err);
    }
    cr_head_norm(engine);
    if (labels) {
        cr_head_label_loss(engine, loss);
    } else {
        cr_head_token_loss(engine, loss);
    }
    return cr_backward(engine) ? CR_OK : stopped(err);
}

void cr_engine_dropout(struct cr_engine *engine, const struct cr_engine_noise *noise)
{
    memcpy(engine->forward_noise, noise, engine->n_members * sizeof *noise);
}

/* Forward pass up to the head's input. */
static cr_status forward_only(struct cr_engine *e, const struct cr_token_batch *batch, bool labels,
                              struct cr_error *err)
{
    CR_TRY(begin(e, batch, labels, err));
    e->noise = e->forward_noise;
    e->train = false;
    if (!cr_forward(e)) {
        return stopped(err);
    }
    cr_head_norm(e);
    return CR_OK;
}

cr_status cr_engine_label_logits(struct cr_engine *engine, const struct cr_token_batch *batch, float *logits,
                                 struct cr_error *err)
{
    CR_TRY(forward_only(engine, batch, true, err));
    cr_head_label_logits(engine);
    size_t n = engine->options.n_labels;
    for (size_t t = 0; t < engine->rows.n_blocks * CR_LANES; t++) {
        for (size_t c = 0; c < n && engine->row_of[t] != CR_NO_ROW; c++) {
            logits[engine->row_of[t] * n + c] = engine->head_z[(t / CR_LANES * n + c) * CR_LANES + t % CR_LANES];
        }
    }
    return CR_OK;
}

cr_status cr_engine_token_nll(struct cr_engine *engine, const struct cr_token_batch *batch, float *nll,
                              struct cr_error *err)
{
    CR_TRY(forward_only(engine, batch, false, err));
    cr_head_token_stats(engine);
    for (size_t t = 0; t < engine->rows.n_blocks * CR_LANES; t++) {
        if (engine->row_of[t] != CR_NO_ROW) {
            nll[engine->row_of[t]] = engine->row_lse[t] - engine->row_label[t];
        }
    }
    return CR_OK;
}

cr_status cr_engine_fill_prefix(struct cr_engine *engine, uint32_t vertex, const struct cr_token_batch *batch,
                                struct cr_error *err)
{
    const struct cr_prefix *prefix = engine->options.prefix;
    if (prefix == NULL || vertex >= prefix->n_vertices || batch->n_seg == 0 || batch->seg[1] < prefix->n_rows) {
        return cr_fail(err, CR_E_USAGE, "engine: no sequence of %u tokens for vertex %u of %u",
                       prefix != NULL ? prefix->n_rows : 0, vertex, prefix != NULL ? prefix->n_vertices : 0);
    }
    engine->prefix.filling = true;
    engine->prefix.vertex = vertex;
    cr_status status = forward_only(engine, batch, engine->options.label_ids != NULL, err);
    engine->prefix.filling = false;
    return status;
}
