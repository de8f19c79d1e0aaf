#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "runtime/core/alloc.h"
#include "runtime/core/clock.h"
#include "runtime/io/file.h"
#include "runtime/io/hash.h"
#include "runtime/io/path_error.h"
#include "runtime/io/sys.h"

/* Distinct names within a process by the counter, across dead processes of the same pid by the clock. O_EXCL decides
 * in the end, so quality does not matter. */
static uint64_t name_bits(void)
{
    static atomic_ullong counter;
    uint64_t seed[3] = {cr_clock_ns(), (uint64_t)getpid(), atomic_fetch_add(&counter, 1)};
    return cr_xxh3_64(seed, sizeof seed);
}

static char *temporary_name(const char *path)
{
    size_t bytes = strlen(path) + CR_TEMPORARY_BYTES;
    char *name = cr_alloc(bytes, 1);
    if (name != NULL) {
        char hex[17];
        snprintf(name, bytes, "%s.tmp.%ld.%.8s", path, (long)getpid(), cr_hex_64(hex, name_bits()));
    }
    return name;
}

/* Ends the writer: descriptor closed, temporary removed, later calls refused. */
static void drop(struct cr_file_writer *w)
{
    if (w->fd >= 0) {
        cr_sys()->close(w->fd);
        w->fd = -1;
    }
    if (w->temporary != NULL) {
        cr_sys()->unlink(w->temporary);
        cr_free(w->temporary);
        w->temporary = NULL;
    }
}

void cr_file_writer_abort(struct cr_file_writer *w)
{
    if (w->path == NULL) {
        return; /* zeroed: fd 0 is not ours */
    }
    drop(w);
    cr_free(w->path);
    *w = (struct cr_file_writer){.fd = -1};
}

cr_status cr_file_writer_open(struct cr_file_writer *w, const char *path, struct cr_error *err)
{
    *w = (struct cr_file_writer){.fd = -1};
    w->path = cr_strdup(path);
    if (w->path == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for a file name");
    }
    for (int attempt = 0; attempt < 16 && w->fd < 0; attempt++) {
        cr_free(w->temporary);
        w->temporary = temporary_name(path);
        if (w->temporary == NULL) {
            cr_file_writer_abort(w);
            return cr_fail(err, CR_E_MEMORY, "no memory for a file name");
        }
        w->fd = cr_path_open(w->temporary, O_WRONLY | O_CREAT | O_EXCL, 0666);
        if (w->fd < 0 && errno != EEXIST) {
            break;
        }
    }
    if (w->fd < 0) {
        int code = errno;
        cr_free(w->temporary); /* not ours: never unlinked */
        w->temporary = NULL;
        cr_file_writer_abort(w);
        return cr_path_fail(err, path, "create", code);
    }
    return CR_OK;
}

static cr_status ended(const struct cr_file_writer *w, struct cr_error *err)
{
    return cr_path_fail(err, w->path != NULL ? w->path : "(closed file)", "write after an earlier failure", EBADF);
}

cr_status cr_file_writer_write(struct cr_file_writer *w, const void *data, size_t n, struct cr_error *err)
{
    if (w->path == NULL || w->fd < 0) {
        return ended(w, err);
    }
    const char *bytes = data;
    size_t done = 0;
    while (done < n) {
        ssize_t wrote = cr_sys()->write(w->fd, bytes + done, n - done);
        if (wrote < 0 && errno == EINTR) {
            continue;
        }
        if (wrote <= 0) { /* 0 cannot happen on a regular file: treated as a full disk rather than looped on */
            int code = wrote < 0 ? errno : ENOSPC;
            drop(w);
            return cr_path_fail(err, w->path, "write", code);
        }
        done += (size_t)wrote;
        w->bytes += (uint64_t)wrote;
    }
    return CR_OK;
}

/* fsync is not repeated after an error other than EINTR: a second one may report success for lost pages. */
cr_status cr_file_writer_commit(struct cr_file_writer *w, struct cr_error *err)
{
    if (w->path == NULL || w->fd < 0) {
        return ended(w, err);
    }
    int result;
    do {
        result = cr_sys()->fsync(w->fd);
    } while (result != 0 && errno == EINTR);
    const char *action = "sync";
    if (result == 0) {
        action = "close";
        int fd = w->fd;
        w->fd = -1; /* closed even when close reports an error */
        result = cr_sys()->close(fd);
        result = result != 0 && errno == EINTR ? 0 : result;
    }
    if (result == 0) {
        action = "rename into place";
        result = cr_sys()->rename(w->temporary, w->path);
    }
    if (result != 0) {
        int code = errno;
        drop(w);
        return cr_path_fail(err, w->path, action, code);
    }
    cr_free(w->temporary);
    w->temporary = NULL;
    cr_status status = cr_path_sync_parent(w->path, err);
    cr_file_writer_abort(w);
    return status;
}

cr_status cr_file_write(const char *path, const void *data, size_t n, struct cr_error *err)
{
    struct cr_file_writer w;
    CR_TRY(cr_file_writer_open(&w, path, err));
    cr_status status = cr_file_writer_write(&w, data, n, err);
    if (status == CR_OK) {
        status = cr_file_writer_commit(&w, err);
    }
    cr_file_writer_abort(&w);
    return status;
}
