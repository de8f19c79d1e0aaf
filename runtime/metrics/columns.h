/* columns: what an evaluation keeps of each example, as lists of a JSON object, one a field. Private to
 * runtime/metrics.
 *
 * In file order; "line" (from 1), "task" (place in the list of tasks, -1 = none), "nll" (texts: sum over the targets).
 * Choices: "prediction", "correct" (0, 1), "confidence", "brier", "entropy". Texts: "targets". Numbers come back bit by
 * bit.
 */
#ifndef CR_METRICS_COLUMNS_H
#define CR_METRICS_COLUMNS_H

#include <jansson.h>

#include "runtime/metrics/outcome.h"

/* Returns owned. */
json_t *cr_columns_object(const struct cr_outcomes *outcomes);

/* Fills classification, n and items (owned: cr_free) from such an object; index is the place in the lists. What is
 * missing in it is 0. n_tasks bounds "task". Errors: CR_E_INPUT naming label and column, CR_E_MEMORY; *out is
 * untouched. */
cr_status cr_columns_read(const json_t *object, size_t n_tasks, const char *label, struct cr_outcomes *out,
                          struct cr_error *err);

#endif
