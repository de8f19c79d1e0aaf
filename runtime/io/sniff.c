#include "runtime/io/sniff.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define STARTS(data, n, text) ((n) >= sizeof(text) - 1 && memcmp(data, text, sizeof(text) - 1) == 0)

/* JSON and other text begins with an ASCII character, so a NUL beside one betrays two-byte units. */
static bool utf16(const uint8_t *s, size_t n)
{
    if (STARTS(s, n, "\xff\xfe") || STARTS(s, n, "\xfe\xff")) {
        return true;
    }
    return n >= 4 && ((s[0] != 0 && s[0] < 0x80 && s[1] == 0 && s[2] != 0 && s[2] < 0x80 && s[3] == 0) ||
                      (s[0] == 0 && s[1] != 0 && s[1] < 0x80 && s[2] == 0 && s[3] != 0 && s[3] < 0x80));
}

const char *cr_sniff(const void *data, size_t n)
{
    const uint8_t *s = data;
    if (STARTS(s, n, "GGUF")) {
        return "a GGUF file";
    }
    if (STARTS(s, n, "ggml") || STARTS(s, n, "lmgg") || STARTS(s, n, "tjgg") || STARTS(s, n, "fmgg")) {
        return "a model file of an older ggml format";
    }
    if (STARTS(s, n, "version https://git-lfs")) {
        return "a Git LFS pointer file (the file itself was not downloaded)";
    }
    if (STARTS(s, n, "\x1f\x8b")) {
        return "a gzip file";
    }
    if (STARTS(s, n, "\x28\xb5\x2f\xfd")) {
        return "a zstd file";
    }
    if (STARTS(s, n, "PK\x03\x04")) {
        return "a zip file";
    }
    if (STARTS(s, n, "BZh")) {
        return "a bzip2 file";
    }
    if (STARTS(s, n, "\3757zXZ")) { /* fd, then text */
        return "an xz file";
    }
    if (STARTS(s, n, "PAR1")) {
        return "a Parquet file";
    }
    if (STARTS(s, n, "ARROW1")) {
        return "an Arrow file";
    }
    if (STARTS(s, n, "\xef\xbb\xbf")) {
        return "text with a byte-order mark";
    }
    if (utf16(s, n)) {
        return "UTF-16 text";
    }
    if (STARTS(s, n, "<!DOCTYPE") || STARTS(s, n, "<html")) {
        return "an HTML page";
    }
    if (n > 9 && s[8] == '{' && s[4] == 0 && s[5] == 0 && s[6] == 0 && s[7] == 0) {
        return "a safetensors file";
    }
    return NULL;
}
