/* machine: what the system lets this process use: CPUs, memory, and how much of it is in use.
 *
 * Linux sources: sched_getaffinity, /sys/devices/system/cpu, /proc/self/{cgroup,status}, /proc/meminfo, cgroup v1 and
 * v2 controllers, RLIMIT_AS. A missing or unreadable file means "no limit known", never an error (no /proc, other
 * systems).
 */
#ifndef CR_THREAD_MACHINE_H
#define CR_THREAD_MACHINE_H

#include <stdint.h>

#define CR_MACHINE_UNLIMITED UINT64_MAX

/* CPUs in the affinity mask, at least 1. */
int cr_machine_cpus(void);

/* Physical cores that these CPUs belong to, at least 1: the threads of a core count once, however many of them are in
 * the mask. A CPU whose siblings are not known counts as a core. root as below. */
int cr_machine_cores(const char *root);

/* CPU bandwidth quota of the innermost limited cgroup or any above it, rounded up to whole CPUs; 0 = none.
 * root is put before every path ("" in production). */
int cr_machine_cpu_quota(const char *root);

/* Smallest memory limit of the cgroups this process is in, bytes; CR_MACHINE_UNLIMITED when there is none. */
uint64_t cr_machine_cgroup_memory(const char *root);

/* The largest peak of resident memory that this process can be expected to reach: the lowest of the cgroup limit,
 * RLIMIT_AS less what is reserved but not resident, and MemAvailable plus the anonymous memory already held. */
uint64_t cr_machine_memory_budget(void);

/* Resident memory now and its peak so far, bytes; 0 when unknown. */
uint64_t cr_machine_rss(void);
uint64_t cr_machine_peak_rss(void);

/* The parts of resident memory: anonymous, and pages of mapped files; 0 when unknown. */
uint64_t cr_machine_rss_anon(void);
uint64_t cr_machine_rss_file(void);

#endif
