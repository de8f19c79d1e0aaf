/* nearest: what the user may have meant. */
#ifndef CR_CLI_NEAREST_H
#define CR_CLI_NEAREST_H

#include <stddef.h>

/* Edits (insert, delete, replace, swap of neighbours) that turn n bytes of `word` into `name`; large for long words. */
size_t cr_cli_edits(const char *word, size_t n, const char *name);

/* Name of the flag of these commands that is nearest to n bytes of `word`; NULL when none is near. */
const char *cr_cli_nearest_option(const char *word, size_t n, unsigned commands);

#endif
