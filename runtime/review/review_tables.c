/* Tables of what evaluations found beside the figures of the answers. */
#include <math.h>
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/core/number.h"
#include "runtime/metrics/metrics.h"
#include "runtime/review/review_parts.h"

/* A table with room for so many rows; the next one by add_row. */
static cr_status make_table(struct cr_kept *kept, const char *first, const char *const *columns, size_t n_columns,
                            size_t room, struct cr_report_table **out, struct cr_error *err)
{
    struct cr_report_table *table = cr_zalloc(1, sizeof *table);
    CR_TRY(cr_kept_add(kept, table, err));
    struct cr_report_row *rows = cr_zalloc(room, sizeof *rows);
    CR_TRY(cr_kept_add(kept, rows, err));
    *table = (struct cr_report_table){.first = first, .columns = columns, .n_columns = n_columns, .rows = rows};
    *out = table;
    return CR_OK;
}

static cr_status add_row(struct cr_kept *kept, struct cr_report_table *table, const char *name, const double *values,
                         struct cr_error *err)
{
    double *own = cr_alloc(table->n_columns, sizeof *own);
    CR_TRY(cr_kept_add(kept, own, err));
    memcpy(own, values, table->n_columns * sizeof *own);
    struct cr_report_row *rows = (struct cr_report_row *)(uintptr_t)table->rows;
    rows[table->n_rows++] = (struct cr_report_row){.name = name, .values = own};
    return CR_OK;
}

cr_status cr_review_agreement(const struct cr_view *views, size_t n_views, struct cr_kept *kept,
                              const struct cr_report_table **out, const char **note, struct cr_error *err)
{
    static const char *const columns[] = {"Entropy", "Expected", "Mutual information", "Disagreement"};
    size_t n_rows = n_views > 1 ? n_views : views[0].n_groups;
    struct cr_report_table *table;
    struct cr_buf text = {0};
    *out = NULL;
    *note = NULL;
    CR_TRY(make_table(kept, n_views > 1 ? "Evaluation" : "Group", columns, 4, n_rows, &table, err));
    for (size_t i = 1; i <= n_rows; i++) { /* all of it comes last */
        const struct cr_view *view = n_views > 1 ? &views[i - 1] : views;
        const struct cr_view_group *group = n_views > 1 ? view->groups : &view->groups[i % n_rows];
        const struct cr_group_metrics *m = group->all;
        if (m == NULL || !isfinite(m->mutual_information)) {
            continue;
        }
        const double values[] = {m->entropy, m->expected_entropy, m->mutual_information, m->disagreement};
        CR_TRY(add_row(kept, table, n_views > 1 ? view->name : group->name, values, err));
    }
    if (table->n_rows == 0) {
        return CR_OK;
    }
    *out = table;
    if (n_views == 1 && isfinite(views->pair_disagreement)) {
        char share[CR_NUMBER_BYTES], distance[CR_NUMBER_BYTES];
        cr_buf_printf(&text,
                      "Two of them taken at random answer %s %% of the examples differently; the distance of their "
                      "probabilities, root of half the sum of both Kullback-Leibler divergences, is %s on average.",
                      cr_number_fixed(share, 100 * views->pair_disagreement, 1),
                      cr_number_fixed(distance, views->pair_distance, 3));
        return cr_kept_text(kept, &text, note, err);
    }
    return CR_OK;
}

/* AUROC and average precision of the entropy. */
static cr_status rank_entropies(const struct cr_ood_entropies *ood, double values[2], struct cr_error *err)
{
    size_t n = ood->n_in + ood->n_out;
    struct cr_scored *items = cr_alloc(n, sizeof *items);
    if (items == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for the report");
    }
    for (size_t i = 0; i < n; i++) {
        bool elsewhere = i >= ood->n_in;
        items[i] = (struct cr_scored){.score = elsewhere ? ood->out[i - ood->n_in] : ood->in[i], .positive = elsewhere};
    }
    values[0] = cr_auroc(items, n);
    values[1] = cr_average_precision(items, n);
    cr_free(items);
    return CR_OK;
}

cr_status cr_review_elsewhere(const struct cr_view *views, size_t n_views, struct cr_kept *kept,
                              const struct cr_report_table **out, struct cr_error *err)
{
    static const char *const columns[] = {"AUROC", "Avg. precision", "by chance", "MI: AUROC", "MI: avg. precision"};
    struct cr_report_table *table;
    *out = NULL;
    CR_TRY(make_table(kept, n_views > 1 ? "Evaluation" : "", columns, 5, n_views, &table, err));
    for (size_t v = 0; v < n_views; v++) {
        const struct cr_ood_entropies *ood = &views[v].ood;
        const struct cr_ood_metrics *found = views[v].found;
        double values[5] = {0};
        if (ood->n_in == 0 || ood->n_out == 0) {
            continue;
        }
        CR_TRY(rank_entropies(ood, values, err));
        values[2] = (double)ood->n_out / (double)(ood->n_in + ood->n_out);
        values[3] = found != NULL ? found->information_auroc : (double)NAN;
        values[4] = found != NULL ? found->information_average_precision : (double)NAN;
        CR_TRY(add_row(kept, table, n_views > 1 ? views[v].name : "all", values, err));
        *out = table;
    }
    return CR_OK;
}
