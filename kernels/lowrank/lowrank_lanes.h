/* lowrank over lines of sixteen tokens; included once by each tier. */
#ifndef CR_LOWRANK_LANES_H
#define CR_LOWRANK_LANES_H

#include "kernels/common/tiers.h"
#include "kernels/lowrank/lowrank_down_up.h"
#include "kernels/lowrank/lowrank_grad.h"

static void fill(struct cr_lowrank_ops *ops)
{
    static const struct cr_lowrank_ops table = {lowrank_down, lowrank_up, lowrank_grad};
    *ops = table;
}

#endif
