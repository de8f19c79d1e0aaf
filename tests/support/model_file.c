#include "tests/support/model_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

const char *cr_test_model_path(void)
{
    static char path[4096];
    const char *model = getenv("CREDENCE_TEST_MODEL"), *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    if (model != NULL && model[0] != '\0') {
        snprintf(path, sizeof path, "%s", model);
    } else if (cache != NULL && cache[0] != '\0') {
        snprintf(path, sizeof path, "%s/credence/SmolLM2-135M-Instruct.Q4_1.gguf", cache);
    } else {
        snprintf(path, sizeof path, "%s/.cache/credence/SmolLM2-135M-Instruct.Q4_1.gguf", home != NULL ? home : "");
    }
    return path;
}

bool cr_test_model_present(void)
{
    return access(cr_test_model_path(), R_OK) == 0;
}
