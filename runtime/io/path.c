/* Paths: their parts, and what can be refused before the work. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/core/alloc.h"
#include "runtime/io/file.h"

char *cr_path_join(const char *dir, const char *name)
{
    size_t n = strlen(dir);
    size_t bytes = n + strlen(name) + 2;
    char *path = cr_alloc(bytes, 1);
    if (path != NULL) {
        snprintf(path, bytes, "%s%s%s", dir, n > 0 && dir[n - 1] != '/' ? "/" : "", name);
    }
    return path;
}

cr_status cr_dir_has(const char *dir, const char *name, bool *has, struct cr_error *err)
{
    char *path = cr_path_join(dir, name);
    if (path == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for a path");
    }
    *has = access(path, F_OK) == 0;
    cr_free(path);
    return CR_OK;
}

/* Where the last name begins, slashes behind it left aside. */
static size_t last_name(const char *path)
{
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/') {
        n--;
    }
    while (n > 0 && path[n - 1] != '/') {
        n--;
    }
    return n;
}

char *cr_path_parent(const char *path)
{
    size_t n = last_name(path);
    if (n == 0) {
        return cr_strdup(".");
    }
    while (n > 1 && path[n - 1] == '/') {
        n--;
    }
    return cr_strndup(path, n);
}

bool cr_same_file(const char *a, const char *b)
{
    struct stat x;
    struct stat y;
    return a != NULL && b != NULL && stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev &&
           x.st_ino == y.st_ino;
}

cr_status cr_check_output(const char *flag, const char *path, struct cr_error *err)
{
    struct stat info;
    char shown[CR_ESCAPE_BYTES];
    if (path == NULL) {
        return CR_OK;
    }
    if (path[0] == '\0') {
        return cr_fail(err, CR_E_USAGE, "%s: an empty path", flag);
    }
    cr_escape(shown, sizeof shown, path, strlen(path));
    if (stat(path, &info) == 0 && !S_ISREG(info.st_mode)) {
        return cr_fail(err, CR_E_IO, "%s %s: %s", flag, shown,
                       S_ISDIR(info.st_mode) ? strerror(EISDIR) : "exists and is no regular file");
    }
    if (strlen(cr_base_name(path)) > NAME_MAX - CR_TEMPORARY_BYTES) {
        return cr_fail(err, CR_E_IO, "%s %s: %s", flag, shown, strerror(ENAMETOOLONG));
    }
    char *parent = cr_path_parent(path);
    if (parent == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for a path");
    }
    int code = stat(parent, &info) != 0    ? errno
               : !S_ISDIR(info.st_mode)    ? ENOTDIR
               : access(parent, W_OK) != 0 ? errno
                                           : 0;
    cr_free(parent);
    return code == 0 ? CR_OK : cr_fail(err, CR_E_IO, "%s %s: its directory: %s", flag, shown, strerror(code));
}

const char *cr_base_name(const char *path)
{
    return path + last_name(path);
}
