/* What a file or directory of this program, or one it might use, holds; and whether it can be used. */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "credence/credence.h"
#include "runtime/adapter/files.h"
#include "runtime/core/alloc.h"
#include "runtime/core/buf.h"
#include "runtime/core/error.h"
#include "runtime/io/checkpoint.h"
#include "runtime/io/gguf.h"
#include "runtime/io/hash.h"
#include "runtime/model/describe.h"
#include "runtime/model/model.h"
#include "runtime/posterior/method.h"
#include "runtime/posterior/posterior.h"
#include "runtime/posterior/run_summary.h"
#include "runtime/tokenizer/chat.h"
#include "runtime/tokenizer/tokenizer.h"

static void put_verdict(struct cr_buf *text, const char *what, cr_status status, const struct cr_error *reason)
{
    cr_buf_printf(text, "%-10s %s%s\n", what,
                  status == CR_OK ? "supported" : "not supported: ", status == CR_OK ? "" : reason->message);
}

static void put_tokenizer(struct cr_buf *text, const struct cr_gguf *gguf)
{
    struct cr_tokenizer *tok = NULL;
    struct cr_error reason;
    size_t n;
    cr_status status = cr_tokenizer_open(gguf, &tok, &reason);
    put_verdict(text, "tokenizer", status, &reason);
    if (status != CR_OK) {
        return;
    }
    const char *template_text = cr_tokenizer_chat_template(tok, &n);
    cr_buf_printf(text, "           %s %s, %zu tokens, %u bytes without a token\n", cr_tokenizer_model(tok),
                  cr_tokenizer_pre(tok), cr_tokenizer_n_vocab(tok), cr_tokenizer_n_missing_bytes(tok));
    enum cr_chat_kind kind = template_text == NULL ? CR_CHAT_NONE : cr_chat_detect(template_text, n);
    cr_buf_printf(text, "chat       %s\n",
                  template_text == NULL  ? "no template"
                  : kind == CR_CHAT_NONE ? "a template of unknown kind"
                                         : cr_chat_name(kind));
    cr_tokenizer_close(tok);
}

/* The base hash needs every byte of the weights; so do the checks of values. Takes gguf. */
static void put_model(struct cr_buf *text, struct cr_gguf *gguf, const char *path)
{
    struct cr_model *model = NULL;
    struct cr_error reason;
    char hex[17];
    put_tokenizer(text, gguf);
    cr_status status = cr_model_from_gguf(gguf, path, true, &model, &reason);
    put_verdict(text, "model", status, &reason);
    if (status == CR_OK) {
        const struct cr_model_config *c = &model->config;
        cr_buf_printf(text,
                      "           %s, %" PRIu32 " layers, width %" PRIu32 ", ffn %" PRIu32 ", %" PRIu32
                      " heads of %" PRIu32 " (%" PRIu32 " for keys), context %" PRIu32 ", vocabulary %" PRIu32 "%s\n",
                      c->architecture, c->n_layers, c->n_embd, c->n_ff, c->n_heads, c->head_dim, c->n_kv, c->n_ctx,
                      c->n_vocab, c->tied ? ", tied head" : "");
        cr_buf_printf(text, "base hash  %s\n", cr_hex_64(hex, model->base_hash));
        cr_model_close(model);
    } else {
        cr_gguf_close(gguf);
    }
}

static void put_pairs(struct cr_buf *text, const struct cr_adapter *adapter)
{
    cr_buf_printf(text,
                  "           rank %" PRIu32 ", alpha %g, dropout %g, %" PRIu32 " layers, %zu weights\ntargets   ",
                  adapter->rank, adapter->alpha, adapter->dropout, adapter->n_layers, adapter->n_trainable);
    for (int proj = 0; proj < CR_N_PROJ; proj++) {
        if ((adapter->targets >> proj & 1) != 0) {
            cr_buf_printf(text, " %s", cr_proj_hf_name((enum cr_proj)proj));
        }
    }
    cr_buf_putc(text, '\n');
}

static void put_adapter(struct cr_buf *text, const char *path)
{
    struct cr_adapter *adapter = NULL;
    struct cr_error reason;
    char hex[17];
    struct cr_adapter_base base = {0};
    cr_status status = cr_adapter_read(path, NULL, false, &adapter, &base, &reason);
    put_verdict(text, "adapter", status, &reason);
    if (status != CR_OK) {
        return;
    }
    const struct cr_prefix *prefix = adapter->prefix;
    if (prefix != NULL) {
        cr_buf_printf(text, "           prefix, %" PRIu32 " rows of %" PRIu32 " features, %" PRIu32 " layers\n",
                      prefix->n_rows, prefix->n_features, prefix->n_layers);
    } else {
        put_pairs(text, adapter);
    }
    cr_buf_printf(text, "base       %s, hash %s\n", base.architecture[0] != '\0' ? base.architecture : "unknown",
                  adapter->base_hash != 0 ? cr_hex_64(hex, adapter->base_hash) : "unknown");
    cr_adapter_destroy(adapter);
}

static void put_kind(struct cr_buf *text, const struct cr_posterior *p)
{
    const struct cr_ivon_group *a = &p->groups[CR_IVON_GROUP_A], *b = &p->groups[CR_IVON_GROUP_B];
    const struct cr_prefix *prefix = p->adapter->prefix;
    const char *name = cr_posterior_kind_name(p->kind);
    if (name == NULL) {
        return;
    }
    cr_buf_printf(text, "           %s, ", name);
    switch (p->kind) {
    case CR_POSTERIOR_IVON:
        cr_buf_printf(text, "ess %g for A and %g for B, weight decay %g", a->ess, b->ess, a->weight_decay);
        break;
    case CR_POSTERIOR_SWAG:
        cr_buf_printf(text, "%" PRIu64 " snapshots, rank %" PRIu32 " of %" PRIu32 ", scale %g", p->swag.n,
                      cr_swag_rank(&p->swag), p->swag.n_rows, p->swag_scale);
        if (p->adapter->n_labels > 0) {
            cr_buf_printf(text, ", %" PRIu32 " label rows", p->adapter->n_labels);
        }
        break;
    case CR_POSTERIOR_BLOB:
        cr_buf_printf(text, "prior sigma %g", p->prior_std);
        break;
    case CR_POSTERIOR_LAPLACE:
        cr_buf_printf(text, "curvature of %" PRIu64 " examples, prior precision %g", p->laplace.n_examples,
                      p->laplace.precision);
        break;
    case CR_POSTERIOR_PREFIX:
        cr_buf_printf(text, "%" PRIu32 " vertices, %" PRIu32 " label rows each", prefix->n_vertices, prefix->n_labels);
        break;
    case CR_POSTERIOR_ENSEMBLE:
        cr_buf_printf(text, "%" PRIu32 " members of %zu weights", p->sets.n, p->adapter->n_trainable);
        break;
    default:
        cr_buf_printf(text, "%" PRIu32 " tasks and their mean", p->sets.n - 1);
    }
    cr_buf_puts(text, "\n");
}

/* What can be drawn from beside an adapter; what stands in the way is said. */
static void put_posterior(struct cr_buf *text, const char *dir)
{
    struct cr_posterior *p = NULL;
    struct cr_error reason;
    cr_status status = cr_posterior_open(dir, NULL, false, NULL, CR_TIER_SCALAR, &p, &reason);
    put_verdict(text, "posterior", status, &reason);
    if (status != CR_OK) {
        return;
    }
    put_kind(text, p);
    cr_posterior_close(p);
}

static cr_status put_gguf(struct cr_buf *text, const char *path, struct cr_error *err)
{
    struct cr_gguf *gguf = NULL;
    CR_TRY(cr_gguf_open(path, &gguf, err));
    cr_gguf_describe(gguf, text);
    if (cr_gguf_is_adapter(gguf)) {
        cr_gguf_close(gguf);
        put_adapter(text, path);
    } else if (cr_gguf_is_vocabulary(gguf)) {
        put_tokenizer(text, gguf);
        cr_gguf_close(gguf);
    } else {
        put_model(text, gguf, path);
    }
    return CR_OK;
}

static cr_status put_checkpoint(struct cr_buf *text, const char *path, struct cr_error *err)
{
    static const char *const names[] = {
        [CR_CKPT_SETTINGS] = "settings",
        [CR_CKPT_WEIGHTS] = "weights",
        [CR_CKPT_OPTIMISER] = "optimiser",
        [CR_CKPT_RNG] = "random state",
        [CR_CKPT_POSITION] = "position",
        [CR_CKPT_HISTORY] = "history",
        [CR_CKPT_BEST] = "best weights",
        [CR_CKPT_DIGESTS] = "digests",
        [CR_CKPT_JOURNAL] = "journal",
        [CR_CKPT_ADAPTER] = "shapes",
        [CR_CKPT_METHOD] = "counters",
        [CR_CKPT_HESSIAN] = "curvature",
        [CR_CKPT_TRAINED] = "trained",
        [CR_CKPT_MOMENTS] = "moments",
        [CR_CKPT_DEVIATIONS] = "deviations",
        [CR_CKPT_SPREAD] = "spread",
        [CR_CKPT_SPREAD_OPTIMISER] = "its moments",
        [CR_CKPT_START] = "start",
    };
    struct cr_checkpoint checkpoint;
    char hex[17];
    CR_TRY(cr_checkpoint_open(path, &checkpoint, err));
    cr_buf_printf(text, "file       checkpoint, %zu bytes, intact\nrun        %s\nstep       %" PRIu64 "\n",
                  checkpoint.map.bytes, cr_hex_64(hex, checkpoint.run_id), checkpoint.step);
    for (size_t i = 0; i < checkpoint.n_sections; i++) {
        uint32_t kind = checkpoint.sections[i].kind;
        bool known = kind < sizeof names / sizeof names[0] && names[kind] != NULL;
        cr_buf_printf(text, "section    %s, %zu bytes\n", known ? names[kind] : "of unknown kind",
                      checkpoint.sections[i].bytes);
    }
    cr_checkpoint_close(&checkpoint);
    return CR_OK;
}

/* The checkpoints of one run among those of a directory; `run_id` "" until it is known. */
struct checkpoints {
    char run_id[17];
    bool failed; /* no memory: not all was seen */
    uint64_t n, n_others, newest;
    struct timespec changed; /* the last of all files that were seen while no run was known */
};

/* The run that the directory is of, as its summary says. */
static void read_run_id(struct checkpoints *c, const char *dir)
{
    struct cr_run_summary summary;
    bool found = false;
    c->failed = c->failed || cr_run_summary_read(dir, &summary, &found, NULL) != CR_OK;
    if (found) {
        memcpy(c->run_id, summary.run_id, sizeof c->run_id);
    }
}

static void see_checkpoint(struct checkpoints *c, const char *file, bool choose)
{
    uint64_t run_id, step;
    struct stat st;
    char hex[17];
    if (!cr_checkpoint_peek(file, &run_id, &step) || stat(file, &st) != 0) {
        return;
    }
    cr_hex_64(hex, run_id);
    if (choose) {
        const struct timespec *t = &st.st_mtim;
        if (c->run_id[0] == '\0' || t->tv_sec > c->changed.tv_sec ||
            (t->tv_sec == c->changed.tv_sec && t->tv_nsec > c->changed.tv_nsec)) {
            memcpy(c->run_id, hex, sizeof hex);
            c->changed = *t;
        }
    } else if (strcmp(hex, c->run_id) == 0) {
        c->n++;
        c->newest = step > c->newest ? step : c->newest;
    } else {
        c->n_others++;
    }
}

static void see_checkpoints(struct checkpoints *c, const char *path, bool choose)
{
    DIR *handle = opendir(path);
    for (struct dirent *entry; handle != NULL && (entry = readdir(handle)) != NULL;) {
        char *file = cr_path_join(path, entry->d_name);
        if (file != NULL) {
            see_checkpoint(c, file, choose);
        }
        c->failed = c->failed || file == NULL;
        cr_free(file);
    }
    if (handle != NULL) {
        closedir(handle);
    }
}

/* Those of the finished run, else of the one that wrote last: --force leaves the checkpoints of the run before. */
static void put_checkpoints(struct cr_buf *text, const char *dir)
{
    struct checkpoints c = {0};
    char *path = cr_path_join(dir, "checkpoints");
    if (path == NULL) {
        text->failed = true;
        return;
    }
    read_run_id(&c, dir);
    if (c.run_id[0] == '\0') {
        see_checkpoints(&c, path, true);
    }
    see_checkpoints(&c, path, false);
    text->failed = text->failed || c.failed;
    if (c.n > 0) {
        cr_buf_printf(text, "checkpoints %" PRIu64 ", newest of step %" PRIu64 "\n", c.n, c.newest);
    }
    if (c.n_others > 0) {
        cr_buf_printf(text, "           %" PRIu64 " of other runs\n", c.n_others);
    }
    cr_free(path);
}

static cr_status put_directory(struct cr_buf *text, const char *path, struct cr_error *err)
{
    char escaped[CR_ESCAPE_BYTES];
    bool adapter, posterior, begun, finished;
    size_t before = text->n;
    CR_TRY(cr_dir_has(path, "adapter_config.json", &adapter, err));
    CR_TRY(cr_dir_has(path, CR_POSTERIOR_FILE, &posterior, err));
    CR_TRY(cr_dir_has(path, "train.jsonl", &begun, err));
    CR_TRY(cr_dir_has(path, "summary.json", &finished, err));
    if (adapter) {
        cr_buf_puts(text, "directory  PEFT adapter\n");
        put_adapter(text, path);
    }
    if (posterior) {
        put_posterior(text, path);
    }
    if (begun) {
        cr_buf_printf(text, "run        %s\n", finished ? "finished" : "not finished");
    }
    put_checkpoints(text, path);
    if (text->n == before && !text->failed) {
        return cr_fail(err, CR_E_INPUT, "%s: expected a directory with adapter_config.json or checkpoints",
                       cr_escape(escaped, sizeof escaped, path, strlen(path)));
    }
    return CR_OK;
}

static cr_status put_file(struct cr_buf *text, const char *path, struct cr_error *err)
{
    struct cr_file_map map;
    char escaped[CR_ESCAPE_BYTES];
    CR_TRY(cr_file_map_open(path, &map, err));
    bool gguf = map.bytes >= 4 && memcmp(map.data, "GGUF", 4) == 0;
    bool checkpoint = map.bytes >= 8 && memcmp(map.data, "CRCKPT\r\n", 8) == 0;
    size_t bytes = map.bytes;
    cr_file_map_close(&map);
    if (checkpoint) {
        return put_checkpoint(text, path, err);
    }
    if (gguf) {
        return put_gguf(text, path, err);
    }
    return cr_fail(err, CR_E_INPUT, "%s: %zu bytes of no known kind, expected a GGUF or checkpoint file",
                   cr_escape(escaped, sizeof escaped, path, strlen(path)), bytes);
}

cr_status cr_info(const char *path, cr_emit_fn *emit, void *ctx, struct cr_error *err)
{
    struct cr_buf text = {0};
    struct stat st;
    char escaped[CR_ESCAPE_BYTES];
    if (stat(path, &st) != 0) {
        return cr_fail(err, CR_E_IO, "%s: %s", cr_escape(escaped, sizeof escaped, path, strlen(path)), strerror(errno));
    }
    cr_status status = S_ISDIR(st.st_mode) ? put_directory(&text, path, err) : put_file(&text, path, err);
    if (status == CR_OK && text.failed) {
        status = cr_fail(err, CR_E_MEMORY, "no memory for the text");
    }
    if (status == CR_OK && !emit(ctx, text.data, text.n)) {
        status = cr_fail(err, CR_E_IO, "the text could not be written");
    }
    cr_buf_free(&text);
    return status;
}
