/* XXH3 digests of files and sections: 64 and 128 bits, in one go or streamed. Not cryptographic. */
#ifndef CR_IO_HASH_H
#define CR_IO_HASH_H

#include <stddef.h>
#include <stdint.h>

struct cr_hash128 {
    uint64_t low, high;
};

uint64_t cr_xxh3_64(const void *data, size_t n);
struct cr_hash128 cr_xxh3_128(const void *data, size_t n);

/* Streaming: both widths can be read at any time and equal those of all bytes so far in one go. */
struct cr_hash;
struct cr_hash *cr_hash_create(void); /* returns owned, NULL when memory cannot be had */
void cr_hash_update(struct cr_hash *h, const void *data, size_t n);
uint64_t cr_hash_64(const struct cr_hash *h);
struct cr_hash128 cr_hash_128(const struct cr_hash *h);
void cr_hash_destroy(struct cr_hash *h); /* NULL is fine */

/* Lower-case hexadecimal, most significant digit first, terminated. Return dst. */
char *cr_hex_64(char dst[17], uint64_t value);
char *cr_hex_128(char dst[33], struct cr_hash128 value);

#endif
