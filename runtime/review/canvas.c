#include "runtime/review/canvas.h"

#include "runtime/core/alloc.h"

cr_status cr_canvas_make(struct cr_kept *kept, size_t n, size_t room, struct cr_canvas *out, struct cr_error *err)
{
    *out = (struct cr_canvas){.charts = cr_zalloc(n, sizeof *out->charts), .room = room};
    CR_TRY(cr_kept_add(kept, out->charts, err));
    out->lines = cr_zalloc(n * room, sizeof *out->lines);
    CR_TRY(cr_kept_add(kept, out->lines, err));
    for (size_t i = 0; i < n; i++) {
        out->charts[i].lines = out->lines + i * room;
    }
    return CR_OK;
}

void cr_canvas_series(struct cr_canvas *canvas, size_t chart, const char *name, struct cr_report_series series,
                      bool marks)
{
    size_t at = canvas->charts[chart].n_lines++;
    canvas->lines[chart * canvas->room + at] = (struct cr_report_line){.name = name, .series = series, .marks = marks};
}

cr_status cr_canvas_line(struct cr_kept *kept, struct cr_canvas *canvas, size_t chart, const char *name, size_t n,
                         bool marks, struct cr_report_point **points, struct cr_error *err)
{
    *points = cr_alloc(n, sizeof **points);
    CR_TRY(cr_kept_add(kept, *points, err));
    cr_canvas_series(canvas, chart, name, (struct cr_report_series){.points = *points, .n = n}, marks);
    return CR_OK;
}
