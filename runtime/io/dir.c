#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "runtime/core/alloc.h"
#include "runtime/io/file.h"
#include "runtime/io/path_error.h"
#include "runtime/io/sys.h"

static const char lock_name[] = ".lock";

static cr_status fail_text(struct cr_error *err, cr_status status, const char *path, const char *text)
{
    char shown[CR_ESCAPE_BYTES];
    return cr_fail(err, status, "%s: %s", cr_escape(shown, sizeof shown, path, strlen(path)), text);
}

static cr_status is_empty(const char *path, bool *empty, struct cr_error *err)
{
    DIR *dir = opendir(path);
    if (dir == NULL) {
        return cr_path_fail(err, path, "list the directory", errno);
    }
    *empty = true;
    errno = 0;
    const struct dirent *entry;
    while (*empty && (entry = readdir(dir)) != NULL) {
        const char *name = entry->d_name;
        *empty = strcmp(name, ".") == 0 || strcmp(name, "..") == 0 || strcmp(name, lock_name) == 0;
    }
    int code = *empty ? errno : 0;
    closedir(dir);
    return code == 0 ? CR_OK : cr_path_fail(err, path, "list the directory", code);
}

cr_status cr_dir_create(const char *path, struct cr_error *err)
{
    if (cr_sys()->mkdir(path, 0777) == 0) {
        return cr_path_sync_parent(path, err);
    }
    int code = errno;
    struct stat info;
    if (code == EEXIST && stat(path, &info) == 0 && S_ISDIR(info.st_mode)) {
        return CR_OK;
    }
    if (code == ENOENT) {
        return fail_text(err, CR_E_IO, path, "cannot create the directory: its parent does not exist");
    }
    return cr_path_fail(err, path, "create the directory", code);
}

/* CR_E_BUSY when another process holds the lock of an existing directory; nothing is created. */
static cr_status check_not_held(const char *path, struct cr_error *err)
{
    char *lock = cr_path_join(path, lock_name);
    if (lock == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for a file name");
    }
    int fd = cr_path_open(lock, O_RDONLY | O_NONBLOCK, 0);
    cr_free(lock);
    if (fd < 0) {
        return CR_OK;
    }
    bool held = cr_sys()->flock(fd, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
    cr_sys()->close(fd);
    return held ? fail_text(err, CR_E_BUSY, path, "in use by another process (it holds the lock)") : CR_OK;
}

cr_status cr_dir_prepare_output(const char *path, bool force, bool resume, struct cr_error *err)
{
    if (path[0] == '\0') {
        return cr_fail(err, CR_E_USAGE, "output directory: empty name");
    }
    struct stat info;
    if (stat(path, &info) != 0) {
        int code = errno;
        if (code != ENOENT || resume) {
            return cr_path_fail(err, path, resume ? "resume in the directory" : "use as output directory", code);
        }
        if (lstat(path, &info) == 0) {
            return fail_text(err, CR_E_IO, path, "is a dangling link, expected a directory");
        }
        return cr_dir_create(path, err);
    }
    if (!S_ISDIR(info.st_mode)) {
        return fail_text(err, CR_E_IO, path, "is a file, expected a directory for the output");
    }
    if (access(path, R_OK | W_OK | X_OK) != 0) {
        return cr_path_fail(err, path, "write into the directory", errno);
    }
    bool empty;
    CR_TRY(check_not_held(path, err));
    CR_TRY(is_empty(path, &empty, err));
    if (empty || force || resume) {
        return CR_OK;
    }
    return fail_text(err, CR_E_USAGE, path,
                     "output directory is not empty; --resume continues its run, --force writes over it");
}

cr_status cr_dir_check_output(const char *path, bool force, bool resume, struct cr_error *err)
{
    struct stat info;
    /* lstat: a dangling link is there, and refused. */
    if (path[0] == '\0' || lstat(path, &info) == 0 || resume || errno != ENOENT) {
        return cr_dir_prepare_output(path, force, resume, err);
    }
    char *parent = cr_path_parent(path);
    cr_status status = CR_OK;
    if (parent == NULL) {
        status = cr_fail(err, CR_E_MEMORY, "no memory for a path");
    } else if (stat(parent, &info) != 0) {
        status = fail_text(err, CR_E_IO, path, "cannot create the directory: its parent does not exist");
    }
    cr_free(parent);
    return status;
}

cr_status cr_dir_lock(const char *path, int *fd, struct cr_error *err)
{
    char *lock = cr_path_join(path, lock_name);
    if (lock == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for a file name");
    }
    cr_status status = CR_OK;
    int held = cr_path_open(lock, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK, 0666);
    if (held < 0) {
        status = cr_path_fail(err, lock, "open", errno);
        goto out;
    }
    int result;
    do {
        result = cr_sys()->flock(held, LOCK_EX | LOCK_NB);
    } while (result != 0 && errno == EINTR);
    if (result != 0) {
        int code = errno;
        cr_sys()->close(held);
        status = code == EWOULDBLOCK ? fail_text(err, CR_E_BUSY, path, "in use by another process (it holds the lock)")
                                     : cr_path_fail(err, lock, "lock", code);
        goto out;
    }
    *fd = held;
out:
    cr_free(lock);
    return status;
}

void cr_dir_unlock(int fd)
{
    if (fd >= 0) {
        cr_sys()->close(fd);
    }
}

/* Unlinks path/name; absent is fine. */
static cr_status remove_file(const char *dir, const char *name, struct cr_error *err)
{
    char *path = cr_path_join(dir, name);
    if (path == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for a file name");
    }
    cr_status status = CR_OK;
    if (cr_sys()->unlink(path) != 0 && errno != ENOENT && errno != ENOTDIR) {
        status = cr_path_fail(err, path, "remove", errno);
    }
    cr_free(path);
    return status;
}

cr_status cr_dir_remove_files(const char *path, const char *const *names, size_t n, struct cr_error *err)
{
    for (size_t i = 0; i < n; i++) {
        CR_TRY(remove_file(path, names[i], err));
    }
    return CR_OK;
}

/* A directory itself: what a link leads to belongs to somebody else. */
static bool is_directory(const char *path)
{
    struct stat info;
    return lstat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

static cr_status remove_child(const char *path, const char *const *names, size_t n, struct cr_error *err)
{
    if (!is_directory(path)) {
        return CR_OK;
    }
    CR_TRY(cr_dir_remove_files(path, names, n, err));
    rmdir(path); /* fails where something else is in it, which stays */
    return CR_OK;
}

cr_status cr_dir_remove_children(const char *path, const char *const *names, size_t n, struct cr_error *err)
{
    cr_status status = CR_OK;
    const struct dirent *entry;
    if (!is_directory(path)) {
        return CR_OK;
    }
    DIR *dir = opendir(path);
    if (dir == NULL) {
        return cr_path_fail(err, path, "list the directory", errno);
    }
    while (status == CR_OK && (entry = readdir(dir)) != NULL) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) {
            continue;
        }
        char *child = cr_path_join(path, entry->d_name);
        status =
            child != NULL ? remove_child(child, names, n, err) : cr_fail(err, CR_E_MEMORY, "no memory for a file name");
        cr_free(child);
    }
    closedir(dir);
    rmdir(path);
    return status;
}
