/* Filling a struct cr_error, and passing a failure on. */
#ifndef CR_CORE_ERROR_H
#define CR_CORE_ERROR_H

#include <stddef.h>

#include "credence/status.h"

/* Writes the message (printf form) into err unless err is NULL and returns status. */
cr_status cr_fail(struct cr_error *err, cr_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts "prefix: " in front of the message already in err (file name around an inner failure). Returns status. */
cr_status cr_fail_prefix(struct cr_error *err, cr_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Copies n bytes that came from a file into dst as printable text: control bytes, invalid UTF-8, quotes and
 * backslashes become \xNN or \n style escapes; cut after 200 source bytes with "...". Always terminates. Returns dst. */
char *cr_escape(char *dst, size_t dst_bytes, const char *src, size_t n);

/* Room for the worst case of cr_escape. */
#define CR_ESCAPE_BYTES 832

#define CR_TRY(expression)                     \
    do {                                       \
        cr_status cr_try_status = (expression); \
        if (cr_try_status != CR_OK) {          \
            return cr_try_status;              \
        }                                      \
    } while (0)

#define CR_TRY_OUT(status, expression)  \
    do {                                \
        (status) = (expression);        \
        if ((status) != CR_OK) {        \
            goto out;                   \
        }                               \
    } while (0)

#endif
