/* cast for every CPU: the template at the width that the portable flags give. */
#include "kernels/cast/cast_lanes.h"

CR_TIER_VARIANT(cast, ref)
