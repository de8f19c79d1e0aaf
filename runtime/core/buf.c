#include "runtime/core/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "runtime/core/alloc.h"

bool cr_buf_reserve(struct cr_buf *buf, size_t more)
{
    size_t need;
    if (buf->failed || !cr_add_size(buf->n, more, &need) || !cr_add_size(need, 1, &need)) {
        buf->failed = true;
        return false;
    }
    if (need <= buf->capacity) {
        return true;
    }
    size_t wanted = buf->capacity < 128 ? 128 : buf->capacity + buf->capacity / 2;
    wanted = wanted < need ? need : wanted;
    char *grown = cr_realloc(buf->data, buf->n, wanted, 1);
    if (grown == NULL) {
        buf->failed = true;
        return false;
    }
    grown[buf->n] = '\0';
    buf->data = grown;
    buf->capacity = wanted;
    return true;
}

void cr_buf_append(struct cr_buf *buf, const void *data, size_t n)
{
    if (cr_buf_reserve(buf, n)) {
        if (n > 0) {
            memcpy(buf->data + buf->n, data, n);
        }
        buf->n += n;
        buf->data[buf->n] = '\0';
    }
}

void cr_buf_puts(struct cr_buf *buf, const char *text)
{
    cr_buf_append(buf, text, strlen(text));
}

void cr_buf_putc(struct cr_buf *buf, char c)
{
    cr_buf_append(buf, &c, 1);
}

void cr_buf_fill(struct cr_buf *buf, char c, size_t n)
{
    if (cr_buf_reserve(buf, n)) {
        memset(buf->data + buf->n, c, n);
        buf->n += n;
        buf->data[buf->n] = '\0';
    }
}

void cr_buf_printf(struct cr_buf *buf, const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    int n = vsnprintf(NULL, 0, format, ap);
    va_end(ap);
    if (n < 0) {
        buf->failed = true;
        return;
    }
    if (cr_buf_reserve(buf, (size_t)n)) {
        va_start(ap, format);
        vsnprintf(buf->data + buf->n, (size_t)n + 1, format, ap);
        va_end(ap);
        buf->n += (size_t)n;
    }
}

void cr_buf_u32(struct cr_buf *buf, uint32_t value)
{
    uint8_t bytes[4];
    for (int i = 0; i < 4; i++) {
        bytes[i] = (uint8_t)(value >> 8 * i);
    }
    cr_buf_append(buf, bytes, sizeof bytes);
}

void cr_buf_u64(struct cr_buf *buf, uint64_t value)
{
    uint8_t bytes[8];
    for (int i = 0; i < 8; i++) {
        bytes[i] = (uint8_t)(value >> 8 * i);
    }
    cr_buf_append(buf, bytes, sizeof bytes);
}

void cr_buf_f32(struct cr_buf *buf, float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    cr_buf_u32(buf, bits);
}

void cr_buf_json_string(struct cr_buf *buf, const char *text, size_t n)
{
    static const char letters[32] = {['\b'] = 'b', ['\t'] = 't', ['\n'] = 'n', ['\f'] = 'f', ['\r'] = 'r'};
    cr_buf_putc(buf, '"');
    size_t start = 0;
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c >= 0x20 && c != '"' && c != '\\') {
            continue;
        }
        cr_buf_append(buf, text + start, i - start);
        start = i + 1;
        if (c >= 0x20 || letters[c] != 0) {
            char escape[2] = {'\\', c >= 0x20 ? (char)c : letters[c]};
            cr_buf_append(buf, escape, 2);
        } else {
            cr_buf_printf(buf, "\\u%04x", c);
        }
    }
    cr_buf_append(buf, text + start, n - start);
    cr_buf_putc(buf, '"');
}

void cr_buf_clear(struct cr_buf *buf)
{
    buf->n = 0;
    if (buf->data != NULL) {
        buf->data[0] = '\0';
    }
}

void cr_buf_free(struct cr_buf *buf)
{
    cr_free(buf->data);
    memset(buf, 0, sizeof *buf);
}

char *cr_buf_take(struct cr_buf *buf, size_t *n)
{
    cr_buf_reserve(buf, 0); /* an empty buffer becomes "" */
    char *data = NULL;
    if (buf->failed) {
        cr_free(buf->data);
    } else {
        data = buf->data;
        if (n != NULL) {
            *n = buf->n;
        }
    }
    memset(buf, 0, sizeof *buf);
    return data;
}
