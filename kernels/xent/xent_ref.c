/* xent for every CPU: the template at the width that the portable flags give. */
#include "kernels/xent/xent_lanes.h"

CR_TIER_VARIANT(xent, ref)
