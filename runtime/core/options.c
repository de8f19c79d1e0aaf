#include "runtime/core/options.h"

#include <string.h>

#include "runtime/core/error.h"

cr_status cr_options_copy(void *out, size_t n_bytes, const void *given, struct cr_error *err)
{
    size_t size = 0;
    if (given != NULL) {
        memcpy(&size, given, sizeof size);
    }
    if (size < sizeof size || size > n_bytes) {
        return cr_fail(err, CR_E_USAGE, "options: size %zu, expected the size of their struct, at most %zu", size,
                       n_bytes);
    }
    memcpy(out, given, size);
    memcpy(out, &n_bytes, sizeof n_bytes);
    return CR_OK;
}
