#include "runtime/cli/values.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static const char *skip_digits(const char *p)
{
    while (is_digit(*p)) {
        p++;
    }
    return p;
}

bool cr_cli_parse_uint(const char *text, uint64_t *out)
{
    uint64_t value = 0;
    const char *p = text;
    for (; is_digit(*p); p++) {
        uint64_t digit = (uint64_t)(*p - '0');
        if (value > (UINT64_MAX - digit) / 10) {
            return false;
        }
        value = value * 10 + digit;
    }
    if (p == text || *p != '\0') {
        return false;
    }
    *out = value;
    return true;
}

/* End of the unsigned decimal (no exponent) at p, p itself when there is none. */
static const char *skip_decimal(const char *p)
{
    const char *whole = skip_digits(p);
    size_t n_digits = (size_t)(whole - p);
    if (*whole != '.') {
        return whole;
    }
    const char *end = skip_digits(whole + 1);
    n_digits += (size_t)(end - whole - 1);
    return n_digits > 0 ? end : p;
}

bool cr_cli_parse_real(const char *text, double *out)
{
    const char *start = text + (*text == '+' || *text == '-');
    const char *end = skip_decimal(start);
    if (end == start) {
        return false;
    }
    if (*end == 'e' || *end == 'E') {
        const char *digits = end + 1 + (end[1] == '+' || end[1] == '-');
        end = skip_digits(digits);
        if (end == digits) {
            return false;
        }
    }
    if (*end != '\0') {
        return false;
    }
    double value = strtod(text, NULL);
    if (!isfinite(value)) {
        return false;
    }
    *out = value;
    return true;
}

bool cr_cli_parse_size(const char *text, uint64_t *out)
{
    static const char units[] = "kmgt";
    const char *end = skip_decimal(text);
    if (end == text || (size_t)(end - text) > 30) {
        return false;
    }
    char number[32] = {0};
    memcpy(number, text, (size_t)(end - text));
    const char *unit = *end == ' ' ? end + 1 : end;
    int shift = 0;
    if (*unit != '\0') {
        const char *found = strchr(units, *unit | 0x20);
        if (found != NULL && *found != '\0') {
            shift = 10 * (int)(found - units + 1);
            unit++;
            if ((unit[0] | 0x20) == 'i' && (unit[1] | 0x20) == 'b') {
                unit++;
            }
        }
        unit += (*unit | 0x20) == 'b';
    } else if (unit != end) {
        return false;
    }
    double bytes = ldexp(strtod(number, NULL), shift);
    if (*unit != '\0' || !(bytes < 0x1p63)) {
        return false;
    }
    *out = (uint64_t)bytes;
    return true;
}

void cr_cli_format_real(double value, char *dst, size_t dst_bytes)
{
    for (int digits = 6; digits <= 17; digits++) {
        snprintf(dst, dst_bytes, "%.*g", digits, value);
        if (strtod(dst, NULL) == value) {
            return;
        }
    }
}
