#include "runtime/report/html.h"

#include <math.h>
#include <string.h>

#include "runtime/core/number.h"
#include "runtime/core/utf8.h"
#include "runtime/report/style.h"

#define REPLACEMENT "\xef\xbf\xbd"

/* C0 controls but tab and line feed, DEL, and C1 controls are not allowed in a page. */
static bool is_control(const unsigned char *s, size_t length)
{
    return (length == 1 && ((s[0] < 0x20 && s[0] != '\t' && s[0] != '\n') || s[0] == 0x7f)) ||
           (length == 2 && s[0] == 0xc2 && s[1] < 0xa0);
}

void cr_html_text(struct cr_buf *out, const char *text, size_t n)
{
    const unsigned char *s = (const unsigned char *)text;
    for (size_t i = 0; i < n;) {
        size_t length = cr_utf8_length(text + i, n - i);
        if (length == 0 || is_control(s + i, length)) {
            cr_buf_puts(out, REPLACEMENT);
            i += length > 0 ? length : 1;
            continue;
        }
        switch (s[i]) {
        case '&':
            cr_buf_puts(out, "&amp;");
            break;
        case '<':
            cr_buf_puts(out, "&lt;");
            break;
        case '>':
            cr_buf_puts(out, "&gt;");
            break;
        case '"':
            cr_buf_puts(out, "&quot;");
            break;
        case '\'':
            cr_buf_puts(out, "&#39;");
            break;
        default:
            cr_buf_append(out, s + i, length);
        }
        i += length;
    }
}

void cr_html_str(struct cr_buf *out, const char *text)
{
    cr_html_text(out, text, strlen(text));
}

void cr_html_number(struct cr_buf *out, double value, int decimals)
{
    char text[CR_NUMBER_BYTES];
    if (!isfinite(value)) {
        cr_buf_puts(out, "\xe2\x80\x93");
        return;
    }
    cr_buf_puts(out, value < 0 ? "\xe2\x88\x92" : "");
    cr_buf_puts(out, cr_number_fixed(text, fabs(value), decimals));
}

void cr_html_coordinate(struct cr_buf *out, double value)
{
    char text[CR_NUMBER_BYTES];
    cr_buf_puts(out, cr_number_fixed(text, isfinite(value) ? value : 0, 1));
}

void cr_html_count(struct cr_buf *out, uint64_t value)
{
    uint64_t unit = 1;
    while (value / unit >= 1000) {
        unit *= 1000;
    }
    cr_buf_printf(out, "%llu", (unsigned long long)(value / unit));
    for (value %= unit; unit > 1; value %= unit) {
        unit /= 1000;
        cr_buf_printf(out, "\xe2\x80\xaf%03llu", (unsigned long long)(value / unit));
    }
}

void cr_html_begin(struct cr_buf *out, const char *title, const char *style)
{
    cr_buf_puts(out, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
                     "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n"
                     "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; "
                     "style-src 'unsafe-inline'\">\n<meta name=\"color-scheme\" content=\"light dark\">\n<title>");
    cr_html_str(out, title);
    cr_buf_puts(out, "</title>\n<style>\n");
    cr_buf_puts(out, cr_report_style);
    cr_buf_puts(out, cr_report_chart_style);
    cr_buf_puts(out, style);
    cr_buf_puts(out, "</style>\n</head>\n<body>\n<h1>");
    cr_html_str(out, title);
    cr_buf_puts(out, "</h1>\n");
}

void cr_html_pair(struct cr_buf *out, const char *key, const char *value)
{
    cr_buf_puts(out, "<dt>");
    cr_html_str(out, key);
    cr_buf_puts(out, "</dt><dd>");
    cr_html_str(out, value);
    cr_buf_puts(out, "</dd>\n");
}
