/* The system calls that the file layer makes, as a table: tests put a double in place to make the n-th call fail,
 * cut a transfer short or record what a power loss would keep. Each entry has the POSIX contract (-1 and errno). */
#ifndef CR_IO_SYS_H
#define CR_IO_SYS_H

#include <sys/stat.h>
#include <sys/types.h>

struct cr_sys {
    int (*open)(const char *path, int flags, mode_t mode);
    int (*close)(int fd);
    ssize_t (*read)(int fd, void *data, size_t n);
    ssize_t (*write)(int fd, const void *data, size_t n);
    int (*fsync)(int fd);
    int (*fstat)(int fd, struct stat *out);
    int (*rename)(const char *from, const char *to);
    int (*unlink)(const char *path);
    int (*mkdir)(const char *path, mode_t mode);
    int (*flock)(int fd, int operation);
    void *(*mmap)(size_t n, int fd); /* read-only, private, from offset 0; MAP_FAILED on failure */
    int (*munmap)(void *data, size_t n);
};

/* The table in use. Never NULL. */
const struct cr_sys *cr_sys(void);

/* Test hook: borrows `table` until the next call; NULL restores the operating system's own calls. */
void cr_sys_set(const struct cr_sys *table);

/* The operating system's calls, for a double to build upon. */
extern const struct cr_sys cr_sys_real;

#endif
