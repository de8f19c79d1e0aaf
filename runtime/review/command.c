/* Settings as the line that a user would type. */
#include <stdlib.h>
#include <string.h>

#include "runtime/core/buf.h"
#include "runtime/review/review_parts.h"

static void put_word(struct cr_buf *out, const char *word)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./:=,+@%-";
    if (word[0] != '\0' && strspn(word, plain) == strlen(word)) {
        cr_buf_puts(out, word);
        return;
    }
    cr_buf_putc(out, '\'');
    for (const char *c = word; *c != '\0'; c++) {
        if (*c == '\'') {
            cr_buf_puts(out, "'\\''");
        } else {
            cr_buf_putc(out, *c);
        }
    }
    cr_buf_putc(out, '\'');
}

static void put_value(struct cr_buf *out, const json_t *value)
{
    if (json_is_string(value)) {
        put_word(out, json_string_value(value));
        return;
    }
    /* 15 digits give every decimal number back as it was typed. */
    char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(15));
    if (text == NULL) {
        out->failed = true;
        return;
    }
    put_word(out, text);
    free(text);
}

static void put_flag(struct cr_buf *out, const char *key, const json_t *value)
{
    cr_buf_puts(out, " \\\n    --"); /* one flag a line: nothing breaks inside a word on a narrow page */
    cr_buf_puts(out, key);
    if (!json_is_true(value)) {
        cr_buf_putc(out, ' ');
        put_value(out, value);
    }
}

void cr_command_line(struct cr_buf *out, const char *command, const json_t *flags)
{
    const char *key;
    json_t *value, *one;
    size_t i;
    cr_buf_printf(out, "credence %s", command);
    json_object_foreach((json_t *)(uintptr_t)flags, key, value)
    {
        if (json_is_false(value) || json_is_null(value)) {
            continue;
        }
        if (!json_is_array(value)) {
            put_flag(out, key, value);
        }
        json_array_foreach(value, i, one) /* a flag given several times */
        {
            put_flag(out, key, one);
        }
    }
}

void cr_command_operand(struct cr_buf *out, const char *operand)
{
    cr_buf_puts(out, " \\\n    ");
    put_word(out, operand);
}
