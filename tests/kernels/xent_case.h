/* xent_case: logits of every shape, and the statistics of a walk over them. */
#ifndef CR_TESTS_XENT_CASE_H
#define CR_TESTS_XENT_CASE_H

#include <math.h>
#include <string.h>

#include "credence/kernels/xent.h"
#include "tests/support/tl16_test.h"

enum { BLOCKS = 3, TOKENS = BLOCKS * CR_LANES };

/* Rows of the vocabulary, and the chunk it is walked in. */
struct shape {
    size_t n_rows, chunk;
};
static const struct shape shapes[] = {{1, 1}, {2, 2}, {7, 3}, {16, 16}, {500, 128}, {2048, 512}};

struct data {
    size_t n, stride;
    float *z; /* all rows */
    int32_t *target;
};

/* Per-token arrays need no alignment: odd sizes put every one at another offset of a line. */
struct stats {
    float m[TOKENS + 1];
    float s[TOKENS + 3];
    float label[TOKENS];
};

static inline struct data make(struct cr_rng *rng, size_t n)
{
    struct data d = {.n = n, .stride = n * CR_LANES + CR_LANES};
    d.z = cr_guard_alloc(BLOCKS * d.stride * 4, 64, CR_AT_END);
    cr_fill_f32(rng, d.z, BLOCKS * d.stride, -20, 20);
    d.target = cr_guard_alloc(TOKENS * 4, 4, CR_AT_END);
    for (size_t t = 0; t < TOKENS; t++) {
        d.target[t] = t % 5 == 4 ? -1 : (int32_t)cr_rng_below(rng, (uint32_t)n);
    }
    return d;
}

static inline struct stats start(void)
{
    struct stats st;
    memset(&st, 0, sizeof st);
    for (size_t t = 0; t < TOKENS; t++) {
        st.m[t] = -INFINITY;
        st.s[t] = st.label[t] = 0;
    }
    return st;
}

/* All rows as a chunk that starts at row 1000, with a buffer of P or dz. */
static inline struct cr_xent_args args_of(const struct data *d, void *dz, size_t dz_bytes, enum cr_xtype type)
{
    return (struct cr_xent_args){.z = d->z,
                                 .z_stride = d->stride,
                                 .first_row = 1000,
                                 .n_rows = d->n,
                                 .target = d->target,
                                 .dz = dz,
                                 .dz_stride = dz_bytes,
                                 .dz_type = type};
}

#endif
