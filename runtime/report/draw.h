/* draw: the charts of a page as inline SVG. Colours come from the page's style by class. Private to runtime/report. */
#ifndef CR_REPORT_DRAW_H
#define CR_REPORT_DRAW_H

#include "runtime/report/report.h"

/* Lines over training steps. `points` is drawn with a mark a point; either series may be empty, not both. */
struct cr_draw_lines {
    const char *label; /* for readers that cannot see it */
    struct cr_report_series line, points;
};
void cr_draw_lines(struct cr_buf *out, const struct cr_draw_lines *chart);

/* Accuracy over confidence in bins, the diagonal of honesty, and below it the number of examples of each bin. */
void cr_draw_reliability(struct cr_buf *out, const struct cr_report_group *group);

#endif
