#include "runtime/report/html.h"

#include <math.h>
#include <string.h>

#include "runtime/report/style.h"

#define REPLACEMENT "\xef\xbf\xbd"

/* Bytes of the well-formed UTF-8 character at s, 0 when there is none (RFC 3629). */
static size_t character_bytes(const unsigned char *s, size_t n)
{
    size_t length = s[0] < 0x80 ? 1 : s[0] < 0xc2 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : s[0] < 0xf5 ? 4 : 0;
    if (length == 0 || length > n) {
        return 0;
    }
    for (size_t i = 1; i < length; i++) {
        if ((s[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    bool overlong = (s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xf0 && s[1] < 0x90);
    bool surrogate = s[0] == 0xed && s[1] > 0x9f;
    bool beyond = s[0] == 0xf4 && s[1] > 0x8f;
    return overlong || surrogate || beyond ? 0 : length;
}

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
        size_t length = character_bytes(s + i, n - i);
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

/* Digits of a finite magnitude below 1e15; larger ones are beyond what a page shows. */
static void put_magnitude(struct cr_buf *out, double value, int decimals)
{
    uint64_t unit = 1;
    for (int i = 0; i < decimals; i++) {
        unit *= 10;
    }
    if (value >= 1e9) { /* digits behind the point mean nothing there, and the product must fit */
        unit = 1;
        decimals = 0;
        value = value < 1e15 ? value : 1e15;
    }
    uint64_t scaled = (uint64_t)(value * (double)unit + 0.5);
    cr_buf_printf(out, "%llu", (unsigned long long)(scaled / unit));
    if (decimals > 0) {
        cr_buf_printf(out, ".%0*llu", decimals, (unsigned long long)(scaled % unit));
    }
}

void cr_html_number(struct cr_buf *out, double value, int decimals)
{
    if (!isfinite(value)) {
        cr_buf_puts(out, "\xe2\x80\x93");
        return;
    }
    if (value < 0) {
        cr_buf_puts(out, "\xe2\x88\x92");
    }
    put_magnitude(out, fabs(value), decimals);
}

void cr_html_coordinate(struct cr_buf *out, double value)
{
    if (!isfinite(value)) {
        value = 0;
    }
    if (value < 0) {
        cr_buf_putc(out, '-');
    }
    put_magnitude(out, fabs(value), 1);
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
