/* Binary min-heap in the caller's array, ordered by key, then by check. O(log n) a call, no recursion. The array must
 * have room for every push. */
#ifndef CR_TOKENIZER_HEAP_H
#define CR_TOKENIZER_HEAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cr_heap_item {
    uint64_t key;
    uint64_t check;
};

static inline bool cr_heap_before(struct cr_heap_item a, struct cr_heap_item b)
{
    return a.key < b.key || (a.key == b.key && a.check < b.check);
}

static inline void cr_heap_push(struct cr_heap_item *items, size_t *n, struct cr_heap_item item)
{
    size_t i = (*n)++;
    while (i > 0 && cr_heap_before(item, items[(i - 1) / 2])) {
        items[i] = items[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    items[i] = item;
}

/* Requires *n > 0. */
static inline struct cr_heap_item cr_heap_pop(struct cr_heap_item *items, size_t *n)
{
    struct cr_heap_item top = items[0];
    struct cr_heap_item last = items[--*n];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= *n) {
            break;
        }
        if (child + 1 < *n && cr_heap_before(items[child + 1], items[child])) {
            child++;
        }
        if (!cr_heap_before(items[child], last)) {
            break;
        }
        items[i] = items[child];
        i = child;
    }
    items[i] = last;
    return top;
}

#endif
