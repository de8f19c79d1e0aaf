/* order: comparisons for qsort. */
#ifndef CR_CORE_ORDER_H
#define CR_CORE_ORDER_H

#include <stdint.h>
#include <string.h>

/* Ascending uint32_t. */
static inline int cr_order_u32(const void *a, const void *b)
{
    uint32_t x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return (x > y) - (x < y);
}

#endif
