#include "tests/support/io_test.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "runtime/core/alloc.h"
#include "runtime/io/file.h"
#include "runtime/io/sys.h"

static char directory[512];

const char *cr_test_dir(void)
{
    if (directory[0] == '\0') {
        const char *base = getenv("TMPDIR");
        snprintf(directory, sizeof directory, "%s/credence-test-XXXXXX", base != NULL ? base : "/tmp");
        ck_assert_ptr_nonnull(mkdtemp(directory));
    }
    return directory;
}

static void remove_tree(const char *path)
{
    char inner[1024];
    DIR *dir = opendir(path);
    const struct dirent *entry;
    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) {
            continue;
        }
        snprintf(inner, sizeof inner, "%s/%s", path, entry->d_name);
        if (unlink(inner) != 0) {
            remove_tree(inner);
        }
    }
    if (dir != NULL) {
        closedir(dir);
    }
    rmdir(path);
}

void cr_test_dir_remove(void)
{
    if (directory[0] != '\0') {
        remove_tree(directory);
        directory[0] = '\0';
    }
}

const char *cr_test_path(const char *name)
{
    static char ring[8][1024];
    static unsigned next;
    char *path = ring[next++ % 8];
    snprintf(path, sizeof ring[0], "%s/%s", cr_test_dir(), name);
    return path;
}

int cr_test_count_files(const char *dir, const char *part)
{
    int n = 0;
    DIR *d = opendir(dir);
    ck_assert_ptr_nonnull(d);
    const struct dirent *entry;
    while ((entry = readdir(d)) != NULL) {
        n += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 && strstr(entry->d_name, part) != NULL;
    }
    closedir(d);
    return n;
}

void cr_test_put_file(const char *path, const void *data, size_t n)
{
    FILE *file = fopen(path, "wb");
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(data, 1, n, file), n);
    ck_assert_int_eq(fclose(file), 0);
}

void cr_test_expect_file(const char *path, const char *text)
{
    struct cr_error err;
    uint8_t *data;
    size_t n;
    ck_assert_msg(cr_file_read(path, 1 << 20, &data, &n, &err) == CR_OK, "%s", err.message);
    ck_assert_uint_eq(n, strlen(text));
    ck_assert_str_eq((const char *)data, text);
    cr_free(data);
}

static struct {
    enum cr_test_call call;
    long at, seen;
    int error;
    bool sticky, fired;
    size_t most;
    bool eintr, interrupt_next;
} fault;

/* True when this call must fail; errno is set. */
static bool fails(enum cr_test_call call)
{
    if (fault.eintr && call != CR_CALL_CLOSE && call != CR_CALL_FSTAT && call != CR_CALL_MMAP &&
        call != CR_CALL_RENAME && call != CR_CALL_MKDIR) { /* those never return EINTR */
        fault.interrupt_next = !fault.interrupt_next;
        if (fault.interrupt_next) {
            errno = EINTR;
            return true;
        }
    }
    if (fault.at == 0 || (fault.call != CR_CALL_ANY && fault.call != call)) {
        return false;
    }
    fault.seen++;
    if (fault.seen == fault.at || (fault.sticky && fault.seen > fault.at)) {
        fault.fired = true;
        errno = fault.error;
        return true;
    }
    return false;
}

static int double_open(const char *path, int flags, mode_t mode)
{
    return fails(CR_CALL_OPEN) ? -1 : cr_sys_real.open(path, flags, mode);
}

/* As on Linux, the descriptor is gone even when close reports an error. */
static int double_close(int fd)
{
    if (fails(CR_CALL_CLOSE)) {
        int code = errno;
        cr_sys_real.close(fd);
        errno = code;
        return -1;
    }
    return cr_sys_real.close(fd);
}

static size_t cut(size_t n)
{
    return fault.most != 0 && n > fault.most ? fault.most : n;
}

static ssize_t double_read(int fd, void *data, size_t n)
{
    return fails(CR_CALL_READ) ? -1 : cr_sys_real.read(fd, data, cut(n));
}

static ssize_t double_write(int fd, const void *data, size_t n)
{
    return fails(CR_CALL_WRITE) ? -1 : cr_sys_real.write(fd, data, cut(n));
}

static int double_fsync(int fd)
{
    (void)fd; /* durability is not observable here, and real syncs are slow */
    return fails(CR_CALL_FSYNC) ? -1 : 0;
}

static int double_fstat(int fd, struct stat *out)
{
    return fails(CR_CALL_FSTAT) ? -1 : cr_sys_real.fstat(fd, out);
}

static int double_rename(const char *from, const char *to)
{
    return fails(CR_CALL_RENAME) ? -1 : cr_sys_real.rename(from, to);
}

static int double_mkdir(const char *path, mode_t mode)
{
    return fails(CR_CALL_MKDIR) ? -1 : cr_sys_real.mkdir(path, mode);
}

static int double_flock(int fd, int operation)
{
    return fails(CR_CALL_FLOCK) ? -1 : cr_sys_real.flock(fd, operation);
}

static void *double_mmap(size_t n, int fd)
{
    return fails(CR_CALL_MMAP) ? MAP_FAILED : cr_sys_real.mmap(n, fd);
}

static void install(void)
{
    static struct cr_sys table;
    table = cr_sys_real;
    table.open = double_open;
    table.close = double_close;
    table.read = double_read;
    table.write = double_write;
    table.fsync = double_fsync;
    table.fstat = double_fstat;
    table.rename = double_rename;
    table.mkdir = double_mkdir;
    table.flock = double_flock;
    table.mmap = double_mmap;
    cr_sys_set(&table);
}

void cr_test_fault(enum cr_test_call call, long at, int error, bool sticky)
{
    memset(&fault, 0, sizeof fault);
    fault.call = call;
    fault.at = at;
    fault.error = error;
    fault.sticky = sticky;
    install();
}

void cr_test_short_transfers(size_t n, bool eintr)
{
    memset(&fault, 0, sizeof fault);
    fault.most = n;
    fault.eintr = eintr;
    install();
}

bool cr_test_fault_off(void)
{
    cr_sys_set(NULL);
    return fault.fired;
}

void cr_expect_error(const char *what, cr_status got, const struct cr_error *err, cr_status status, const char *parts)
{
    ck_assert_msg(got == status, "%s: status %d, expected %d (%s)", what, got, status,
                  got != CR_OK ? err->message : "");
    ck_assert_msg(err->status == status, "%s: err->status %d, expected %d", what, err->status, status);
    size_t n = strnlen(err->message, sizeof err->message);
    ck_assert_msg(n > 0 && n < sizeof err->message, "%s: message of %zu bytes", what, n);
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)err->message[i];
        ck_assert_msg(c >= 0x20 && c != 0x7f, "%s: control byte %02x in the message: %s", what, c, err->message);
    }
    while (*parts != '\0') {
        char part[128];
        size_t length = strcspn(parts, "|");
        ck_assert(length < sizeof part);
        memcpy(part, parts, length);
        part[length] = '\0';
        ck_assert_msg(strstr(err->message, part) != NULL, "%s: \"%s\" is not in the message: %s", what, part,
                      err->message);
        parts += length + (parts[length] == '|');
    }
}

/* stride 0: every allocation, none of which can be done without. */
static long sweep(const char *what, cr_status (*op)(void *arg, struct cr_error *err), void *arg, long stride)
{
    long reached = 0;
    for (int sticky = 0; sticky < 2; sticky++) {
        for (long at = 1;; at += stride == 0 || at < 40 ? 1 : stride) {
            struct cr_error err = {0};
            long live = cr_alloc_live();
            long count = cr_alloc_count();
            cr_alloc_fail_at(at, sticky != 0);
            cr_status status = op(arg, &err);
            cr_alloc_fail_at(0, false);
            count = cr_alloc_count() - count;
            ck_assert_msg(cr_alloc_live() == live, "%s: allocation %ld failing leaves %ld blocks", what, at,
                          cr_alloc_live() - live);
            if (count < at) {
                ck_assert_msg(status == CR_OK, "%s: fails without a fault: %s", what, err.message);
                reached = count;
                break;
            }
            bool survived = stride > 0 && sticky == 0 && status == CR_OK;
            if (!survived) {
                cr_expect_error(what, status, &err, CR_E_MEMORY, stride > 0 ? "" : "memory");
            }
            ck_assert_msg(at < 100000, "%s: never passes", what);
        }
    }
    return reached;
}

long cr_test_alloc_sweep(const char *what, cr_status (*op)(void *arg, struct cr_error *err), void *arg)
{
    return sweep(what, op, arg, 0);
}

long cr_test_alloc_sweep_long(const char *what, cr_status (*op)(void *arg, struct cr_error *err), void *arg,
                              long stride)
{
    return sweep(what, op, arg, stride);
}

static double processor_seconds(void)
{
    struct timespec now;
    ck_assert_int_eq(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now), 0);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

void cr_expect_linear_time(const char *what, size_t n, void (*make)(struct cr_buf *input, size_t n),
                           void (*take)(const struct cr_buf *input))
{
    double least[2] = {1e9, 1e9};
    struct cr_buf input[2] = {{0}, {0}};
    make(&input[0], n);
    make(&input[1], 32 * n);
    for (int run = 0; run < 5; run++) {
        for (int size = 0; size < 2; size++) {
            double start = processor_seconds();
            take(&input[size]);
            double took = processor_seconds() - start;
            least[size] = took < least[size] ? took : least[size];
        }
    }
    cr_buf_free(&input[0]);
    cr_buf_free(&input[1]);
    ck_assert_msg(least[1] < 181 * least[0], "%s: %g s for 32 times the input of %g s", what, least[1], least[0]);
}

static char repeated;

static void make_run(struct cr_buf *text, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        cr_buf_putc(text, repeated);
    }
}

void cr_expect_linear_run(const char *what, char character, size_t n, void (*take)(const struct cr_buf *input))
{
    repeated = character;
    cr_expect_linear_time(what, n, make_run, take);
}
