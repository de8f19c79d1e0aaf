/* act for every CPU: the template at the width that the portable flags give. */
#include "kernels/act/act_lanes.h"

CR_TIER_VARIANT(act, ref)
