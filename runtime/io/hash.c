#include "runtime/io/hash.h"

#include <stdio.h>
#include <xxhash.h>

#include "runtime/core/alloc.h"

/* XXH3 keeps one kind of state for both widths; reset by the 64-bit call, digests of both are valid. */
struct cr_hash {
    XXH3_state_t *state; /* from the library: the size of the struct is not part of its ABI */
};

uint64_t cr_xxh3_64(const void *data, size_t n)
{
    return XXH3_64bits(data, n);
}

struct cr_hash128 cr_xxh3_128(const void *data, size_t n)
{
    XXH128_hash_t hash = XXH3_128bits(data, n);
    return (struct cr_hash128){hash.low64, hash.high64};
}

struct cr_hash *cr_hash_create(void)
{
    struct cr_hash *h = cr_zalloc(1, sizeof *h);
    if (h == NULL || (h->state = XXH3_createState()) == NULL) {
        cr_free(h);
        return NULL;
    }
    XXH3_64bits_reset(h->state);
    return h;
}

void cr_hash_update(struct cr_hash *h, const void *data, size_t n)
{
    if (n > 0) {
        XXH3_64bits_update(h->state, data, n);
    }
}

uint64_t cr_hash_64(const struct cr_hash *h)
{
    return XXH3_64bits_digest(h->state);
}

struct cr_hash128 cr_hash_128(const struct cr_hash *h)
{
    XXH128_hash_t hash = XXH3_128bits_digest(h->state);
    return (struct cr_hash128){hash.low64, hash.high64};
}

void cr_hash_destroy(struct cr_hash *h)
{
    if (h != NULL) {
        XXH3_freeState(h->state);
        cr_free(h);
    }
}

char *cr_hex_64(char dst[17], uint64_t value)
{
    snprintf(dst, 17, "%016llx", (unsigned long long)value);
    return dst;
}

char *cr_hex_128(char dst[33], struct cr_hash128 value)
{
    cr_hex_64(dst, value.high);
    cr_hex_64(dst + 16, value.low);
    return dst;
}
