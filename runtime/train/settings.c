/* The texts that say which run this is: settings that change the result, and digests of what went in. */
#include "runtime/train/train.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/io/hash.h"
#include "runtime/io/json.h"

static const char *const schedule_names[] = {"linear", "cosine", "constant"};

/* Canonical: sorted keys, no spaces, every digit of a double. Takes value. */
static cr_status canonical(json_t *value, char **out, struct cr_error *err)
{
    char *text = value != NULL ? json_dumps(value, JSON_SORT_KEYS | JSON_COMPACT | JSON_REAL_PRECISION(17)) : NULL;
    json_decref(value);
    char *copy = text != NULL ? cr_strdup(text) : NULL;
    free(text);
    if (copy == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for the settings");
    }
    *out = copy;
    return CR_OK;
}

static json_t *target_names(uint32_t targets)
{
    json_t *list = json_array();
    for (int proj = 0; proj < CR_N_PROJ; proj++) {
        if (targets >> proj & 1) {
            json_array_append_new(list, json_string(cr_proj_hf_name((enum cr_proj)proj)));
        }
    }
    return list;
}

static json_t *text_or_null(const char *text)
{
    return text != NULL ? cr_json_text(text) : json_null();
}

static void set_training(const struct cr_train *train, json_t *object)
{
    const struct cr_finetune_options *o = &train->options;
    json_object_set_new(object, "method", json_string(o->method));
    if (!train->method->prefix) {
        json_object_set_new(object, "targets", target_names(train->targets));
        json_object_set_new(object, "rank", json_integer(o->rank));
        json_object_set_new(object, "alpha", json_real(o->alpha));
        json_object_set_new(object, "dropout", json_real(o->dropout));
    }
    json_object_set_new(object, "steps", json_integer((json_int_t)train->n_steps));
    json_object_set_new(object, "batch-size", json_integer(o->batch_size));
    json_object_set_new(object, "grad-accumulation-steps", json_integer(o->grad_accumulation_steps));
    json_object_set_new(object, "lr", json_real(o->lr));
    json_object_set_new(object, "lr-schedule", json_string(schedule_names[o->lr_schedule]));
    json_object_set_new(object, "warmup", json_real(o->warmup));
    json_object_set_new(object, "weight-decay", json_real(o->weight_decay));
    json_object_set_new(object, "max-grad-norm", json_real(o->max_grad_norm));
    json_object_set_new(object, "seed", json_integer((json_int_t)o->seed));
    if (o->preset != NULL) {
        json_object_set_new(object, "preset", json_string(o->preset));
    }
    if (train->method->settings != NULL) {
        train->method->settings(o, object);
    }
}

cr_status cr_train_make_settings(struct cr_train *train, struct cr_error *err)
{
    const struct cr_finetune_options *o = &train->options;
    json_t *object = json_object();
    set_training(train, object);
    json_object_set_new(object, "max-seq-length", json_integer(o->max_seq_length));
    json_object_set_new(object, "on-long", json_string(o->on_long_skip ? "skip" : "cut"));
    json_object_set_new(object, "mask-prompt", json_string(o->train_on_prompt ? "no" : "yes"));
    json_object_set_new(object, "chat-template", text_or_null(o->chat_template));
    json_object_set_new(object, "system", text_or_null(o->system));
    json_object_set_new(object, "normalize", text_or_null(o->normalize));
    json_object_set_new(object, "validation", json_string(o->no_valid ? "none" : o->valid ? "file" : "held out"));
    json_object_set_new(object, "keep", json_string(o->keep_best ? "best" : "last"));
    json_object_set_new(object, "patience", json_integer(o->patience));
    json_object_set_new(object, "eval-every", json_integer(o->eval_every));
    json_object_set_new(object, "report-every", json_integer(o->report_every));
    json_object_set_new(object, "micro-tokens", json_integer(CR_MICRO_TOKENS));
    json_object_set_new(object, "tier", json_string(cr_tier_name(train->workers.tier)));
    json_object_set_new(object, "version", json_string(CREDENCE_VERSION));
    cr_free(train->settings);
    train->settings = NULL;
    return canonical(object, &train->settings, err);
}

static json_t *digest_64(uint64_t value)
{
    char hex[17];
    return json_string(cr_hex_64(hex, value));
}

static json_t *digest_of_data(const struct cr_dataset *data)
{
    char hex[33];
    struct cr_hash128 value = {.high = data->digest[0], .low = data->digest[1]};
    return json_string(cr_hex_128(hex, value));
}

cr_status cr_train_make_digests(struct cr_train *train, struct cr_error *err)
{
    const struct cr_gguf *gguf = train->model->gguf;
    json_t *object = json_object();
    json_object_set_new(object, "model", digest_64(train->model->base_hash));
    /* The keys of the model file: configuration, vocabulary, merges, chat template. */
    json_object_set_new(object, "tokenizer",
                        digest_64(cr_xxh3_64(cr_gguf_bytes(gguf), (size_t)cr_gguf_data_offset(gguf))));
    json_object_set_new(object, "data", digest_of_data(&train->data));
    json_object_set_new(object, "valid",
                        train->options.valid != NULL ? digest_of_data(&train->valid_file) : json_null());
    json_object_set_new(
        object, "start",
        digest_64(cr_xxh3_64(train->adapter->params, train->adapter->n_params * sizeof *train->adapter->params)));
    cr_free(train->digests);
    train->digests = NULL;
    CR_TRY(canonical(object, &train->digests, err));
    struct cr_hash *hash = cr_hash_create();
    if (hash == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for a hash");
    }
    /* The same settings on the same inputs are the same run: its files are the same bytes, its name as well. */
    cr_hash_update(hash, train->settings, strlen(train->settings) + 1);
    cr_hash_update(hash, train->digests, strlen(train->digests) + 1);
    train->run_id = cr_hash_64(hash);
    cr_hash_destroy(hash);
    return CR_OK;
}

struct differences {
    char text[480];
    size_t n;
};

static void shorten(char *out, size_t n, const json_t *value)
{
    char *text = value != NULL ? json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(6)) : NULL;
    snprintf(out, n, "%.40s", text != NULL ? text : "absent");
    free(text);
}

/* Adds "key recorded, given" for each member that differs, from either side. */
static void compare_objects(const json_t *recorded, const json_t *given, struct differences *d)
{
    json_t *keys = json_object();
    json_object_update(keys, (json_t *)(uintptr_t)recorded);
    json_object_update_missing(keys, (json_t *)(uintptr_t)given);
    const char *key;
    json_t *ignored;
    json_object_foreach(keys, key, ignored)
    {
        const json_t *a = json_object_get(recorded, key);
        const json_t *b = json_object_get(given, key);
        if (a != NULL && b != NULL && json_equal(a, b)) {
            continue;
        }
        char was[48];
        char is[48];
        shorten(was, sizeof was, a);
        shorten(is, sizeof is, b);
        size_t used = strlen(d->text);
        snprintf(d->text + used, sizeof d->text - used, "%s%.30s %s, now %s", d->n > 0 ? "; " : "", key, was, is);
        d->n++;
    }
    json_decref(keys);
}

static cr_status compare_section(const struct cr_checkpoint *checkpoint, uint32_t kind, const char *given,
                                 const char *path, struct differences *d, struct cr_error *err)
{
    const struct cr_checkpoint_section *section = cr_checkpoint_find(checkpoint, kind);
    if (section == NULL) {
        return cr_fail(err, CR_E_INPUT, "%s: section %u missing", path, kind);
    }
    json_t *recorded = NULL;
    json_t *now = NULL;
    cr_status status = cr_json_parse(section->data, section->bytes, path, &recorded, err);
    if (status == CR_OK) {
        status = cr_json_parse(given, strlen(given), "settings", &now, err);
    }
    if (status == CR_OK && !json_is_object(recorded)) {
        status = cr_fail(err, CR_E_INPUT, "%s: section %u is not a JSON object", path, kind);
    }
    if (status == CR_OK) {
        compare_objects(recorded, now, d);
    }
    json_decref(recorded);
    json_decref(now);
    return status;
}

cr_status cr_train_compare(const struct cr_train *train, const struct cr_checkpoint *checkpoint, const char *path,
                           struct cr_error *err)
{
    struct differences d = {0};
    CR_TRY(compare_section(checkpoint, CR_CKPT_SETTINGS, train->settings, path, &d, err));
    CR_TRY(compare_section(checkpoint, CR_CKPT_DIGESTS, train->digests, path, &d, err));
    if (d.n == 0) {
        return CR_OK;
    }
    if (!train->options.allow_inexact) {
        return cr_fail(err, CR_E_BUSY, "%s: %zu settings differ from the recorded ones: %s", path, d.n, d.text);
    }
    cr_host_log(train->host, CR_LOG_WARNING, "%s: resumed although %zu settings differ: %s", path, d.n, d.text);
    return CR_OK;
}
