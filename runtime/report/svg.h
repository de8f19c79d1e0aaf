/* svg: the smallest pieces of a drawing. Shared with the report of credence-bench. */
#ifndef CR_REPORT_SVG_H
#define CR_REPORT_SVG_H

#include "runtime/core/buf.h"

/* ` name="value"` */
void cr_svg_attribute(struct cr_buf *out, const char *name, double value);

/* A straight line of a class of the style. */
void cr_svg_segment(struct cr_buf *out, const char *style, double x1, double y1, double x2, double y2);

#endif
