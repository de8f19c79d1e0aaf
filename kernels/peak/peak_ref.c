/* peak for every CPU: the template at the width that the portable flags give. */
#include "kernels/peak/peak_lanes.h"

CR_TIER_VARIANT(peak, ref)
