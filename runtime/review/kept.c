#include "runtime/review/kept.h"

#include "runtime/core/alloc.h"

cr_status cr_kept_add(struct cr_kept *kept, void *block, struct cr_error *err)
{
    void **blocks = block == NULL ? NULL : cr_grow(kept->blocks, kept->n, 1, &kept->capacity, sizeof *blocks);
    if (blocks == NULL) {
        cr_free(block);
        return cr_fail(err, CR_E_MEMORY, "no memory for the report");
    }
    kept->blocks = blocks;
    kept->blocks[kept->n++] = block;
    return CR_OK;
}

cr_status cr_kept_text(struct cr_kept *kept, struct cr_buf *buf, const char **out, struct cr_error *err)
{
    cr_buf_putc(buf, '\0'); /* an empty text is a text */
    char *text = cr_buf_take(buf, NULL);
    if (text == NULL) {
        cr_buf_free(buf);
    }
    CR_TRY(cr_kept_add(kept, text, err));
    *out = text;
    return CR_OK;
}

void cr_kept_free(struct cr_kept *kept)
{
    for (size_t i = 0; i < kept->n; i++) {
        cr_free(kept->blocks[i]);
    }
    cr_free(kept->blocks);
    *kept = (struct cr_kept){0};
}
