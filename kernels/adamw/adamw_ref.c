/* adamw for every CPU: the template at the width that the portable flags give. */
#include "kernels/adamw/adamw_lanes.h"

CR_TIER_VARIANT(adamw, ref)
