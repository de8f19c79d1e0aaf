#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/cli/commands.h"
#include "runtime/cli/message.h"
#include "runtime/cli/output.h"
#include "runtime/cli/signals.h"

/* Reads everything from fd into owned memory. */
static cr_status read_all(int fd, const char *name, char **text, size_t *n_bytes, struct cr_error *err)
{
    size_t capacity = 1 << 16;
    size_t n = 0;
    char *data = malloc(capacity);
    while (data != NULL) {
        if (n == capacity) {
            char *grown = capacity > SIZE_MAX / 2 ? NULL : realloc(data, 2 * capacity);
            if (grown == NULL) {
                break;
            }
            data = grown;
            capacity *= 2;
        }
        ssize_t got = read(fd, data + n, capacity - n);
        if (got == 0) {
            *text = data;
            *n_bytes = n;
            return CR_OK;
        }
        if (got > 0) {
            n += (size_t)got;
        } else if (errno != EINTR || cr_cli_signals_pending()) {
            free(data);
            return errno == EINTR ? cr_cli_fail(err, CR_E_STOPPED, "stopped while reading %s", name)
                                  : cr_cli_fail(err, CR_E_IO, "%s: %s", name, strerror(errno));
        }
    }
    free(data);
    return cr_cli_fail(err, CR_E_MEMORY, "%s: no memory after %zu bytes", name, n);
}

static cr_status read_input(const char *path, char **text, size_t *n_bytes, struct cr_error *err)
{
    if (path == NULL || strcmp(path, "-") == 0) {
        return read_all(STDIN_FILENO, "standard input", text, n_bytes, err);
    }
    const char *name = cr_cli_quote(path);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return cr_cli_fail(err, CR_E_IO, "%s: %s", name, strerror(errno));
    }
    cr_status status = read_all(fd, name, text, n_bytes, err);
    close(fd);
    return status;
}

cr_status cr_cli_run_tokenize(const struct cr_cli_args *args, struct cr_cli_host *host, struct cr_error *err)
{
    const char *path = args->n_operands > 0 ? args->operands[0] : NULL;
    char *text;
    size_t n_bytes;
    cr_status status = read_input(path, &text, &n_bytes, err);
    if (status != CR_OK) {
        return status;
    }
    struct cr_tokenize_options options = {
        .size = sizeof options,
        .model = cr_cli_text(args, CR_CLI_MODEL),
        .jsonl = cr_cli_given(args, CR_CLI_JSONL),
        .special = cr_cli_given(args, CR_CLI_SPECIAL),
        .bos = cr_cli_given(args, CR_CLI_BOS),
        .normalize = cr_cli_text(args, CR_CLI_NORMALIZE),
    };
    status = cr_tokenize_text(&options, &host->host, text, n_bytes, cr_cli_emit, NULL, err);
    free(text);
    if (status == CR_E_INPUT && strncmp(err->message, "line ", 5) == 0) { /* the library does not know the name */
        struct cr_error inner = *err;
        bool named = path != NULL && strcmp(path, "-") != 0;
        cr_cli_fail(err, status, "%s: %.600s", named ? cr_cli_quote(path) : "standard input", inner.message);
    }
    return status;
}
