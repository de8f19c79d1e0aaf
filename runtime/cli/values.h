/* values: numbers and sizes of the command line, read strictly: the whole text or nothing, always with a decimal
 * point (the program never leaves the "C" locale), no hexadecimal, no inf, no nan. All return false and leave *out
 * alone when the text is not of the form or does not fit.
 */
#ifndef CR_CLI_VALUES_H
#define CR_CLI_VALUES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

bool cr_cli_parse_uint(const char *text, uint64_t *out); /* decimal digits only */

/* [+-] digits [. digits] [e [+-] digits], at least one digit before the exponent; finite. */
bool cr_cli_parse_real(const char *text, double *out);

/* Bytes: a number, optionally a space, optionally K, M, G or T (powers of 1024, either case) and B or iB. */
bool cr_cli_parse_size(const char *text, uint64_t *out);

/* Shortest decimal text that reads back as the same double. */
void cr_cli_format_real(double value, char *dst, size_t dst_bytes);

#endif
