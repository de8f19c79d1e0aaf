/* Heap memory of the library: sizes are multiplied with a check, every block is 64-byte aligned. */
#ifndef CR_CORE_ALLOC_H
#define CR_CORE_ALLOC_H

#include <stdbool.h>
#include <stddef.h>

/* Returns owned memory for n items of `size` bytes (contents undefined), NULL when it cannot be had or n * size
 * overflows. A request of 0 bytes returns a valid unique block. */
void *cr_alloc(size_t n, size_t size);
void *cr_zalloc(size_t n, size_t size); /* the same, all bytes zero */

/* Grows or shrinks a block of old_n items to new_n, keeping the first min(old_n, new_n). NULL: old block untouched. */
void *cr_realloc(void *block, size_t old_n, size_t new_n, size_t size);

/* Room for `more` items behind n in an array of *capacity items of `size` bytes: returns the block to go on with, which
 * is the old one while there is room, and keeps *capacity. It grows at least to twice its size, so that appending costs
 * a constant time an item. `block` may be NULL when *capacity is 0. NULL: no memory or sizes overflow; the old block
 * and *capacity are untouched. */
void *cr_grow(void *block, size_t n, size_t more, size_t *capacity, size_t size);

void cr_free(void *block); /* NULL is fine */

char *cr_strdup(const char *text);            /* owned copy, NULL on failure */
char *cr_strndup(const char *text, size_t n); /* owned, terminated copy of n bytes */

/* Overflow-checked size arithmetic: false and *out untouched on overflow. */
bool cr_mul_size(size_t a, size_t b, size_t *out);
bool cr_add_size(size_t a, size_t b, size_t *out);

/* n <= SIZE_MAX - 15 rounded up to a multiple of 16: of floats a cache line, of tokens a block of the kernels. */
static inline size_t cr_round_up_16(size_t n)
{
    return (n + 15) / 16 * 16;
}

/* Test hook. fail_at = n makes the n-th allocation from now return NULL (1 = the next), and every later one too
 * when `sticky`; 0 turns it off. cr_alloc_count() counts all requests since the program began. */
void cr_alloc_fail_at(long fail_at, bool sticky);
long cr_alloc_count(void);
long cr_alloc_live(void); /* blocks not yet freed */

#endif
