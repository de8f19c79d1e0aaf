/* Shared by the file layer's sources: errors that name a path, open without EINTR, sync. */
#ifndef CR_IO_PATH_ERROR_H
#define CR_IO_PATH_ERROR_H

#include <sys/types.h>

#include "runtime/core/error.h"

/* CR_E_IO "path: cannot ACTION: reason of `code`". */
cr_status cr_path_fail(struct cr_error *err, const char *path, const char *action, int code);

/* open(2) with O_CLOEXEC, continued after EINTR; -1 and errno on failure. */
int cr_path_open(const char *path, int flags, mode_t mode);

/* Makes the entry of `path` in its directory last. */
cr_status cr_path_sync_parent(const char *path, struct cr_error *err);

#endif
