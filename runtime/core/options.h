/* options: the sized structs of the public calls, as callers of any version give them. */
#ifndef CR_CORE_OPTIONS_H
#define CR_CORE_OPTIONS_H

#include <stddef.h>

#include "credence/status.h"

/* Copies a caller's options over `out` (n_bytes), which holds the defaults: fields that an older caller does not know
 * keep them. Both begin with their `size`; that of `out` becomes n_bytes. Errors: CR_E_USAGE when given is NULL or its
 * size is too small to hold itself or larger than n_bytes (a newer caller); out is untouched then. */
cr_status cr_options_copy(void *out, size_t n_bytes, const void *given, struct cr_error *err);

#endif
