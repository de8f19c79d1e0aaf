/* attention, private: the sizes of what the variants work on at one time, which decide their scratch. */
#ifndef CR_ATTENTION_SCRATCH_H
#define CR_ATTENTION_SCRATCH_H

#include "credence/kernels/attention.h"

/* Three blocks fill the widest register tile of lanes_tile.h. */
enum { CR_ATTENTION_GROUP = 3 };

/* The bf16 variant: keys whose scores exist at one time going forward, and queries going back. 96: scores of a group
 * take 18 KiB, which with the group's Q and O stays close to the 32 to 48 KiB of L1. */
enum { CR_ATTENTION_KEYS = 96, CR_ATTENTION_QUERIES = 96 };

#endif
