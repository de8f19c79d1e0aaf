/* rope for every CPU: the template at the width that the portable flags give. */
#include "kernels/rope/rope_lanes.h"

CR_TIER_VARIANT(rope, ref)
