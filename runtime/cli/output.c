#include "runtime/cli/output.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "runtime/cli/message.h"

static int first_error;

void cr_cli_output_guard(void)
{
    for (int fd = 0; fd <= 2; fd++) {
        if (fcntl(fd, F_GETFD) == -1 && errno == EBADF) {
            /* The lowest free number is fd. Reading from 0 gives an end of file; writing to 1 and 2 fails. */
            (void)open("/dev/null", O_RDONLY);
        }
    }
}

static void note_error(void)
{
    if (first_error == 0) {
        first_error = errno != 0 ? errno : EIO;
    }
}

bool cr_cli_emit(void *ctx, const char *text, size_t n_bytes)
{
    (void)ctx;
    errno = 0;
    if (fwrite(text, 1, n_bytes, stdout) != n_bytes) {
        note_error();
    }
    return first_error == 0;
}

void cr_cli_print(const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    errno = 0;
    if (vprintf(format, ap) < 0) {
        note_error();
    }
    va_end(ap);
}

cr_status cr_cli_output_finish(struct cr_error *err)
{
    errno = 0;
    if (fflush(stdout) != 0 || ferror(stdout)) {
        note_error();
    }
    if (first_error != 0) {
        return cr_cli_fail(err, CR_E_IO, "standard output: %s", strerror(first_error));
    }
    return CR_OK;
}
