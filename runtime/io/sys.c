#include "runtime/io/sys.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <unistd.h>

static int real_open(const char *path, int flags, mode_t mode)
{
    return open(path, flags, mode);
}

static void *real_mmap(size_t n, int fd)
{
    return mmap(NULL, n, PROT_READ, MAP_PRIVATE, fd, 0);
}

const struct cr_sys cr_sys_real = {
    .open = real_open,
    .close = close,
    .read = read,
    .write = write,
    .fsync = fsync,
    .fstat = fstat,
    .rename = rename,
    .unlink = unlink,
    .mkdir = mkdir,
    .flock = flock,
    .mmap = real_mmap,
    .munmap = munmap,
};

static _Atomic(const struct cr_sys *) current;

const struct cr_sys *cr_sys(void)
{
    const struct cr_sys *table = atomic_load(&current);
    return table != NULL ? table : &cr_sys_real;
}

void cr_sys_set(const struct cr_sys *table)
{
    atomic_store(&current, table);
}
