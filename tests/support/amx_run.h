/* amx_run: one product by the tile instructions of the processor (or of amx_trap). */
#ifndef CR_TESTS_AMX_RUN_H
#define CR_TESTS_AMX_RUN_H

#include <stdbool.h>
#include <stddef.h>

struct amx_config;

/* c += a b with tiles 0 (c), 1 (a) and 2 (b) of `config`; rows `stride` bytes apart. False: not compiled in. */
bool cr_amx_run(const struct amx_config *config, const void *a, const void *b, void *c, size_t stride);

#endif
