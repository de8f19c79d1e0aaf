/* A comparison as tables for people and as JSON for programs. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/core/number.h"
#include "runtime/io/json.h"
#include "runtime/review/compare.h"

enum { MAX_COLUMNS = 7, CELL_BYTES = CR_ESCAPE_BYTES };

/* Cells of a table, row by row; the first row is its head. */
struct table {
    char (*cells)[CELL_BYTES]; /* owned */
    size_t n_columns, n;
};

static char *next_cell(struct table *t)
{
    return t->cells[t->n++];
}

/* A name as it may stand in a table. */
static void put_name(struct table *t, const char *name)
{
    char *cell = cr_escape(next_cell(t), CELL_BYTES, name, strlen(name));
    for (char *c = strchr(cell, '|'); c != NULL; c = strchr(c, '|')) {
        *c = '/';
    }
}

static void put_number(struct table *t, double value)
{
    cr_number_fixed(next_cell(t), value, 3);
}

static void put_estimate(struct table *t, const struct cr_estimate *e, enum cr_figure figure, bool sign)
{
    double unit = figure == CR_FIGURE_ACCURACY ? 100 : 1;
    const double values[3] = {e->mean, e->low, e->high};
    char text[3][CR_NUMBER_BYTES], *cell = next_cell(t);
    const char *plus[3];
    for (int i = 0; i < 3; i++) {
        cr_number_fixed(text[i], unit * values[i], figure == CR_FIGURE_ACCURACY ? 1 : 3);
        plus[i] = sign && values[i] >= 0 ? "+" : "";
    }
    if (isfinite(e->mean)) {
        snprintf(cell, CELL_BYTES, "%s%s [%s%s, %s%s]", plus[0], text[0], plus[1], text[1], plus[2], text[2]);
    } else {
        snprintf(cell, CELL_BYTES, "-");
    }
}

static void put_words(struct table *t, const char *words)
{
    snprintf(next_cell(t), CELL_BYTES, "%s", words);
}

/* The first column starts at the left, the others end at the right. */
static void put_table(const struct table *t, struct cr_buf *out)
{
    size_t width[MAX_COLUMNS] = {0}, n_rows = t->n / t->n_columns;
    for (size_t i = 0; i < t->n; i++) {
        size_t n = strlen(t->cells[i]);
        width[i % t->n_columns] = n > width[i % t->n_columns] ? n : width[i % t->n_columns];
    }
    for (size_t row = 0; row < n_rows; row++) {
        for (size_t c = 0; c < t->n_columns; c++) {
            cr_buf_printf(out, c == 0 ? "| %-*s |" : " %*s |", (int)width[c], t->cells[row * t->n_columns + c]);
        }
        cr_buf_puts(out, "\n");
        for (size_t c = 0; c < t->n_columns && row == 0; c++) {
            cr_buf_puts(out, c == 0 ? "|-" : "");
            cr_buf_fill(out, '-', width[c]);
            cr_buf_puts(out, c == 0 ? "-|" : "-:|");
        }
        cr_buf_puts(out, row == 0 ? "\n" : "");
    }
    cr_buf_puts(out, "\n");
}

static void put_head(struct table *t, const char *const *words)
{
    t->n = 0;
    for (t->n_columns = 0; words[t->n_columns] != NULL; t->n_columns++) {
        put_words(t, words[t->n_columns]);
    }
}

static void fill_figures(const struct cr_comparison *c, const struct cr_compared_group *g, struct table *t)
{
    static const char *const of_choices[] = {"method", "accuracy %", "NLL", "Brier", "ECE", "its floor", NULL};
    static const char *const of_texts[] = {"method", "NLL a token", "perplexity", NULL};
    put_head(t, c->classification ? of_choices : of_texts);
    for (size_t m = 0; m < c->n_contenders; m++) {
        const struct cr_compared *of = &g->of[m];
        put_name(t, c->contenders[m].name);
        for (int f = 0; f < CR_N_FIGURES; f++) {
            if (c->classification || f == CR_FIGURE_NLL) {
                put_estimate(t, &of->figures[f], (enum cr_figure)f, false);
            }
        }
        put_number(t, c->classification ? of->floor : cr_perplexity(of->figures[CR_FIGURE_NLL].mean, 1));
    }
}

static void fill_differences(const struct cr_comparison *c, const struct cr_compared_group *g, struct table *t)
{
    static const char *const of_choices[] = {"against", "accuracy points", "NLL", "Brier",
                                             "ECE",     "accuracy",        "NLL", NULL};
    static const char *const of_texts[] = {"against", "NLL a token", "NLL", NULL};
    char head[CELL_BYTES + 16];
    put_head(t, c->classification ? of_choices : of_texts);
    t->n = 0;
    put_name(t, c->contenders[0].name);
    snprintf(head, sizeof head, "against %s", t->cells[0]);
    snprintf(t->cells[0], CELL_BYTES, "%.*s", CELL_BYTES - 1, head);
    t->n = t->n_columns;
    for (size_t m = 1; m < c->n_contenders; m++) {
        const struct cr_compared *of = &g->of[m];
        put_name(t, c->contenders[m].name);
        for (int f = 0; f < CR_N_FIGURES; f++) {
            if (c->classification || f == CR_FIGURE_NLL) {
                put_estimate(t, &of->differences[f], (enum cr_figure)f, true);
            }
        }
        if (c->classification) {
            put_words(t, cr_compare_words(c, of, CR_FIGURE_ACCURACY));
        }
        put_words(t, cr_compare_words(c, of, CR_FIGURE_NLL));
    }
}

void cr_compare_tables(const struct cr_comparison *c, struct cr_buf *out)
{
    const struct cr_evaluation *first = &c->contenders[0].runs[0].evaluation;
    char shown[CR_ESCAPE_BYTES], accuracy[CR_NUMBER_BYTES], nll[CR_NUMBER_BYTES];
    struct table t = {.cells = cr_alloc((c->n_contenders + 1) * MAX_COLUMNS, sizeof *t.cells)};
    if (t.cells == NULL) {
        out->failed = true;
        return;
    }
    cr_buf_printf(out, "%s: %zu examples", cr_escape(shown, sizeof shown, first->data, strlen(first->data)),
                  first->outcomes.n);
    if (c->n_seeds > 1) {
        cr_buf_printf(out, ", %zu seeds", c->n_seeds);
    }
    cr_buf_printf(out, ". Intervals of 95 %% by %d resamples of %sexamples.", CR_COMPARE_DRAWS,
                  c->n_seeds > 1 ? "seeds and " : "");
    cr_buf_printf(out, " Equivalent, not worse: within %s points, %s NLL at 5 %%.\n\n",
                  cr_number_short(accuracy, c->options.margin_accuracy), cr_number_short(nll, c->options.margin_nll));
    for (size_t g = 0; g < c->n_groups; g++) {
        const struct cr_compared_group *group = &c->groups[g];
        cr_buf_printf(out, "**%s**, %zu examples\n\n", cr_escape(shown, sizeof shown, group->name, strlen(group->name)),
                      group->n);
        fill_figures(c, group, &t);
        put_table(&t, out);
        fill_differences(c, group, &t);
        put_table(&t, out);
    }
    cr_free(t.cells);
}

static const char *const figure_names[CR_N_FIGURES] = {
    [CR_FIGURE_ACCURACY] = "accuracy", [CR_FIGURE_NLL] = "nll", [CR_FIGURE_BRIER] = "brier", [CR_FIGURE_ECE] = "ece"};

static json_t *estimate(const struct cr_estimate *e)
{
    json_t *object = json_object();
    json_object_set_new(object, "value", cr_json_finite(e->mean));
    json_object_set_new(object, "low", cr_json_finite(e->low));
    json_object_set_new(object, "high", cr_json_finite(e->high));
    return object;
}

static json_t *compared(const struct cr_comparison *c, const struct cr_compared *of, size_t m)
{
    json_t *object = json_object();
    json_object_set_new(object, "name", cr_json_text(c->contenders[m].name));
    json_object_set_new(object, "ece_floor", cr_json_finite(of->floor));
    for (int f = 0; f < CR_N_FIGURES; f++) {
        json_object_set_new(object, figure_names[f], estimate(&of->figures[f]));
    }
    if (m == 0) {
        return object;
    }
    json_t *differences = json_object();
    for (int f = 0; f < CR_N_FIGURES; f++) {
        json_t *one = estimate(&of->differences[f]);
        json_object_set_new(one, "low90", cr_json_finite(of->narrow[f].low));
        json_object_set_new(one, "high90", cr_json_finite(of->narrow[f].high));
        if (f == CR_FIGURE_ACCURACY || f == CR_FIGURE_NLL) {
            json_object_set_new(one, "equivalent", json_boolean(cr_compare_equivalent(c, of, (enum cr_figure)f)));
            json_object_set_new(one, "not_worse", json_boolean(cr_compare_not_worse(c, of, (enum cr_figure)f)));
        }
        json_object_set_new(differences, figure_names[f], one);
    }
    json_object_set_new(object, "difference", differences);
    return object;
}

static json_t *contender_files(const struct cr_comparison *c, size_t m)
{
    json_t *object = json_object();
    json_t *files = json_array();
    for (size_t s = 0; s < c->n_seeds; s++) {
        json_array_append_new(files, cr_json_text(c->contenders[m].runs[s].path));
    }
    json_object_set_new(object, "name", cr_json_text(c->contenders[m].name));
    json_object_set_new(object, "method", json_string(c->contenders[m].runs[0].result.method));
    json_object_set_new(object, "files", files);
    return object;
}

cr_status cr_compare_write(const struct cr_comparison *c, struct cr_error *err)
{
    json_t *object = json_object();
    json_t *methods = json_array(), *groups = json_array();
    for (size_t m = 0; m < c->n_contenders; m++) {
        json_array_append_new(methods, contender_files(c, m));
    }
    for (size_t g = 0; g < c->n_groups; g++) {
        json_t *group = json_object();
        json_t *list = json_array();
        json_object_set_new(group, "group", cr_json_text(c->groups[g].name));
        json_object_set_new(group, "n", json_integer((json_int_t)c->groups[g].n));
        for (size_t m = 0; m < c->n_contenders; m++) {
            json_array_append_new(list, compared(c, &c->groups[g].of[m], m));
        }
        json_object_set_new(group, "methods", list);
        json_array_append_new(groups, group);
    }
    json_object_set_new(object, "data", cr_json_text(c->contenders[0].runs[0].evaluation.data));
    json_object_set_new(object, "seeds", json_integer((json_int_t)c->n_seeds));
    json_object_set_new(object, "resamples", json_integer(CR_COMPARE_DRAWS));
    json_object_set_new(object, "margin_accuracy", json_real(c->options.margin_accuracy));
    json_object_set_new(object, "margin_nll", json_real(c->options.margin_nll));
    json_object_set_new(object, "methods", methods);
    json_object_set_new(object, "groups", groups);
    cr_status status = cr_json_write(object, c->options.json, err);
    json_decref(object);
    return status;
}
