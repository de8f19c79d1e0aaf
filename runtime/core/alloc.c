#include "runtime/core/alloc.h"

#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { HUGE_PAGE = 1 << 21 };

static atomic_long count, live, fail_at;
static atomic_bool fail_sticky;

void cr_alloc_fail_at(long n, bool sticky)
{
    atomic_store(&fail_sticky, sticky);
    atomic_store(&fail_at, n > 0 ? atomic_load(&count) + n : 0);
}

long cr_alloc_count(void)
{
    return atomic_load(&count);
}

long cr_alloc_live(void)
{
    return atomic_load(&live);
}

static bool must_fail(void)
{
    long now = atomic_fetch_add(&count, 1) + 1;
    long at = atomic_load(&fail_at);
    return at != 0 && (now == at || (now > at && atomic_load(&fail_sticky)));
}

bool cr_mul_size(size_t a, size_t b, size_t *out)
{
    return !__builtin_mul_overflow(a, b, out);
}

bool cr_add_size(size_t a, size_t b, size_t *out)
{
    return !__builtin_add_overflow(a, b, out);
}

static void *alloc_aligned(size_t n, size_t size, size_t alignment)
{
    size_t bytes;
    if (must_fail() || !cr_mul_size(n, size, &bytes) || bytes > PTRDIFF_MAX - alignment) {
        return NULL;
    }
    size_t rounded = bytes == 0 ? alignment : (bytes + alignment - 1) / alignment * alignment;
    void *block = aligned_alloc(alignment, rounded);
    if (block != NULL) {
        atomic_fetch_add(&live, 1);
    }
    return block;
}

void *cr_alloc(size_t n, size_t size)
{
    return alloc_aligned(n, size, 64);
}

void *cr_zalloc(size_t n, size_t size)
{
    size_t bytes;
    bool large = cr_mul_size(n, size, &bytes) && bytes >= 4 * HUGE_PAGE;
    void *block = alloc_aligned(n, size, large ? HUGE_PAGE : 64);
    if (block != NULL) {
#ifdef MADV_HUGEPAGE
        if (large) {
            madvise(block, bytes / HUGE_PAGE * HUGE_PAGE, MADV_HUGEPAGE); /* a wish: every page is written right away */
        }
#endif
        memset(block, 0, n * size);
    }
    return block;
}

void *cr_realloc(void *block, size_t old_n, size_t new_n, size_t size)
{
    void *grown = cr_alloc(new_n, size);
    if (grown != NULL && block != NULL) {
        memcpy(grown, block, (old_n < new_n ? old_n : new_n) * size);
        cr_free(block);
    }
    return grown;
}

void *cr_grow(void *block, size_t n, size_t more, size_t *capacity, size_t size)
{
    enum { FIRST = 16 };
    size_t need, wanted;
    if (!cr_add_size(n, more, &need) || !cr_mul_size(*capacity, 2, &wanted)) {
        return NULL;
    }
    if (block != NULL && need <= *capacity) {
        return block;
    }
    wanted = wanted < FIRST ? FIRST : wanted;
    wanted = wanted < need ? need : wanted;
    void *grown = cr_realloc(block, *capacity, wanted, size);
    if (grown != NULL) {
        *capacity = wanted;
    }
    return grown;
}

void cr_free(void *block)
{
    if (block != NULL) {
        atomic_fetch_sub(&live, 1);
        free(block);
    }
}

char *cr_strndup(const char *text, size_t n)
{
    char *copy = n < SIZE_MAX ? cr_alloc(n + 1, 1) : NULL;
    if (copy != NULL) {
        memcpy(copy, text, n);
        copy[n] = '\0';
    }
    return copy;
}

char *cr_strdup(const char *text)
{
    return cr_strndup(text, strlen(text));
}
