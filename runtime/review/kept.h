/* kept: what a page is made of lives as long as the page is made. */
#ifndef CR_REVIEW_KEPT_H
#define CR_REVIEW_KEPT_H

#include "runtime/core/buf.h"
#include "runtime/core/error.h"

struct cr_kept {
    void **blocks; /* owned, each owned */
    size_t n, capacity;
};

/* Takes a block; NULL (or no room) is CR_E_MEMORY, and the block is freed. */
cr_status cr_kept_add(struct cr_kept *kept, void *block, struct cr_error *err);
/* Takes the buffer's bytes; *out borrows them from kept. */
cr_status cr_kept_text(struct cr_kept *kept, struct cr_buf *buf, const char **out, struct cr_error *err);
void cr_kept_free(struct cr_kept *kept);

#endif
