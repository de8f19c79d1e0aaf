/* Backends cover every item once whatever the number of threads; limits of containers are read from their files. */
#define _GNU_SOURCE /* CPU_SET, sched_setaffinity */

#include <check.h>
#include <float.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/core/alloc.h"
#include "runtime/thread/machine.h"
#include "runtime/thread/parallel.h"
#include "runtime/thread/pool.h"
#include "tests/support/kernel_test.h"

enum { MAX_ITEMS = 1000, MAX_WORKERS = 16 };

struct seen {
    atomic_int item[MAX_ITEMS];
    atomic_int busy[MAX_WORKERS];
    atomic_int n_bad;
    size_t n, grain;
    int n_workers;
};

static void visit(void *arg, size_t begin, size_t end, int worker)
{
    struct seen *seen = arg;
    bool bad = worker < 0 || worker >= seen->n_workers || end <= begin || end > seen->n || end - begin > seen->grain;
    if (bad || atomic_fetch_add(&seen->busy[worker], 1) != 0) {
        atomic_fetch_add(&seen->n_bad, 1);
        return;
    }
    for (size_t i = begin; i < end; i++) {
        atomic_fetch_add(&seen->item[i], 1);
    }
    atomic_fetch_sub(&seen->busy[worker], 1);
}

static const size_t items[] = {0, 1, 2, 15, 16, 17, 999};
static const size_t grains[] = {1, 3, 16, 2000};
static const int workers[] = {0, 1, 2, 3, 4, 7, 8, 16}; /* 0 = the serial backend */

static void check_cover(const struct cr_parallel *given)
{
    static struct seen seen;
    struct cr_parallel parallel = *given;
    for (size_t a = 0; a < sizeof items / sizeof items[0]; a++) {
        for (size_t b = 0; b < sizeof grains / sizeof grains[0]; b++) {
            memset(&seen, 0, sizeof seen);
            seen.n = items[a];
            seen.grain = grains[b];
            seen.n_workers = parallel.n_workers;
            parallel.run(parallel.ctx, visit, &seen, seen.n, seen.grain);
            ck_assert_int_eq(seen.n_bad, 0);
            for (size_t i = 0; i < MAX_ITEMS; i++) {
                ck_assert_int_eq(seen.item[i], i < seen.n);
            }
        }
    }
}

START_TEST(every_item_once)
{
    struct cr_parallel parallel;
    if (workers[_i] == 0) {
        cr_parallel_serial(&parallel);
    } else {
        cr_parallel_openmp(&parallel, workers[_i]);
    }
    ck_assert_int_eq(parallel.n_workers, workers[_i] > 0 ? workers[_i] : 1);
    check_cover(&parallel);
}
END_TEST

START_TEST(pool_takes_every_item_once)
{
    struct cr_pool *pool;
    struct cr_parallel parallel;
    ck_assert_int_eq(cr_pool_create(workers[_i], &pool, NULL), CR_OK);
    cr_pool_parallel(pool, &parallel);
    ck_assert_int_eq(parallel.n_workers, workers[_i] > 0 ? workers[_i] : 1);
    check_cover(&parallel);
    check_cover(&parallel);
    cr_pool_destroy(pool);
    ck_assert_int_eq(cr_alloc_live(), 0);
}
END_TEST

static void add_index(void *arg, size_t begin, size_t end, int worker)
{
    (void)worker;
    for (size_t i = begin; i < end; i++) {
        atomic_fetch_add((atomic_llong *)arg, (long long)i);
    }
}

/* Many short regions one after the other, some with pauses in which the helpers fall asleep. */
START_TEST(pool_survives_many_regions)
{
    struct cr_pool *pool;
    struct cr_parallel parallel;
    ck_assert_int_eq(cr_pool_create(4, &pool, NULL), CR_OK);
    cr_pool_parallel(pool, &parallel);
    for (size_t region = 0; region < 20000; region++) {
        atomic_llong sum = 0;
        size_t n = region % 7 + 2;
        parallel.run(parallel.ctx, add_index, &sum, n, 1);
        ck_assert_int_eq(sum, (long long)(n * (n - 1) / 2));
        if (region % 2000 == 0) {
            usleep(2000);
        }
    }
    cr_pool_destroy(pool);
}
END_TEST

/* Runs a region and ends the pool in a child of fork, which has no helpers. A child that waits for one is killed. */
static void check_child(struct cr_pool *pool, const struct cr_parallel *parallel)
{
    pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        alarm(20);
        atomic_llong sum = 0;
        parallel->run(parallel->ctx, add_index, &sum, 100, 1);
        cr_pool_destroy(pool);
        _exit(sum == 4950 ? 0 : 1);
    }
    int status = -1;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %d", status);
}

/* The forks fall into every moment of the helpers' way to sleep, in which they hold the mutex of the pool. */
START_TEST(pool_is_whole_in_a_child)
{
    struct cr_pool *pool;
    struct cr_parallel parallel;
    ck_assert_int_eq(cr_pool_create(8, &pool, NULL), CR_OK);
    cr_pool_parallel(pool, &parallel);
    for (int round = 0; round < 300; round++) {
        atomic_llong sum = 0;
        parallel.run(parallel.ctx, add_index, &sum, 9, 1);
        ck_assert_int_eq(sum, 36);
        usleep((useconds_t)(round % 60));
        check_child(pool, &parallel);
    }
    cr_pool_destroy(pool);
}
END_TEST

#if defined(__x86_64__)
static void smallest_half(void *arg, size_t begin, size_t end, int worker)
{
    (void)worker;
    float *out = arg;
    for (size_t i = begin; i < end; i++) {
        volatile float x = FLT_MIN;
        out[i] = x * 0.5f;
    }
}

START_TEST(denormals_survive_a_caller_that_flushes)
{
    struct cr_parallel parallel;
    float out[8];
    unsigned saved = __builtin_ia32_stmxcsr();
    for (int n = 1; n <= 4; n++) {
        cr_parallel_openmp(&parallel, n);
        __builtin_ia32_ldmxcsr(saved | 0x8040u);
        parallel.run(parallel.ctx, smallest_half, out, 8, 1);
        unsigned after = __builtin_ia32_stmxcsr();
        __builtin_ia32_ldmxcsr(saved);
        ck_assert_uint_eq(after & 0x8040u, 0x8040u);
        for (int i = 0; i < 8; i++) {
            ck_assert(out[i] == FLT_MIN * 0.5f && out[i] > 0);
        }
    }
}
END_TEST
#endif

START_TEST(count_is_within_affinity)
{
    cpu_set_t one;
    int cpus = cr_machine_cpus();
    ck_assert_int_ge(cpus, 1);
    ck_assert_int_eq(cr_thread_count(1), 1);
    ck_assert_int_ge(cr_thread_count(0), 1);
    ck_assert_int_le(cr_thread_count(0), cpus);
    ck_assert_int_eq(cr_thread_count(1000), cr_thread_count(0));
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
    char command[300];
    snprintf(command, sizeof command, "rm -rf '%s'", root);
    ck_assert_int_eq(system(command), 0);
}

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
    Suite *suite = suite_create("parallel");
    TCase *run = tcase_create("run");
    tcase_set_timeout(run, 60);
    tcase_add_loop_test(run, every_item_once, 0, sizeof workers / sizeof workers[0]);
    tcase_add_loop_test(run, pool_takes_every_item_once, 0, sizeof workers / sizeof workers[0]);
    tcase_add_test(run, pool_survives_many_regions);
    tcase_add_test(run, pool_is_whole_in_a_child);
#if defined(__x86_64__)
    tcase_add_test(run, denormals_survive_a_caller_that_flushes);
#endif
    tcase_add_test(run, count_is_within_affinity);
    tcase_add_test(run, own_memory_is_seen);
    suite_add_tcase(suite, run);
    TCase *files = tcase_create("container");
    tcase_add_checked_fixture(files, make_root, drop_root);
    tcase_add_test(files, nothing_known);
    tcase_add_test(files, unified_hierarchy);
    tcase_add_test(files, older_hierarchy);
    tcase_add_test(files, path_of_the_host_is_not_mounted);
    suite_add_tcase(suite, files);
    return cr_run_suite(suite);
}
