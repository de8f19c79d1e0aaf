/* threads_test: every way of running items, with any number of workers whatever the machine has. */
#ifndef CR_TESTS_THREADS_TEST_H
#define CR_TESTS_THREADS_TEST_H

#include <stdint.h>

#include "credence/parallel.h"
#include "runtime/thread/pool.h"

enum cr_test_backend { CR_TEST_OPENMP, CR_TEST_POOL, CR_TEST_SHUFFLED, CR_TEST_BACKENDS };

struct cr_test_threads {
    struct cr_parallel parallel; /* lend &parallel; do not move the struct */
    struct cr_pool *pool;        /* owned, or NULL */
    uint64_t state;              /* of the shuffle */
};

/* SHUFFLED is a host that runs the items on the calling thread in an order, in calls of sizes and by workers that
 * change from region to region. */
void cr_test_threads_start(struct cr_test_threads *threads, enum cr_test_backend backend, int n_workers);
void cr_test_threads_end(struct cr_test_threads *threads);

const char *cr_test_backend_name(enum cr_test_backend backend);

#endif
