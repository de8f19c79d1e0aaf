/* The training runs behind one evaluation: one, or several whose adapters answer as a mixture. */
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/io/file.h"
#include "runtime/review/review_parts.h"

/* The runs by the last parts of their paths, or by the whole where these would not tell them apart. */
static void name_runs(const char *const *dirs, size_t n, const char **names)
{
    bool distinct = true;
    for (size_t i = 0; i < n; i++) {
        names[i] = cr_base_name(dirs[i]);
        distinct = distinct && names[i][0] != '\0';
        for (size_t j = 0; j < i; j++) {
            distinct = distinct && strcmp(names[i], names[j]) != 0;
        }
    }
    for (size_t i = 0; i < n && !distinct; i++) {
        names[i] = dirs[i];
    }
}

/* NULL: not among them. */
static const char *value_of(const struct cr_training *run, const char *key)
{
    for (size_t i = 0; i < run->n_settings; i++) {
        if (strcmp(run->settings[i].key, key) == 0) {
            return run->settings[i].value;
        }
    }
    return NULL;
}

/* What all runs say of a setting: once where they agree, else by run. */
static void put_values(const struct cr_training *runs, const char *const *names, size_t n, const char *key,
                       struct cr_buf *out)
{
    const char *first = value_of(&runs[0], key);
    bool same = first != NULL;
    for (size_t i = 1; i < n && same; i++) {
        const char *value = value_of(&runs[i], key);
        same = value != NULL && strcmp(value, first) == 0;
    }
    for (size_t i = 0; i < n && !same; i++) {
        const char *value = value_of(&runs[i], key);
        cr_buf_printf(out, "%s%s: ", i > 0 ? "; " : "", names[i]);
        cr_buf_puts(out, value != NULL ? value : "\xe2\x80\x93");
    }
    cr_buf_puts(out, same ? first : "");
}

/* The settings of all runs, each key once, in the order of the first that has it. */
static cr_status merge_settings(const struct cr_training *runs, const char *const *names, size_t n,
                                struct cr_kept *kept, struct cr_report *report, struct cr_error *err)
{
    size_t room = 0;
    for (size_t i = 0; i < n; i++) {
        room += runs[i].n_settings;
    }
    struct cr_report_pair *pairs = cr_alloc(room, sizeof *pairs);
    CR_TRY(cr_kept_add(kept, pairs, err));
    report->settings = pairs;
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < runs[i].n_settings; k++) {
            const char *key = runs[i].settings[k].key;
            struct cr_buf text = {0};
            bool known = false;
            for (size_t j = 0; j < i && !known; j++) {
                known = value_of(&runs[j], key) != NULL;
            }
            if (known) {
                continue;
            }
            struct cr_report_pair *pair = &pairs[report->n_settings];
            put_values(runs, names, n, key, &text);
            pair->key = key;
            CR_TRY(cr_kept_text(kept, &text, &pair->value, err));
            report->n_settings++;
        }
    }
    return CR_OK;
}

cr_status cr_review_runs(const char *const *dirs, size_t n, const struct cr_host *host, struct cr_kept *kept,
                         struct cr_report *report, struct cr_report_pair *commands, size_t *n_commands,
                         struct cr_error *err)
{
    struct cr_training *runs = cr_zalloc(n, sizeof *runs);
    CR_TRY(cr_kept_add(kept, runs, err));
    const char **names = cr_zalloc(n, sizeof *names);
    CR_TRY(cr_kept_add(kept, names, err));
    name_runs(dirs, n, names);
    for (size_t i = 0; i < n; i++) {
        CR_TRY(cr_review_training(dirs[i], host, kept, &runs[i], err));
    }
    CR_TRY(cr_review_training_charts(runs, names, n, kept, report, err));
    if (n == 1) {
        report->settings = runs->settings;
        report->n_settings = runs->n_settings;
    } else {
        CR_TRY(merge_settings(runs, names, n, kept, report, err));
    }
    for (size_t i = 0; i < n; i++) {
        struct cr_buf text = {0};
        if (runs[i].command == NULL) {
            continue;
        }
        struct cr_report_pair *pair = &commands[*n_commands];
        cr_buf_puts(&text, n == 1 ? "The training run:" : "Training of ");
        cr_buf_puts(&text, n == 1 ? "" : names[i]);
        cr_buf_puts(&text, n == 1 ? "" : ":");
        CR_TRY(cr_kept_text(kept, &text, &pair->key, err));
        pair->value = runs[i].command;
        ++*n_commands;
    }
    return CR_OK;
}
