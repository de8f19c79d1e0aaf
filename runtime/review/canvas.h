/* canvas: charts of a page in the making, with room for so many lines each. Private to runtime/review. */
#ifndef CR_REVIEW_CANVAS_H
#define CR_REVIEW_CANVAS_H

#include "runtime/report/report.h"
#include "runtime/review/kept.h"

struct cr_canvas {
    struct cr_report_chart *charts; /* kept: [n], without lines at first */
    struct cr_report_line *lines;   /* kept: [n][room] */
    size_t room;
};

/* Errors: CR_E_MEMORY. */
cr_status cr_canvas_make(struct cr_kept *kept, size_t n, size_t room, struct cr_canvas *out, struct cr_error *err);

/* The next line of a chart; name and points are borrowed. */
void cr_canvas_series(struct cr_canvas *canvas, size_t chart, const char *name, struct cr_report_series series,
                      bool marks);

/* The same, of *points [n] (kept) that the caller fills. Errors: CR_E_MEMORY. */
cr_status cr_canvas_line(struct cr_kept *kept, struct cr_canvas *canvas, size_t chart, const char *name, size_t n,
                         bool marks, struct cr_report_point **points, struct cr_error *err);

#endif
