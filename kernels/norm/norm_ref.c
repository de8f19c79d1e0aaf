/* norm for every CPU: the template at the width that the portable flags give. */
#include "kernels/norm/norm_lanes.h"

CR_TIER_VARIANT(norm, ref)
