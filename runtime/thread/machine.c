#define _GNU_SOURCE /* CPU_ALLOC, sched_getaffinity */

#include "runtime/thread/machine.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { PATH_BYTES = 4096, TEXT_BYTES = 8192 };

enum { MOST_CPUS = 1 << 20 }; /* far above what kernels can be built for */

/* Reads the start of a small text file. False when there is none. */
static bool read_text(const char *path, char *text, size_t n)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return false;
    }
    size_t used = 0;
    while (used + 1 < n) {
        ssize_t got = read(fd, text + used, n - 1 - used);
        if (got <= 0) {
            break;
        }
        used += (size_t)got;
    }
    close(fd);
    text[used] = 0;
    return used > 0;
}

/* The affinity mask as *cpus: owned (free), ascending. Returns how many, 0 when the system does not say. The kernel
 * refuses a mask smaller than all CPUs that it could ever have, so the set grows until it is taken. */
static int read_affinity(int **cpus)
{
    *cpus = NULL;
    for (int room = CPU_SETSIZE; room <= MOST_CPUS; room *= 2) {
        cpu_set_t *set = CPU_ALLOC(room);
        size_t n_bytes = CPU_ALLOC_SIZE(room);
        if (set == NULL) {
            return 0;
        }
        CPU_ZERO_S(n_bytes, set);
        bool known = sched_getaffinity(0, n_bytes, set) == 0;
        bool larger = !known && errno == EINVAL;
        int n = 0, n_set = known ? CPU_COUNT_S(n_bytes, set) : 0;
        *cpus = n_set > 0 ? malloc((size_t)n_set * sizeof **cpus) : NULL;
        for (int cpu = 0; *cpus != NULL && n < n_set; cpu++) {
            if (CPU_ISSET_S(cpu, n_bytes, set)) {
                (*cpus)[n++] = cpu;
            }
        }
        CPU_FREE(set);
        if (!larger) {
            return n;
        }
    }
    return 0;
}

static int online_cpus(void)
{
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 0 ? (int)online : 1;
}

int cr_machine_cpus(void)
{
    int *cpus, n = read_affinity(&cpus);
    free(cpus);
    return n > 0 ? n : online_cpus();
}

static bool holds(const int *cpus, int n, long cpu)
{
    for (int i = 0; i < n; i++) {
        if (cpus[i] == cpu) {
            return true;
        }
    }
    return false;
}

/* Whether `list` ("0-1,64") has `cpu` and, before it, another one of the n CPUs. A list that does not have the CPU it
 * is said to belong to is of no use. */
static bool has_earlier(const char *list, int cpu, const int *cpus, int n)
{
    bool earlier = false;
    for (const char *at = list; *at >= '0' && *at <= '9';) {
        char *end;
        long first = strtol(at, &end, 10), last = *end == '-' ? strtol(end + 1, &end, 10) : first;
        for (long other = first; other <= last && other < cpu && !earlier; other++) {
            earlier = holds(cpus, n, other);
        }
        if (first <= cpu && cpu <= last) {
            return earlier;
        }
        at = *end == ',' ? end + 1 : end;
    }
    return false;
}

/* A CPU counts unless one before it in the mask has the same core. */
static int count_cores(const char *root, const int *cpus, int n)
{
    int n_cores = 0;
    for (int i = 0; i < n; i++) {
        char path[PATH_BYTES];
        char list[256];
        int length =
            snprintf(path, sizeof path, "%s/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", root, cpus[i]);
        bool known = length > 0 && (size_t)length < sizeof path && read_text(path, list, sizeof list);
        n_cores += !(known && has_earlier(list, cpus[i], cpus, i));
    }
    return n_cores;
}

int cr_machine_cores(const char *root)
{
    int *cpus, n = read_affinity(&cpus);
    n = n > 0 ? count_cores(root, cpus, n) : online_cpus();
    free(cpus);
    return n;
}

/* The cgroup path of `controller` in the text of /proc/self/cgroup ("" = the unified hierarchy, lines "0::PATH").
 * Lines are "number:controller,controller:path". */
static bool cgroup_path(const char *text, const char *controller, char *path, size_t n)
{
    size_t want = strlen(controller);
    for (const char *line = text; *line != 0;) {
        const char *end = strchr(line, '\n');
        end = end != NULL ? end : line + strlen(line);
        const char *names = memchr(line, ':', (size_t)(end - line));
        const char *where = names != NULL ? memchr(names + 1, ':', (size_t)(end - names - 1)) : NULL;
        if (where != NULL) {
            bool match = want == 0 && where == names + 1;
            for (const char *at = names + 1; want > 0 && !match && at < where;) {
                const char *comma = memchr(at, ',', (size_t)(where - at));
                const char *stop = comma != NULL ? comma : where;
                match = (size_t)(stop - at) == want && memcmp(at, controller, want) == 0;
                at = stop + 1;
            }
            size_t length = (size_t)(end - where - 1);
            if (match && length < n) {
                memcpy(path, where + 1, length);
                path[length] = 0;
                return true;
            }
        }
        line = *end != 0 ? end + 1 : end;
    }
    return false;
}

/* Calls visit for the directory of the cgroup and for each one above it up to the controller's mount. Inside a
 * container the path may not exist under the mount; its existing ancestors, at least the mount itself, still do. */
static void walk_up(const char *mount, const char *group, void (*visit)(const char *dir, void *out), void *out)
{
    char dir[PATH_BYTES];
    int n = snprintf(dir, sizeof dir, "%s%s", mount, group);
    if (n < 0 || (size_t)n >= sizeof dir) {
        return;
    }
    size_t floor = strlen(mount);
    for (;;) {
        size_t length = strlen(dir);
        while (length > floor && dir[length - 1] == '/') {
            dir[--length] = 0;
        }
        visit(dir, out);
        char *slash = strrchr(dir, '/');
        if (length <= floor || slash == NULL || (size_t)(slash - dir) < floor) {
            return;
        }
        *slash = 0;
    }
}

static bool file_in(const char *dir, const char *name, char *text, size_t n)
{
    char path[PATH_BYTES + 64];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return read_text(path, text, n);
}

static void lower_quota(long long quota, long long period, void *out)
{
    int *cpus = out;
    if (quota > 0 && period > 0 && quota / period < 1 << 20) {
        int whole = (int)((quota + period - 1) / period);
        if (*cpus == 0 || whole < *cpus) {
            *cpus = whole;
        }
    }
}

static void visit_cpu_v2(const char *dir, void *out)
{
    char text[256];
    long long quota = 0;
    long long period = 0;
    if (file_in(dir, "cpu.max", text, sizeof text) && sscanf(text, "%lld %lld", &quota, &period) == 2) {
        lower_quota(quota, period, out);
    }
}

static void visit_cpu_v1(const char *dir, void *out)
{
    char quota[64];
    char period[64];
    if (file_in(dir, "cpu.cfs_quota_us", quota, sizeof quota) &&
        file_in(dir, "cpu.cfs_period_us", period, sizeof period)) {
        lower_quota(strtoll(quota, NULL, 10), strtoll(period, NULL, 10), out);
    }
}

static void lower_bytes(const char *text, uint64_t *bytes)
{
    char *end;
    unsigned long long value = strtoull(text, &end, 10);
    if (end != text && value < *bytes) {
        *bytes = value;
    }
}

static void visit_memory_v2(const char *dir, void *out)
{
    char text[64];
    if (file_in(dir, "memory.max", text, sizeof text)) {
        lower_bytes(text, out);
    }
}

static void visit_memory_v1(const char *dir, void *out)
{
    char text[64];
    if (file_in(dir, "memory.limit_in_bytes", text, sizeof text)) {
        lower_bytes(text, out);
    }
}

/* Visits the cgroups of one controller in both hierarchies; on a machine with only one the other finds no files. */
static void walk_cgroups(const char *root, const char *controller, const char *const *v1_mounts,
                         void (*visit_v2)(const char *, void *), void (*visit_v1)(const char *, void *), void *out)
{
    char path[PATH_BYTES];
    char text[TEXT_BYTES];
    char group[PATH_BYTES];
    int n = snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    bool known = n > 0 && (size_t)n < sizeof path && read_text(path, text, sizeof text);
    if (known && cgroup_path(text, "", group, sizeof group)) {
        snprintf(path, sizeof path, "%s/sys/fs/cgroup", root);
        walk_up(path, group, visit_v2, out);
    }
    if (known && cgroup_path(text, controller, group, sizeof group)) {
        for (; *v1_mounts != NULL; v1_mounts++) {
            snprintf(path, sizeof path, "%s/sys/fs/cgroup/%s", root, *v1_mounts);
            walk_up(path, group, visit_v1, out);
        }
    }
}

int cr_machine_cpu_quota(const char *root)
{
    static const char *const mounts[] = {"cpu", "cpu,cpuacct", NULL};
    int cpus = 0;
    walk_cgroups(root, "cpu", mounts, visit_cpu_v2, visit_cpu_v1, &cpus);
    return cpus;
}

uint64_t cr_machine_cgroup_memory(const char *root)
{
    static const char *const mounts[] = {"memory", NULL};
    uint64_t bytes = CR_MACHINE_UNLIMITED;
    walk_cgroups(root, "memory", mounts, visit_memory_v2, visit_memory_v1, &bytes);
    /* v1 says "no limit" by a number near the top of the address space. */
    return bytes >= (uint64_t)1 << 62 ? CR_MACHINE_UNLIMITED : bytes;
}

/* The value in bytes of a line "Name:   123 kB". */
static bool kib_field(const char *text, const char *name, uint64_t *bytes)
{
    const char *at = strstr(text, name);
    if (at == NULL || (at != text && at[-1] != '\n')) {
        return false;
    }
    *bytes = (uint64_t)strtoull(at + strlen(name), NULL, 10) * 1024;
    return true;
}

static uint64_t own_field(const char *name)
{
    char text[TEXT_BYTES];
    uint64_t bytes = 0;
    if (read_text("/proc/self/status", text, sizeof text)) {
        kib_field(text, name, &bytes);
    }
    return bytes;
}

uint64_t cr_machine_rss(void)
{
    return own_field("VmRSS:");
}

uint64_t cr_machine_peak_rss(void)
{
    return own_field("VmHWM:");
}

uint64_t cr_machine_rss_anon(void)
{
    return own_field("RssAnon:");
}

uint64_t cr_machine_rss_file(void)
{
    return own_field("RssFile:");
}

uint64_t cr_machine_memory_budget(void)
{
    uint64_t budget = cr_machine_cgroup_memory("");
    struct rlimit limit;
    if (getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY) {
        uint64_t reserved = own_field("VmSize:");
        uint64_t resident = own_field("VmRSS:");
        uint64_t idle = reserved > resident ? reserved - resident : 0;
        uint64_t left = limit.rlim_cur > idle ? (uint64_t)limit.rlim_cur - idle : 0;
        budget = left < budget ? left : budget;
    }
    char text[TEXT_BYTES];
    uint64_t available;
    if (read_text("/proc/meminfo", text, sizeof text) && kib_field(text, "MemAvailable:", &available)) {
        /* Mapped file pages stay part of what is available; only anonymous memory has left it. */
        uint64_t left = available + cr_machine_rss_anon();
        budget = left < budget ? left : budget;
    }
    return budget;
}
