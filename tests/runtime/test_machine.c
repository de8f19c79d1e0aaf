/* What the machine grants: processors, cores and memory, of this one and of made-up ones. */
#define _GNU_SOURCE /* CPU_SET, sched_setaffinity, syscall */

#include <check.h>
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "runtime/thread/machine.h"
#include "runtime/thread/parallel.h"
#include "tests/support/kernel_test.h"

START_TEST(count_is_within_affinity)
{
    cpu_set_t one;
    int cpus = cr_machine_cpus();
    ck_assert_int_ge(cpus, 1);
    ck_assert_int_eq(cr_thread_count(1), 1);
    ck_assert_int_ge(cr_thread_count(0), 1);
    ck_assert_int_le(cr_thread_count(0), cpus);
    /* The second threads of cores are there to be asked for. */
    ck_assert_int_ge(cr_thread_count(1000), cr_thread_count(0));
    ck_assert_int_le(cr_thread_count(1000), cpus);
    ck_assert_int_eq(sched_getaffinity(0, sizeof one, &one), 0);
    int first = 0;
    while (!CPU_ISSET(first, &one)) {
        first++;
    }
    CPU_ZERO(&one);
    CPU_SET(first, &one);
    ck_assert_int_eq(sched_setaffinity(0, sizeof one, &one), 0);
    ck_assert_int_eq(cr_machine_cpus(), 1);
    ck_assert_int_eq(cr_thread_count(8), 1);
}
END_TEST

/* A machine that this one is not: its mask is what the system answers from now on, where n_possible is not 0. */
static struct {
    int n_possible; /* CPUs that the kernel could have: it takes no smaller set */
    const int *cpus;
    int n;
} machine;

int sched_getaffinity(pid_t pid, size_t n_bytes, cpu_set_t *set)
{
    memset(set, 0, n_bytes);
    if (machine.n_possible == 0) {
        return syscall(SYS_sched_getaffinity, pid, n_bytes, set) < 0 ? -1 : 0;
    }
    if (n_bytes * 8 < (size_t)machine.n_possible) {
        errno = EINVAL;
        return -1;
    }
    for (int i = 0; i < machine.n; i++) {
        CPU_SET_S(machine.cpus[i], n_bytes, set);
    }
    return 0;
}

static void pretend(int n_possible, const int *cpus, int n)
{
    machine.n_possible = n_possible;
    machine.cpus = cpus;
    machine.n = n;
}

/* A made-up root directory with the files of a container. */
static char root[256];

static void put(const char *path, const char *text)
{
    char full[512];
    snprintf(full, sizeof full, "%s%s", root, path);
    for (char *slash = strchr(full + strlen(root) + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        mkdir(full, 0755);
        *slash = '/';
    }
    FILE *file = fopen(full, "w");
    ck_assert_ptr_nonnull(file);
    ck_assert_int_ge(fputs(text, file), 0);
    ck_assert_int_eq(fclose(file), 0);
}

static void make_root(void)
{
    const char *base = getenv("TMPDIR");
    snprintf(root, sizeof root, "%s/cr-machine-XXXXXX", base != NULL ? base : "/tmp");
    ck_assert_ptr_nonnull(mkdtemp(root));
}

static void drop_root(void)
{
    pretend(0, NULL, 0);
    char command[300];
    snprintf(command, sizeof command, "rm -rf '%s'", root);
    ck_assert_int_eq(system(command), 0);
}

static void put_siblings(int cpu, const char *list)
{
    char path[96];
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu);
    put(path, list);
}

START_TEST(more_cpus_than_a_fixed_set_holds)
{
    static const int cpus[] = {5, 1023, 1024, 4000, 5119};
    pretend(5120, cpus, 5);
    ck_assert_int_eq(cr_machine_cpus(), 5);
    ck_assert_int_eq(cr_machine_cores(root), 5);
    put_siblings(5119, "1024,5119\n");
    ck_assert_int_eq(cr_machine_cores(root), 4);
}
END_TEST

/* Four cores of two threads. */
START_TEST(threads_of_a_core_count_once)
{
    static const int all[] = {0, 1, 2, 3, 4, 5, 6, 7}, second[] = {2, 4, 5, 6};
    static const char *const lists[] = {"0,4\n", "1,5\n", "2,6\n", "3,7\n"};
    pretend(8, all, 8);
    ck_assert_int_eq(cr_thread_count_at(root, 0), 8); /* nothing known: every CPU */
    for (int cpu = 0; cpu < 8; cpu++) {
        put_siblings(cpu, lists[cpu % 4]);
    }
    ck_assert_int_eq(cr_machine_cores(root), 4);
    ck_assert_int_eq(cr_thread_count_at(root, 0), 4);
    ck_assert_int_eq(cr_thread_count_at(root, 3), 3);
    ck_assert_int_eq(cr_thread_count_at(root, 6), 6); /* as asked */
    ck_assert_int_eq(cr_thread_count_at(root, 9), 8);
    pretend(8, second, 4); /* of the cores 0 and 1 only the second thread, or that of no other */
    ck_assert_int_eq(cr_machine_cores(root), 3);
    ck_assert_int_eq(cr_thread_count_at(root, 0), 3);
    put("/proc/self/cgroup", "0::/\n");
    put("/sys/fs/cgroup/cpu.max", "150000 100000\n");
    ck_assert_int_eq(cr_thread_count_at(root, 0), 2);
    ck_assert_int_eq(cr_thread_count_at(root, 4), 2);
}
END_TEST

START_TEST(lists_of_siblings)
{
    static const int all[] = {0, 1, 2, 3, 4, 5};
    pretend(6, all, 6);
    put_siblings(0, "0-1\n");
    put_siblings(1, "0-1\n");
    put_siblings(2, "2-3,5\n");
    put_siblings(3, "2-3,5\n");
    put_siblings(5, "2-3,5"); /* 4 is not known */
    ck_assert_int_eq(cr_machine_cores(root), 3);
    /* Not a list, one without the CPU itself, one without an end, one that runs backwards: each a core. */
    put_siblings(1, "none\n");
    put_siblings(2, "0\n");
    put_siblings(3, "0,");
    put_siblings(4, "3-\n");
    put_siblings(5, "5-0\n");
    ck_assert_int_eq(cr_machine_cores(root), 6);
}
END_TEST

START_TEST(nothing_known)
{
    ck_assert_int_eq(cr_machine_cpu_quota(root), 0);
    ck_assert_uint_eq(cr_machine_cgroup_memory(root), CR_MACHINE_UNLIMITED);
}
END_TEST

START_TEST(unified_hierarchy)
{
    put("/proc/self/cgroup", "0::/outer/inner\n");
    put("/sys/fs/cgroup/outer/inner/cpu.max", "max 100000\n");
    put("/sys/fs/cgroup/outer/cpu.max", "250000 100000\n");
    put("/sys/fs/cgroup/outer/inner/memory.max", "3000000000\n");
    put("/sys/fs/cgroup/outer/memory.max", "2000000000\n");
    ck_assert_int_eq(cr_machine_cpu_quota(root), 3);
    ck_assert_uint_eq(cr_machine_cgroup_memory(root), 2000000000u);
    put("/sys/fs/cgroup/outer/inner/cpu.max", "50000 100000\n");
    put("/sys/fs/cgroup/outer/inner/memory.max", "max\n");
    put("/sys/fs/cgroup/outer/memory.max", "max\n");
    ck_assert_int_eq(cr_machine_cpu_quota(root), 1);
    ck_assert_uint_eq(cr_machine_cgroup_memory(root), CR_MACHINE_UNLIMITED);
}
END_TEST

START_TEST(older_hierarchy)
{
    put("/proc/self/cgroup", "12:cpuset:/x\n4:memory:/job\n3:cpu,cpuacct:/job\n0::/\n");
    put("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n");
    put("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
    put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    ck_assert_int_eq(cr_machine_cpu_quota(root), 0);
    ck_assert_uint_eq(cr_machine_cgroup_memory(root), CR_MACHINE_UNLIMITED);
    put("/sys/fs/cgroup/cpu/job/cpu.cfs_quota_us", "400000\n");
    put("/sys/fs/cgroup/cpu/job/cpu.cfs_period_us", "100000\n");
    put("/sys/fs/cgroup/memory/job/memory.limit_in_bytes", "1073741824\n");
    ck_assert_int_eq(cr_machine_cpu_quota(root), 4);
    ck_assert_uint_eq(cr_machine_cgroup_memory(root), 1073741824u);
}
END_TEST

START_TEST(path_of_the_host_is_not_mounted)
{
    put("/proc/self/cgroup", "0::/host/only/this\n");
    put("/sys/fs/cgroup/memory.max", "1048576\n");
    put("/sys/fs/cgroup/cpu.max", "200000 100000\n");
    ck_assert_uint_eq(cr_machine_cgroup_memory(root), 1048576u);
    ck_assert_int_eq(cr_machine_cpu_quota(root), 2);
}
END_TEST

START_TEST(own_memory_is_seen)
{
    uint64_t before = cr_machine_peak_rss();
    size_t n = (size_t)64 << 20;
    char *block = malloc(n);
    ck_assert_ptr_nonnull(block);
    for (size_t i = 0; i < n; i += 1024) {
        ((volatile char *)block)[i] = 1;
    }
    if (before == 0) {
        free(block);
        return; /* no /proc: unknown is the right answer */
    }
    ck_assert_uint_ge(cr_machine_rss(), n);
    ck_assert_uint_ge(cr_machine_peak_rss(), before + n / 2);
    ck_assert_uint_gt(cr_machine_memory_budget(), n);
    free(block);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("machine");
    TCase *own = tcase_create("own");
    tcase_add_test(own, count_is_within_affinity);
    tcase_add_test(own, own_memory_is_seen);
    suite_add_tcase(suite, own);
    TCase *files = tcase_create("files");
    tcase_add_checked_fixture(files, make_root, drop_root);
    tcase_add_test(files, more_cpus_than_a_fixed_set_holds);
    tcase_add_test(files, threads_of_a_core_count_once);
    tcase_add_test(files, lists_of_siblings);
    tcase_add_test(files, nothing_known);
    tcase_add_test(files, unified_hierarchy);
    tcase_add_test(files, older_hierarchy);
    tcase_add_test(files, path_of_the_host_is_not_mounted);
    suite_add_tcase(suite, files);
    return cr_run_suite(suite);
}
