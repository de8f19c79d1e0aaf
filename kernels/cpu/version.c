#include "credence/kernels.h"

const char *cr_kernels_version(void)
{
    return CREDENCE_VERSION;
}
