/* The methods there are. */
#include <string.h>

#include "runtime/posterior/method.h"

static const struct cr_method *const methods[] = {&cr_method_adamw, &cr_method_ivon, &cr_method_swag,
                                                  &cr_method_ensemble, &cr_method_blob, &cr_method_bora,
                                                  &cr_method_prefix};

const struct cr_method *cr_method_find(const char *name)
{
    for (size_t i = 0; i < sizeof methods / sizeof methods[0]; i++) {
        if (strcmp(methods[i]->name, name) == 0) {
            return methods[i];
        }
    }
    return NULL;
}

const char *cr_method_names(void)
{
    return "adamw, ivon, swag, ensemble, blob, bora or prefix";
}
