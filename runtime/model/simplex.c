#include "runtime/model/simplex.h"

#include "credence/kernels/math.h"
#include "credence/kernels/rng.h"

enum { STRETCH = 64 };

#define REAL float
#define OF(name) name##_f32
#include "runtime/model/simplex_real.h"
#undef REAL
#undef OF
#define REAL double
#define OF(name) name##_f64
#include "runtime/model/simplex_real.h"

/* Last words of the counters: blocks of a point, and what the other draws are for. */
enum { KEY_PURPOSE = 0x73696d70, PAIR_BLOCK = 0x70616972 };

/* The stream goes through Philox once: keys of different (seed, stream) are no neighbours of each other. */
static void block_of(const struct cr_simplex_point *p, uint32_t block, uint32_t words[4])
{
    uint32_t seed[2] = {(uint32_t)p->seed, (uint32_t)(p->seed >> 32)}, from[4] = {p->stream, 0, 0, KEY_PURPOSE}, key[4];
    cr_philox4x32(from, seed, key);
    uint32_t counter[4] = {p->draw, p->example, p->layer, block};
    cr_philox4x32(counter, key, words);
}

void cr_simplex_exponentials(const struct cr_simplex_point *point, size_t m, double *e)
{
    uint32_t words[4] = {0};
    for (size_t j = 0; j < m; j++) {
        if (j % 4 == 0) {
            block_of(point, (uint32_t)(j / 4), words);
        }
        e[j] = -cr_ln(((double)words[j % 4] + 0.5) * 0x1p-32);
    }
}

void cr_simplex_normalise(const double *e, size_t m, double *lambda)
{
    double sum = 0;
    for (size_t j = 0; j < m; j++) {
        sum += e[j];
    }
    for (size_t j = 0; j < m; j++) {
        lambda[j] = e[j] / sum;
    }
}

void cr_simplex_weights(const struct cr_simplex_point *point, size_t m, double *lambda)
{
    cr_simplex_exponentials(point, m, lambda);
    cr_simplex_normalise(lambda, m, lambda);
}

void cr_simplex_centroid(size_t m, double *lambda)
{
    for (size_t j = 0; j < m; j++) {
        lambda[j] = 1 / (double)m;
    }
}

void cr_simplex_pair(const struct cr_simplex_point *point, size_t m, size_t *i, size_t *j)
{
    uint32_t words[4];
    block_of(point, PAIR_BLOCK, words);
    size_t first = (size_t)(((uint64_t)words[0] * m) >> 32);
    size_t second = (size_t)(((uint64_t)words[1] * (m - 1)) >> 32);
    second += second >= first;
    *i = first < second ? first : second;
    *j = first < second ? second : first;
}

double cr_simplex_cos2(const struct cr_simplex_dots *dots)
{
    if (dots->uu == 0 || dots->vv == 0) {
        return 0;
    }
    return (dots->uv / dots->uu) * (dots->uv / dots->vv);
}
