/* lines: a data file in memory, handed out line by line.
 *
 * Lines end in LF or CR LF; the last may lack its end; a leading UTF-8 byte-order mark and blank lines are passed
 * over. Files that are clearly something else (UTF-16, gzip, zip, parquet...) are recognised by their first bytes.
 * Errors: CR_E_IO as in runtime/io/file.h, CR_E_INPUT naming what the file is, CR_E_MEMORY.
 */
#ifndef CR_DATA_LINES_H
#define CR_DATA_LINES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/core/error.h"

struct cr_lines {
    uint8_t *data; /* owned */
    size_t n_bytes;
    size_t next;     /* offset of the line to come */
    uint64_t number; /* 1-based number of the line handed out last */
};

/* Reads the whole file. Returns owned in *lines: cr_lines_close. */
cr_status cr_lines_open(const char *path, struct cr_lines *lines, struct cr_error *err);
void cr_lines_close(struct cr_lines *lines); /* all zero is fine */

/* The next line that is not blank, without its line end; borrowed. False at the end of the file. */
bool cr_lines_next(struct cr_lines *lines, const char **text, size_t *n_bytes);

#endif
