#include "tests/support/kernel_test.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kernels/common/half.h"

/* ---- tiers ---- */

/* Whether a list as in "scalar,neon" names the tier. */
static bool listed(const char *list, enum cr_tier tier)
{
    char copy[256];
    snprintf(copy, sizeof copy, "%s", list);
    for (char *name = strtok(copy, ", "); name != NULL; name = strtok(NULL, ", ")) {
        if (strcmp(cr_tier_name(tier), name) == 0) {
            return true;
        }
    }
    return false;
}

static void require(const enum cr_tier *tiers, size_t n)
{
    const char *list = getenv("CREDENCE_TEST_REQUIRE");
    char copy[256];
    snprintf(copy, sizeof copy, "%s", list != NULL ? list : "");
    for (char *name = strtok(copy, ", "); name != NULL; name = strtok(NULL, ", ")) {
        bool found = false;
        for (size_t i = 0; i < n; i++) {
            found = found || strcmp(cr_tier_name(tiers[i]), name) == 0;
        }
        ck_assert_msg(found, "CREDENCE_TEST_REQUIRE asks for tier %s, which is not walked here", name);
    }
}

size_t cr_test_tiers(enum cr_tier tiers[CR_TEST_TIERS])
{
    struct cr_cpu cpu;
    cr_cpu_detect(&cpu);
    enum cr_tier cap;
    struct cr_error err;
    ck_assert_msg(cr_cpu_cap(&cpu, cr_test_cap(), &cap, &err) == CR_OK, "CREDENCE_CPU: %s", err.message);
    const char *only = getenv("CREDENCE_TEST_TIERS");
    size_t n = 0;
    for (unsigned tier = 0; tier < 32; tier++) {
        bool inside = cr_test_cap() == NULL || tier <= (unsigned)cap;
        inside = inside && (only == NULL || only[0] == '\0' || listed(only, (enum cr_tier)tier));
        if ((cpu.features >> tier & 1u) && inside && n < CR_TEST_TIERS) {
            tiers[n++] = (enum cr_tier)tier;
        }
    }
    require(tiers, n);
    return n;
}

size_t cr_test_every(size_t light)
{
    const char *text = getenv("CREDENCE_TEST_LIGHT");
    return text != NULL && text[0] == '1' ? light : 1;
}

/* ---- deterministic numbers ---- */

struct cr_rng cr_rng_make(uint64_t stream)
{
    const char *text = getenv("CREDENCE_TEST_SEED");
    uint64_t seed = text != NULL ? strtoull(text, NULL, 10) : 1;
    struct cr_rng rng = {seed * 0xd1342543de82ef95u + stream * 0x2545f4914f6cdd1du};
    cr_rng_next(&rng);
    return rng;
}

uint64_t cr_rng_next(struct cr_rng *rng)
{
    uint64_t z = rng->state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

uint32_t cr_rng_below(struct cr_rng *rng, uint32_t n)
{
    return (uint32_t)((cr_rng_next(rng) >> 32) * n >> 32);
}

float cr_rng_uniform(struct cr_rng *rng, float low, float high)
{
    return low + (high - low) * ((float)(cr_rng_next(rng) >> 40) * 0x1p-24f);
}

void cr_fill_f32(struct cr_rng *rng, float *out, size_t n, float low, float high)
{
    for (size_t i = 0; i < n; i++) {
        out[i] = cr_rng_uniform(rng, low, high);
    }
}

void cr_fill_bf16(struct cr_rng *rng, uint16_t *out, size_t n, float low, float high)
{
    for (size_t i = 0; i < n; i++) {
        out[i] = cr_f32_to_bf16(cr_rng_uniform(rng, low, high));
    }
}

void cr_fill_bytes(struct cr_rng *rng, void *out, size_t n_bytes)
{
    unsigned char *p = out;
    for (size_t i = 0; i < n_bytes; i += 8) {
        uint64_t word = cr_rng_next(rng);
        memcpy(p + i, &word, n_bytes - i < 8 ? n_bytes - i : 8);
    }
}

void cr_poison(void *out, size_t n_bytes)
{
    memset(out, 0xff, n_bytes);
}

/* ---- guarded buffers ---- */

enum { CANARY = 0xc5 };

struct guard {
    struct guard *next;
    unsigned char *map, *data, *buffer;
    size_t map_bytes, data_bytes, n_bytes;
};
static struct guard *guards;

void *cr_guard_alloc(size_t n_bytes, size_t align, enum cr_guard_side side)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t rounded = (n_bytes + align - 1) / align * align;
    size_t data_bytes = (rounded + page - 1) / page * page;
    data_bytes += data_bytes == 0 ? page : 0;
    struct guard *g = malloc(sizeof *g);
    ck_assert(g != NULL);
    g->map_bytes = data_bytes + 2 * page;
    g->map = mmap(NULL, g->map_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ck_assert_msg(g->map != MAP_FAILED, "mmap of %zu bytes failed", g->map_bytes);
    g->data = g->map + page;
    g->data_bytes = data_bytes;
    ck_assert(mprotect(g->data, data_bytes, PROT_READ | PROT_WRITE) == 0);
    g->buffer = side == CR_AT_START ? g->data : g->data + data_bytes - rounded;
    g->n_bytes = n_bytes;
    memset(g->data, CANARY, data_bytes);
    memset(g->buffer, 0xff, n_bytes);
    g->next = guards;
    guards = g;
    return g->buffer;
}

static struct guard **find(const void *buffer)
{
    struct guard **link = &guards;
    while (*link != NULL && (*link)->buffer != (const unsigned char *)buffer) {
        link = &(*link)->next;
    }
    ck_assert_msg(*link != NULL, "pointer is not a live guarded buffer");
    return link;
}

void cr_guard_protect(void *buffer, bool on)
{
    struct guard *g = *find(buffer);
    ck_assert(mprotect(g->data, g->data_bytes, on ? PROT_READ : PROT_READ | PROT_WRITE) == 0);
}

void cr_guard_free(void *buffer)
{
    struct guard **link = find(buffer);
    struct guard *g = *link;
    const unsigned char *p = g->data, *end = g->data + g->data_bytes;
    while (p < end) {
        if (p == g->buffer && g->n_bytes > 0) {
            p += g->n_bytes;
            continue;
        }
        if (*p != CANARY) { /* a check that holds costs a system call each */
            ck_abort_msg("byte at offset %td of a buffer of %zu bytes was overwritten", p - g->buffer, g->n_bytes);
        }
        p++;
    }
    munmap(g->map, g->map_bytes);
    *link = g->next;
    free(g);
}

void cr_guard_free_all(void)
{
    while (guards != NULL) {
        cr_guard_free(guards->buffer);
    }
}

/* ---- comparison ---- */

void cr_expect_within(const char *what, const float *got, const double *want, const double *bound, size_t n)
{
    size_t worst = 0, n_bad = 0;
    double worst_ratio = -1;
    for (size_t i = 0; i < n; i++) {
        bool both_nan = isnan(got[i]) && isnan(want[i]);
        bool equal = (double)got[i] == want[i] || both_nan;
        double error = equal ? 0 : fabs((double)got[i] - want[i]);
        bool good = equal || error <= bound[i];
        double ratio = equal ? 0 : bound[i] > 0 && error == error ? error / bound[i] : INFINITY;
        n_bad += !good;
        if (ratio > worst_ratio) {
            worst_ratio = ratio;
            worst = i;
        }
    }
    ck_assert_msg(
        n_bad == 0, "%s: %zu of %zu outside the bound; worst at %zu: %.9g, expected %.9g, error %.3g, bound %.3g", what,
        n_bad, n, worst, (double)got[worst], want[worst], fabs((double)got[worst] - want[worst]), bound[worst]);
}

void cr_expect_same(const char *what, const float *got, const float *want, size_t n)
{
    size_t n_bad = 0, first = 0;
    for (size_t i = 0; i < n; i++) {
        bool same = cr_f32_bits(got[i]) == cr_f32_bits(want[i]) || (isnan(got[i]) && isnan(want[i]));
        if (!same && n_bad++ == 0) {
            first = i;
        }
    }
    ck_assert_msg(n_bad == 0, "%s: %zu of %zu differ; first at %zu: %.9g (%08x), expected %.9g (%08x)", what, n_bad, n,
                  first, (double)got[first], cr_f32_bits(got[first]), (double)want[first], cr_f32_bits(want[first]));
}

void cr_expect_bytes(const char *what, const void *got, const void *want, size_t n_bytes)
{
    const unsigned char *a = got, *b = want;
    if (n_bytes == 0 || memcmp(a, b, n_bytes) == 0) {
        return;
    }
    for (size_t i = 0; i < n_bytes; i++) {
        ck_assert_msg(a[i] == b[i], "%s: byte %zu of %zu is 0x%02x, expected 0x%02x", what, i, n_bytes, a[i], b[i]);
    }
}

const char *cr_test_cap(void)
{
    const char *name = getenv("CREDENCE_CPU");
    return name != NULL && name[0] != '\0' ? name : NULL;
}

int cr_run_suite(Suite *suite)
{
    struct cr_cpu cpu;
    enum cr_tier tier;
    cr_cpu_detect(&cpu);
    if (cr_cpu_cap(&cpu, cr_test_cap(), &tier, NULL) != CR_OK) {
        printf("skipped: this CPU has no tier %s\n", cr_test_cap());
        return 77;
    }
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
