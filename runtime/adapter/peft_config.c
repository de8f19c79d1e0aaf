#include "runtime/adapter/peft_config.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/core/error.h"
#include "runtime/io/file.h"
#include "runtime/io/json.h"

/* A configuration is a few kilobytes; patterns of a large model some hundred. */
#define CONFIG_BYTES_MAX ((size_t)4 << 20)

/* One entry a module is the most that has a meaning: 7 projections of more than 500 layers. */
enum { PATTERNS_MAX = 4096 };

/* Settings whose presence changes what the adapter computes: refused unless null, false, empty or the text given. */
static const struct {
    const char *key, *harmless;
} unsupported[] = {
    {"bias", "none"},
    {"modules_to_save", NULL},
    {"fan_in_fan_out", NULL},
    {"lora_bias", NULL},
    {"layer_replication", NULL},
    {"megatron_config", NULL},
    {"alora_invocation_tokens", NULL},
    {"trainable_token_indices", NULL},
    {"target_parameters", NULL},
    {"arrow_config", NULL},
    {"monteclora_config", NULL},
    {"loftq_config", NULL},
    {"corda_config", NULL},
};

/* Initialisations that also change the base weights, which a quantised file does not have. */
static const char *const changed_base[] = {"pissa", "olora", "corda", "loftq", "lora_ga"};

static bool harmless(const json_t *value, const char *text)
{
    return value == NULL || json_is_null(value) || json_is_false(value) ||
           (json_is_array(value) && json_array_size(value) == 0) ||
           (json_is_object(value) && json_object_size(value) == 0) ||
           (json_is_string(value) && text != NULL && strcmp(json_string_value(value), text) == 0);
}

static cr_status refuse(const char *path, const char *key, const json_t *value, struct cr_error *err)
{
    char shown[CR_ESCAPE_BYTES], name[CR_ESCAPE_BYTES];
    const char *text = json_is_string(value) ? json_string_value(value) : json_is_true(value) ? "true" : "set";
    cr_escape(shown, sizeof shown, text, strlen(text));
    cr_escape(name, sizeof name, key, strlen(key));
    return cr_fail(err, CR_E_INPUT, "%s: \"%s\" is %s: this variant of LoRA is not supported", path, name, shown);
}

static cr_status check_variants(json_t *object, const char *path, struct cr_error *err)
{
    for (size_t i = 0; i < sizeof unsupported / sizeof unsupported[0]; i++) {
        const json_t *value = json_object_get(object, unsupported[i].key);
        if (!harmless(value, unsupported[i].harmless)) {
            return refuse(path, unsupported[i].key, value, err);
        }
    }
    const json_t *init = json_object_get(object, "init_lora_weights");
    for (size_t i = 0; json_is_string(init) && i < sizeof changed_base / sizeof changed_base[0]; i++) {
        if (strncmp(json_string_value(init), changed_base[i], strlen(changed_base[i])) == 0) {
            return refuse(path, "init_lora_weights", init, err);
        }
    }
    const json_t *excluded = json_object_get(object, "exclude_modules");
    if (!json_is_array(excluded) && !harmless(excluded, "")) { /* a regular expression */
        return refuse(path, "exclude_modules", excluded, err);
    }
    void *at = json_object_iter(object);
    for (; at != NULL; at = json_object_iter_next(object, at)) {
        const char *key = json_object_iter_key(at);
        if (strncmp(key, "use_", 4) == 0 && strcmp(key, "use_rslora") != 0 &&
            !harmless(json_object_iter_value(at), NULL)) {
            return refuse(path, key, json_object_iter_value(at), err);
        }
    }
    return CR_OK;
}

/* peft_type and task_type. */
static cr_status check_kind(const json_t *object, const char *path, bool *prefix, struct cr_error *err)
{
    const char *kind = NULL, *task = NULL;
    char shown[CR_ESCAPE_BYTES];
    CR_TRY(cr_json_get_str(object, "peft_type", true, &kind, NULL, path, err));
    *prefix = strcmp(kind, "PREFIX_TUNING") == 0;
    if (!*prefix && strcmp(kind, "LORA") != 0) {
        return cr_fail(err, CR_E_INPUT, "%s: \"peft_type\" is \"%s\", \"LORA\" or \"PREFIX_TUNING\" expected", path,
                       cr_escape(shown, sizeof shown, kind, strlen(kind)));
    }
    CR_TRY(cr_json_get_str(object, "task_type", false, &task, NULL, path, err));
    if (task != NULL && strcmp(task, "CAUSAL_LM") != 0) {
        return cr_fail(err, CR_E_INPUT, "%s: \"task_type\" is \"%s\", \"CAUSAL_LM\" expected", path,
                       cr_escape(shown, sizeof shown, task, strlen(task)));
    }
    return CR_OK;
}

/* A list of module names, each ending in one of the seven projections. A text is a pattern over module names (or
 * "all-linear"): the tensors then say which are meant. */
static cr_status read_targets(struct cr_peft_config *config, struct cr_error *err)
{
    const json_t *value = json_object_get(config->object, "target_modules");
    char shown[CR_ESCAPE_BYTES];
    if (value == NULL || json_is_null(value) || (json_is_string(value) && json_string_length(value) > 0)) {
        return CR_OK;
    }
    if (!json_is_array(value) || json_array_size(value) == 0) {
        return cr_fail(err, CR_E_INPUT, "%s: \"target_modules\" is %s, a list of projections expected", config->path,
                       json_is_array(value) || json_is_string(value) ? "empty" : "neither a list nor a text");
    }
    for (size_t i = 0; i < json_array_size(value); i++) {
        const json_t *item = json_array_get(value, i);
        const char *name = json_is_string(item) ? json_string_value(item) : "";
        const char *dot = strrchr(name, '.');
        uint32_t bit = 0;
        for (int p = 0; p < CR_N_PROJ; p++) {
            if (strcmp(dot != NULL ? dot + 1 : name, cr_proj_hf_name((enum cr_proj)p)) == 0) {
                bit = 1u << p;
            }
        }
        if (bit == 0) {
            return cr_fail(err, CR_E_INPUT,
                           "%s: \"target_modules\" entry %zu is \"%s\": only q_proj k_proj v_proj "
                           "o_proj gate_proj up_proj down_proj can be adapted",
                           config->path, i, cr_escape(shown, sizeof shown, name, strlen(name)));
        }
        config->targets |= bit;
    }
    config->named_targets = true;
    return CR_OK;
}

static bool good_alpha(double alpha)
{
    return (float)alpha > 0 && isfinite((float)alpha);
}

static cr_status read_numbers(struct cr_peft_config *config, struct cr_error *err)
{
    const json_t *object = config->object;
    int64_t rank = 8; /* PEFT's defaults */
    config->alpha = 8;
    CR_TRY(cr_json_get_int(object, "r", false, INT64_MIN, INT64_MAX, &rank, config->path, err));
    if (rank < 1 || rank > CR_RANK_MAX) {
        return cr_fail(err, CR_E_INPUT, "%s: \"r\" is %lld, 1...%d expected", config->path, (long long)rank,
                       CR_RANK_MAX);
    }
    config->rank = (uint32_t)rank;
    CR_TRY(cr_json_get_number(object, "lora_alpha", false, &config->alpha, config->path, err));
    if (!good_alpha(config->alpha)) {
        return cr_fail(err, CR_E_INPUT, "%s: \"lora_alpha\" is %g, a positive number expected", config->path,
                       config->alpha);
    }
    CR_TRY(cr_json_get_number(object, "lora_dropout", false, &config->dropout, config->path, err));
    if (!(config->dropout >= 0 && config->dropout < 1)) {
        return cr_fail(err, CR_E_INPUT, "%s: \"lora_dropout\" is %g, 0 or more and below 1 expected", config->path,
                       config->dropout);
    }
    return cr_json_get_bool(object, "use_rslora", false, &config->rslora, config->path, err);
}

cr_status cr_peft_config_read(const char *dir, struct cr_peft_config *config, struct cr_error *err)
{
    cr_status status = CR_OK;
    struct cr_peft_config fresh = {0};
    char shown[CR_ESCAPE_BYTES];
    char *path = cr_path_join(dir, "adapter_config.json");
    if (path == NULL) {
        return cr_fail(err, CR_E_MEMORY, "out of memory for a path");
    }
    fresh.path = cr_strdup(cr_escape(shown, sizeof shown, path, strlen(path)));
    if (fresh.path == NULL) {
        status = cr_fail(err, CR_E_MEMORY, "out of memory for a path");
        goto out;
    }
    CR_TRY_OUT(status, cr_json_load(path, CONFIG_BYTES_MAX, &fresh.object, err));
    CR_TRY_OUT(status, check_kind(fresh.object, fresh.path, &fresh.prefix, err));
    if (!fresh.prefix) {
        CR_TRY_OUT(status, check_variants(fresh.object, fresh.path, err));
        CR_TRY_OUT(status, read_numbers(&fresh, err));
        CR_TRY_OUT(status, read_targets(&fresh, err));
    }
    *config = fresh;
    memset(&fresh, 0, sizeof fresh);
out:
    cr_free(path);
    cr_peft_config_deinit(&fresh);
    return status;
}

void cr_peft_config_deinit(struct cr_peft_config *config)
{
    cr_free(config->path);
    json_decref(config->object);
    memset(config, 0, sizeof *config);
}

/* Keys are regular expressions matched against the end of the module name. Served are plain names, with an optional
 * ^ (the whole name) and escaped points. *plain = false for anything else. */
static bool pattern_fits(const char *pattern, const char *module, bool *plain)
{
    char name[256];
    size_t n = 0;
    bool whole = *pattern == '^';
    *plain = true;
    for (const char *c = pattern + whole; *c != '\0' && strcmp(c, "$") != 0; c++) {
        c += c[0] == '\\' && c[1] == '.';
        bool letter = (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || (*c >= '0' && *c <= '9') || *c == '_';
        if ((!letter && *c != '.') || n + 1 >= sizeof name) {
            *plain = false;
            return false;
        }
        name[n++] = *c;
    }
    size_t length = strlen(module);
    if (n == 0 || n > length || memcmp(module + length - n, name, n) != 0) {
        return false;
    }
    return n == length || (!whole && module[length - n - 1] == '.');
}

/* The value of the first pattern that fits, as a number. */
static cr_status look_up(const struct cr_peft_config *config, const char *key, const char *module, double *value,
                         struct cr_error *err)
{
    json_t *patterns = json_object_get(config->object, key);
    if (patterns == NULL || json_is_null(patterns)) {
        return CR_OK;
    }
    if (!json_is_object(patterns)) {
        return cr_fail(err, CR_E_INPUT, "%s: \"%s\" is not an object", config->path, key);
    }
    if (json_object_size(patterns) > PATTERNS_MAX) {
        return cr_fail(err, CR_E_INPUT, "%s: \"%s\" has %zu entries, at most %d expected", config->path, key,
                       json_object_size(patterns), PATTERNS_MAX);
    }
    const char *pattern;
    json_t *number;
    json_object_foreach(patterns, pattern, number)
    {
        bool plain;
        char shown[CR_ESCAPE_BYTES];
        bool fits = pattern_fits(pattern, module, &plain);
        if (!plain || !json_is_number(number)) {
            cr_escape(shown, sizeof shown, pattern, strlen(pattern));
            return cr_fail(err, CR_E_INPUT, "%s: \"%s\": entry \"%s\": %s", config->path, key, shown,
                           plain ? "a number expected" : "only plain module names are supported");
        }
        if (fits) {
            *value = json_number_value(number);
            return CR_OK;
        }
    }
    return CR_OK;
}

cr_status cr_peft_config_module(const struct cr_peft_config *config, const char *module, uint32_t *rank, double *scale,
                                struct cr_error *err)
{
    double r = config->rank, alpha = config->alpha;
    CR_TRY(look_up(config, "rank_pattern", module, &r, err));
    CR_TRY(look_up(config, "alpha_pattern", module, &alpha, err));
    if (!(r >= 1 && r <= CR_RANK_MAX && r == floor(r))) {
        return cr_fail(err, CR_E_INPUT, "%s: \"rank_pattern\" gives rank %g for %s, 1...%d expected", config->path, r,
                       module, CR_RANK_MAX);
    }
    if (!good_alpha(alpha)) {
        return cr_fail(err, CR_E_INPUT, "%s: \"alpha_pattern\" gives alpha %g for %s, a positive number expected",
                       config->path, alpha, module);
    }
    *rank = (uint32_t)r;
    *scale = config->rslora ? alpha * sqrt(r) / r : alpha / r; /* so rsLoRA is plain LoRA with alpha * sqrt(r) */
    return CR_OK;
}

/* A module's name, or its end behind a point. */
static bool names_module(const char *name, const char *module)
{
    size_t n = strlen(name), length = strlen(module);
    return n > 0 && n <= length && strcmp(module + length - n, name) == 0 &&
           (n == length || module[length - n - 1] == '.');
}

static bool has_layer(const json_t *layers, uint32_t layer)
{
    if (json_is_integer(layers)) {
        return json_integer_value(layers) == (json_int_t)layer;
    }
    for (size_t i = 0; i < json_array_size(layers); i++) {
        if (json_integer_value(json_array_get(layers, i)) == (json_int_t)layer) {
            return true;
        }
    }
    return false;
}

const char *cr_peft_config_leaves_out(const struct cr_peft_config *config, uint32_t layer, const char *module)
{
    const json_t *layers = json_object_get(config->object, "layers_to_transform");
    const json_t *excluded = json_object_get(config->object, "exclude_modules");
    if (!harmless(layers, NULL) && !has_layer(layers, layer)) {
        return "layers_to_transform";
    }
    for (size_t i = 0; i < json_array_size(excluded); i++) {
        const char *name = json_string_value(json_array_get(excluded, i));
        if (name != NULL && names_module(name, module)) {
            return "exclude_modules";
        }
    }
    return NULL;
}

void cr_peft_module_name(char *dst, size_t dst_bytes, uint32_t layer, enum cr_proj proj)
{
    snprintf(dst, dst_bytes, "model.layers.%u.%s", layer, cr_proj_hf_path(proj));
}
