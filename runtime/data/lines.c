#include "runtime/data/lines.h"

#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/io/file.h"
#include "runtime/io/sniff.h"

cr_status cr_lines_open(const char *path, struct cr_lines *lines, struct cr_error *err)
{
    struct cr_lines fresh = {0};
    CR_TRY(cr_file_read(path, SIZE_MAX / 2, &fresh.data, &fresh.n_bytes, err));
    if (fresh.n_bytes >= 3 && memcmp(fresh.data, "\xef\xbb\xbf", 3) == 0) {
        fresh.next = 3;
    }
    const char *name = cr_sniff(fresh.data + fresh.next, fresh.n_bytes - fresh.next);
    if (name != NULL) {
        char shown[CR_ESCAPE_BYTES];
        cr_lines_close(&fresh);
        return cr_fail(err, CR_E_INPUT, "%s: this is %s; JSON Lines in UTF-8 expected",
                       cr_escape(shown, sizeof shown, path, strlen(path)), name);
    }
    *lines = fresh;
    return CR_OK;
}

void cr_lines_close(struct cr_lines *lines)
{
    cr_free(lines->data);
    memset(lines, 0, sizeof *lines);
}

static bool blank(const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (text[i] != ' ' && text[i] != '\t' && text[i] != '\r') {
            return false;
        }
    }
    return true;
}

bool cr_lines_next(struct cr_lines *lines, const char **text, size_t *n_bytes)
{
    while (lines->next < lines->n_bytes) {
        const char *start = (const char *)lines->data + lines->next;
        size_t left = lines->n_bytes - lines->next;
        const char *end = memchr(start, '\n', left);
        size_t n = end != NULL ? (size_t)(end - start) : left;
        lines->next += end != NULL ? n + 1 : n;
        lines->number++;
        if (blank(start, n)) {
            continue;
        }
        *text = start;
        *n_bytes = n > 0 && start[n - 1] == '\r' ? n - 1 : n;
        return true;
    }
    return false;
}
