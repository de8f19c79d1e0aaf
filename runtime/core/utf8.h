/* Well-formed UTF-8, as the Unicode standard's table of byte sequences defines it (no surrogates, no overlong forms,
 * nothing above U+10FFFF). */
#ifndef CR_CORE_UTF8_H
#define CR_CORE_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* Length 1...4 of the character at s (n > 0 bytes readable), 0 when the bytes there are not well-formed. */
static inline unsigned cr_utf8_length(const char *s, size_t n)
{
    const unsigned char *p = (const unsigned char *)s;
    if (p[0] < 0x80) {
        return 1;
    }
    unsigned length = p[0] >= 0xC2 && p[0] <= 0xDF   ? 2
                      : (p[0] & 0xF0) == 0xE0        ? 3
                      : p[0] >= 0xF0 && p[0] <= 0xF4 ? 4
                                                     : 0;
    if (length == 0 || length > n) {
        return 0;
    }
    unsigned lowest = p[0] == 0xE0 ? 0xA0 : p[0] == 0xF0 ? 0x90 : 0x80;
    unsigned highest = p[0] == 0xED ? 0x9F : p[0] == 0xF4 ? 0x8F : 0xBF;
    if (p[1] < lowest || p[1] > highest) {
        return 0;
    }
    for (unsigned i = 2; i < length; i++) {
        if ((p[i] & 0xC0) != 0x80) {
            return 0;
        }
    }
    return length;
}

/* Bytes of the longest well-formed run at the start of s; 0 when s starts with a malformed byte or is empty. */
static inline size_t cr_utf8_run(const char *s, size_t n)
{
    size_t i = 0;
    while (i < n) {
        unsigned length = cr_utf8_length(s + i, n - i);
        if (length == 0) {
            break;
        }
        i += length;
    }
    return i;
}

/* Code point of the well-formed character of `length` bytes at s. */
static inline uint32_t cr_utf8_decode(const char *s, unsigned length)
{
    const unsigned char *p = (const unsigned char *)s;
    uint32_t c = length == 1 ? p[0] : p[0] & (0xFFu >> (length + 1));
    for (unsigned i = 1; i < length; i++) {
        c = c << 6 | (p[i] & 0x3Fu);
    }
    return c;
}

#endif
