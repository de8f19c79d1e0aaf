#include "runtime/core/number.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

char *cr_number_fixed(char out[CR_NUMBER_BYTES], double value, int decimals)
{
    uint64_t unit = 1;
    double magnitude = fabs(value);
    const char *sign = value < 0 ? "-" : "";
    if (!isfinite(value)) {
        snprintf(out, CR_NUMBER_BYTES, "-");
        return out;
    }
    decimals = decimals < CR_NUMBER_DECIMALS ? decimals : CR_NUMBER_DECIMALS;
    if (magnitude >= 1e9) { /* the product below must fit */
        decimals = 0;
        magnitude = magnitude < 1e15 ? magnitude : 1e15;
    }
    for (int i = 0; i < decimals; i++) {
        unit *= 10;
    }
    uint64_t scaled = (uint64_t)(magnitude * (double)unit + 0.5);
    unsigned long long whole = scaled / unit, rest = scaled % unit;
    int n = snprintf(out, CR_NUMBER_BYTES, "%s%llu", sign, whole);
    if (decimals > 0) {
        out[n] = '.';
        for (int i = decimals; i > 0; i--, rest /= 10) {
            out[n + i] = (char)('0' + rest % 10);
        }
        out[n + decimals + 1] = '\0';
    }
    return out;
}

char *cr_number_short(char out[CR_NUMBER_BYTES], double value)
{
    snprintf(out, CR_NUMBER_BYTES, "%g", value);
    size_t at = strspn(out, "+-0123456789einfa"); /* what else there is, is the point, of one or more bytes */
    if (out[at] != '\0') {
        size_t n = strcspn(out + at, "0123456789");
        out[at] = '.';
        memmove(out + at + 1, out + at + n, strlen(out + at + n) + 1);
    }
    return out;
}
