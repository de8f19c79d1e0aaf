/* attention, private: the group of token blocks that the lane variants work on, which decides their scratch. */
#ifndef CR_ATTENTION_SCRATCH_H
#define CR_ATTENTION_SCRATCH_H

#include "credence/kernels/attention.h"

/* Three blocks fill the widest register tile of lanes_tile.h. */
enum { CR_ATTENTION_GROUP = 3 };

#endif
