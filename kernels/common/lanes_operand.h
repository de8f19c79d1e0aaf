/* lanes_operand: a column of LANES_N tokens of two neighbouring features, read from or written to a block of either
 * operand type. `block` is the start of one token block; feature is even; column a multiple of LANES_N.
 * The type is meant to be a constant at the call, so that the branch folds.
 */
#ifndef CR_COMMON_LANES_OPERAND_H
#define CR_COMMON_LANES_OPERAND_H

#include "kernels/common/lanes.h"
#include "credence/kernels/tl16.h"

CR_INLINE void operand_load(const void *block, enum cr_xtype type, size_t feature, size_t column, lanes *even,
                            lanes *odd)
{
    if (type == CR_X_BF16) {
        lanes_u pair = lanes_load_u((const uint32_t *)block + feature / 2 * CR_LANES + column);
        *even = lanes_bf16_even(pair);
        *odd = lanes_bf16_odd(pair);
    } else {
        const float *line = (const float *)block + feature * CR_LANES + column;
        *even = lanes_load(line);
        *odd = lanes_load(line + CR_LANES);
    }
}

CR_INLINE void operand_store(void *block, enum cr_xtype type, size_t feature, size_t column, lanes even, lanes odd)
{
    if (type == CR_X_BF16) {
        lanes_store_u((uint32_t *)block + feature / 2 * CR_LANES + column, lanes_pack_bf16(even, odd));
    } else {
        float *line = (float *)block + feature * CR_LANES + column;
        lanes_store(line, even);
        lanes_store(line + CR_LANES, odd);
    }
}

#endif
