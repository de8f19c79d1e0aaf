#include "runtime/report/svg.h"

#include "runtime/report/html.h"

void cr_svg_attribute(struct cr_buf *out, const char *name, double value)
{
    cr_buf_printf(out, " %s=\"", name);
    cr_html_coordinate(out, value);
    cr_buf_putc(out, '"');
}

void cr_svg_segment(struct cr_buf *out, const char *style, double x1, double y1, double x2, double y2)
{
    cr_buf_printf(out, "<line class=\"%s\"", style);
    cr_svg_attribute(out, "x1", x1);
    cr_svg_attribute(out, "y1", y1);
    cr_svg_attribute(out, "x2", x2);
    cr_svg_attribute(out, "y2", y2);
    cr_buf_puts(out, "/>");
}
