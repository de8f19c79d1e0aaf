/* Naming a file by its first bytes when it is not what was expected. */
#ifndef CR_IO_SNIFF_H
#define CR_IO_SNIFF_H

#include <stddef.h>

/* "a gzip file", "a Git LFS pointer file (the file itself was not downloaded)", ...; NULL when nothing is
 * recognised. Static storage. */
const char *cr_sniff(const void *data, size_t n);

#endif
