/* Time: a monotonic clock for durations (setting the wall clock has no effect on it). */
#ifndef CR_CORE_CLOCK_H
#define CR_CORE_CLOCK_H

#include <stdint.h>

uint64_t cr_clock_ns(void); /* nanoseconds since an arbitrary start */

/* Seconds from `start_ns` (a value of cr_clock_ns) to now. */
double cr_clock_since(uint64_t start_ns);

#endif
