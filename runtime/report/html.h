/* html: text and numbers as they may stand in a page, whatever their bytes and the locale. Shared with the
 * report of credence-bench.
 */
#ifndef CR_REPORT_HTML_H
#define CR_REPORT_HTML_H

#include "runtime/core/buf.h"

/* Escaped, for content and for quoted attributes. */
void cr_html_text(struct cr_buf *out, const char *text, size_t n);
void cr_html_str(struct cr_buf *out, const char *text);

/* A number with so many decimals (0...9), a minus sign U+2212, "." whatever the locale; an en dash when it is not
 * finite. */
void cr_html_number(struct cr_buf *out, double value, int decimals);

/* The same with an ASCII minus, for coordinates and other attributes; 0 when it is not finite. */
void cr_html_coordinate(struct cr_buf *out, double value);

/* An integer in groups of three digits, with narrow no-break spaces. */
void cr_html_count(struct cr_buf *out, uint64_t value);

/* The page up to its heading: nothing is loaded and no script runs, by the page's own policy. `style` is put behind the
 * style sheet. */
void cr_html_begin(struct cr_buf *out, const char *title, const char *style);

/* One line of a <dl>. */
void cr_html_pair(struct cr_buf *out, const char *key, const char *value);

#endif
