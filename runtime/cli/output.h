/* output: text to standard output, where a lost byte is a failure of the program. */
#ifndef CR_CLI_OUTPUT_H
#define CR_CLI_OUTPUT_H

#include <stdbool.h>
#include <stddef.h>

#include "credence/status.h"

/* Puts a descriptor that fails on use in the place of any of 0, 1 and 2 that is closed, so that no file opened later
 * takes its number. Call first. */
void cr_cli_output_guard(void);

/* A cr_emit_fn: false when standard output can no longer be written. ctx is unused. */
bool cr_cli_emit(void *ctx, const char *text, size_t n_bytes);

void cr_cli_print(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Writes out what is buffered. CR_E_IO when anything since the start was lost. */
cr_status cr_cli_output_finish(struct cr_error *err);

#endif
