/* draw: the charts of a page as inline SVG. Colours come from the page's style by class. Private to runtime/report. */
#ifndef CR_REPORT_DRAW_H
#define CR_REPORT_DRAW_H

#include "runtime/report/report.h"

/* Colours and kinds of dashes that tell lines apart: line i has classes s(i % colours) and d(i / colours % dashes). */
enum { CR_DRAW_COLOURS = 8, CR_DRAW_DASHES = 3 };

void cr_draw_lines(struct cr_buf *out, const struct cr_report_chart *chart);

/* Accuracy over confidence in bins, the diagonal of honesty, and below it the number of examples of each bin. run: its
 * name for readers that cannot see it, or NULL. */
void cr_draw_reliability(struct cr_buf *out, const struct cr_report_group *group, const char *run);

#endif
