#include "runtime/io/file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "runtime/core/alloc.h"
#include "runtime/io/sys.h"
#include "runtime/io/path_error.h"

cr_status cr_path_fail(struct cr_error *err, const char *path, const char *action, int code)
{
    char shown[CR_ESCAPE_BYTES];
    cr_escape(shown, sizeof shown, path, strlen(path));
    return cr_fail(err, CR_E_IO, "%s: cannot %s: %s", shown, action, strerror(code));
}

int cr_path_open(const char *path, int flags, mode_t mode)
{
    int fd;
    do {
        fd = cr_sys()->open(path, flags | O_CLOEXEC, mode);
    } while (fd < 0 && errno == EINTR);
    return fd;
}

/* Opens a regular file for reading. O_NONBLOCK so that a FIFO without a writer cannot hang the open. */
static cr_status open_regular(const char *path, int *fd, struct stat *info, struct cr_error *err)
{
    *fd = cr_path_open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
    if (*fd < 0) {
        return cr_path_fail(err, path, "open", errno);
    }
    cr_status status = CR_OK;
    if (cr_sys()->fstat(*fd, info) != 0) {
        status = cr_path_fail(err, path, "ask for the size", errno);
    } else if (!S_ISREG(info->st_mode)) {
        char shown[CR_ESCAPE_BYTES];
        cr_escape(shown, sizeof shown, path, strlen(path));
        const char *what = S_ISDIR(info->st_mode) ? "a directory" : S_ISFIFO(info->st_mode) ? "a FIFO" : "a device";
        status = cr_fail(err, CR_E_IO, "%s: is %s, expected a regular file", shown, what);
    }
    if (status != CR_OK) {
        cr_sys()->close(*fd);
        *fd = -1;
    }
    return status;
}

cr_status cr_file_map_open(const char *path, struct cr_file_map *map, struct cr_error *err)
{
    static const uint8_t nothing[1];
    *map = (struct cr_file_map){.fd = -1};
    struct stat info;
    int fd;
    CR_TRY(open_regular(path, &fd, &info, err));
    void *data = MAP_FAILED;
    if (info.st_size > 0) {
        data = cr_sys()->mmap((size_t)info.st_size, fd);
        if (data == MAP_FAILED) {
            int code = errno;
            cr_sys()->close(fd);
            return code == ENOMEM ? cr_fail(err, CR_E_MEMORY, "no address space to map a file of %lld bytes",
                                            (long long)info.st_size)
                                  : cr_path_fail(err, path, "map", code);
        }
    }
    map->data = info.st_size > 0 ? data : nothing;
    map->bytes = (size_t)info.st_size;
    map->fd = fd;
    map->mtime_s = info.st_mtim.tv_sec;
    map->mtime_ns = info.st_mtim.tv_nsec;
    map->device = (uint64_t)info.st_dev;
    map->inode = (uint64_t)info.st_ino;
    return CR_OK;
}

void cr_file_map_close(struct cr_file_map *map)
{
    if (map->fd < 0) {
        return;
    }
    if (map->bytes > 0) {
        cr_sys()->munmap((void *)(uintptr_t)map->data, map->bytes);
    }
    cr_sys()->close(map->fd);
    *map = (struct cr_file_map){.fd = -1};
}

bool cr_file_map_changed(const struct cr_file_map *map)
{
    struct stat info;
    if (map->fd < 0 || cr_sys()->fstat(map->fd, &info) != 0) {
        return true;
    }
    return (uint64_t)info.st_size != map->bytes || info.st_mtim.tv_sec != map->mtime_s ||
           info.st_mtim.tv_nsec != map->mtime_ns || (uint64_t)info.st_dev != map->device ||
           (uint64_t)info.st_ino != map->inode;
}

static cr_status read_all(int fd, const char *path, uint8_t *data, size_t n, struct cr_error *err)
{
    size_t done = 0;
    while (done < n) {
        ssize_t got = cr_sys()->read(fd, data + done, n - done);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        char shown[CR_ESCAPE_BYTES];
        if (got < 0) {
            int code = errno;
            cr_escape(shown, sizeof shown, path, strlen(path));
            return cr_fail(err, CR_E_IO, "%s: read error at byte %zu: %s", shown, done, strerror(code));
        }
        if (got == 0) {
            cr_escape(shown, sizeof shown, path, strlen(path));
            return cr_fail(err, CR_E_IO, "%s: file changed while in use: ends at byte %zu, had %zu", shown, done, n);
        }
        done += (size_t)got;
    }
    return CR_OK;
}

cr_status cr_file_read(const char *path, size_t max_bytes, uint8_t **data, size_t *n, struct cr_error *err)
{
    struct stat info;
    int fd;
    CR_TRY(open_regular(path, &fd, &info, err));
    cr_status status = CR_OK;
    uint8_t *block = NULL;
    size_t bytes = (size_t)info.st_size;
    char shown[CR_ESCAPE_BYTES];
    cr_escape(shown, sizeof shown, path, strlen(path));
    if (info.st_size < 0 || bytes > max_bytes) {
        status = cr_fail(err, CR_E_INPUT, "%s: file of %lld bytes, at most %zu expected", shown,
                         (long long)info.st_size, max_bytes);
        goto out;
    }
    block = bytes < SIZE_MAX ? cr_alloc(bytes + 1, 1) : NULL;
    if (block == NULL) {
        status = cr_fail(err, CR_E_MEMORY, "%s: no memory to read %zu bytes", shown, bytes);
        goto out;
    }
    CR_TRY_OUT(status, read_all(fd, path, block, bytes, err));
    block[bytes] = 0;
    *data = block;
    block = NULL;
    if (n != NULL) {
        *n = bytes;
    }
out:
    cr_free(block);
    cr_sys()->close(fd);
    return status;
}

cr_status cr_path_sync_parent(const char *path, struct cr_error *err)
{
    char *parent = cr_path_parent(path);
    if (parent == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for a file name");
    }
    cr_status status = CR_OK;
    int fd = cr_path_open(parent, O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0) { /* a directory that may be written but not read cannot be synced either */
        status = errno == EACCES ? CR_OK : cr_path_fail(err, parent, "open the directory", errno);
        goto out;
    }
    int result;
    do {
        result = cr_sys()->fsync(fd);
    } while (result != 0 && errno == EINTR);
    if (result != 0 && errno != EINVAL) { /* EINVAL: a file system whose directories need no sync */
        status = cr_path_fail(err, parent, "sync the directory", errno);
    }
    cr_sys()->close(fd);
out:
    cr_free(parent);
    return status;
}
