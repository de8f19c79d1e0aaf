/* A growing byte buffer, always terminated, with a sticky failure: append freely, test `failed` once at the end.
 *
 * A zeroed struct is an empty buffer. After a failed allocation every later append is ignored and the contents stay
 * those before it. Not shared between threads. The bytes are owned by the buffer until cr_buf_take().
 */
#ifndef CR_CORE_BUF_H
#define CR_CORE_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cr_buf {
    char *data;      /* n bytes and a final 0; NULL while nothing was appended */
    size_t n;        /* bytes in use, without the terminator */
    size_t capacity; /* bytes allocated */
    bool failed;
};

/* Makes room for `more` further bytes. False when memory cannot be had (and from then on). */
bool cr_buf_reserve(struct cr_buf *buf, size_t more);

void cr_buf_append(struct cr_buf *buf, const void *data, size_t n);
void cr_buf_puts(struct cr_buf *buf, const char *text);
void cr_buf_putc(struct cr_buf *buf, char c);
void cr_buf_fill(struct cr_buf *buf, char c, size_t n); /* n times c */
void cr_buf_printf(struct cr_buf *buf, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Little-endian integers and the bytes of a float. */
void cr_buf_u32(struct cr_buf *buf, uint32_t value);
void cr_buf_u64(struct cr_buf *buf, uint64_t value);
void cr_buf_f32(struct cr_buf *buf, float value);

/* Appends n bytes of UTF-8 as a JSON string with its quotes: \" \\ \n \r \t \b \f and \u00XX for other controls. */
void cr_buf_json_string(struct cr_buf *buf, const char *text, size_t n);

void cr_buf_clear(struct cr_buf *buf); /* n = 0, memory and `failed` kept */
void cr_buf_free(struct cr_buf *buf);  /* back to the empty state */

/* Returns owned, terminated bytes (cr_free) and their number, leaving the buffer empty; NULL when it has failed. */
char *cr_buf_take(struct cr_buf *buf, size_t *n);

#endif
