#include "runtime/cli/settings.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/cli/values.h"

/* Length of the well-formed UTF-8 character at s, 0 when there is none. s is terminated. */
static size_t character_length(const unsigned char *s)
{
    if (s[0] < 0x80) {
        return 1;
    }
    size_t n = s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : 2;
    if (s[0] < 0xc2 || s[0] > 0xf4) {
        return 0;
    }
    for (size_t i = 1; i < n; i++) {
        if ((s[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    bool overlong = (s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xf0 && s[1] < 0x90);
    bool surrogate = s[0] == 0xed && s[1] > 0x9f;
    bool beyond = s[0] == 0xf4 && s[1] > 0x8f;
    return overlong || surrogate || beyond ? 0 : n;
}

static void put_string(FILE *out, const char *text)
{
    const unsigned char *s = (const unsigned char *)text;
    fputc('"', out);
    while (*s != '\0') {
        size_t n = character_length(s);
        if (n == 0) {
            fputs("\\ufffd", out);
            s++;
        } else if (*s < 0x20 || *s == '"' || *s == '\\') {
            fprintf(out, "\\u%04x", *s++);
        } else {
            fwrite(s, 1, n, out);
            s += n;
        }
    }
    fputc('"', out);
}

static void put_strings(FILE *out, const char *const *texts, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        fputc(i == 0 ? '[' : ',', out);
        put_string(out, texts[i]);
    }
    fputc(']', out);
}

static void put_value(FILE *out, const struct cr_cli_option *option, const struct cr_cli_value *value)
{
    char number[40];
    switch (option->kind) {
    case CR_CLI_SWITCH:
        fputs("true", out);
        break;
    case CR_CLI_UINT:
    case CR_CLI_SIZE:
        fprintf(out, "%llu", (unsigned long long)value->integer);
        break;
    case CR_CLI_REAL:
        cr_cli_format_real(value->real, number, sizeof number);
        fputs(number, out);
        break;
    case CR_CLI_TEXT:
    case CR_CLI_INPUT:
    case CR_CLI_OUTPUT_PATH:
    case CR_CLI_WORD:
    case CR_CLI_WORDS:
        if (value->n_texts > 0) {
            put_strings(out, value->texts, value->n_texts);
            break;
        }
        put_string(out, value->text);
        break;
    }
}

char *cr_cli_settings_json(const struct cr_cli_args *args)
{
    char *text = NULL;
    size_t n_bytes;
    FILE *out = open_memstream(&text, &n_bytes);
    if (out == NULL) {
        return NULL;
    }
    const char *separator = "";
    fputc('{', out);
    for (int id = 0; id < CR_CLI_N_OPTIONS; id++) {
        if (args->values[id].given && id != CR_CLI_CONFIG) {
            fprintf(out, "%s\"%s\":", separator, cr_cli_options[id].name);
            put_value(out, &cr_cli_options[id], &args->values[id]);
            separator = ",";
        }
    }
    fputc('}', out);
    bool failed = ferror(out) != 0;
    if (fclose(out) != 0 || failed) {
        free(text);
        return NULL;
    }
    return text;
}
