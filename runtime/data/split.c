/* The held-out part: by answer and task in proportion, the same for a seed on every machine. */
#include <stdlib.h>
#include <string.h>

#include "credence/kernels/rng.h"
#include "runtime/data/dataset.h"

/* Second key word of the split, so that it shares no stream with other uses of the seed. */
enum { SPLIT_STREAM = 0x73706c74 };

static uint64_t stratum(const struct cr_dataset *dataset, uint32_t i)
{
    const struct cr_example *example = &dataset->examples[i];
    return (uint64_t)(uint32_t)(example->task + 1) << 32 | (dataset->classification ? example->answer : 0);
}

/* Stable merge sort of items by stratum. */
static void sort_by_stratum(const struct cr_dataset *dataset, uint32_t *items, uint32_t *scratch, size_t n)
{
    for (size_t width = 1; width < n; width *= 2) {
        for (size_t start = 0; start < n; start += 2 * width) {
            size_t middle = start + width < n ? start + width : n;
            size_t end = middle + width < n ? middle + width : n;
            size_t left = start, right = middle;
            for (size_t i = start; i < end; i++) {
                bool take_left =
                    right == end || (left < middle && stratum(dataset, items[left]) <= stratum(dataset, items[right]));
                scratch[i] = take_left ? items[left++] : items[right++];
            }
        }
        memcpy(items, scratch, n * sizeof *items);
    }
}

static int compare_u32(const void *a, const void *b)
{
    uint32_t x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return (x > y) - (x < y);
}

void cr_dataset_split(const struct cr_dataset *dataset, uint64_t seed, double fraction, uint32_t *kept, size_t *n_kept,
                      uint32_t *held_out, size_t *n_held_out)
{
    size_t n = dataset->n;
    double share = fraction > 0 ? fraction < 1 ? fraction : 1 : 0;
    size_t wanted = (size_t)((double)n * share + 0.5);
    if (n >= 1 && share > 0 && share < 1) { /* both parts get something; a single example is kept */
        wanted = wanted > n - 1 ? n - 1 : wanted < 1 && n > 1 ? 1 : wanted;
    }
    uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32) ^ (uint32_t)SPLIT_STREAM};
    cr_permutation(key, 0, kept, n);
    sort_by_stratum(dataset, kept, held_out, n);
    /* Along the sorted list every position i with floor((i+1) w/n) > floor(i w/n) is held out: each stratum is a
     * run of it, so it gives its share to within one example. */
    size_t n_out = 0, n_in = 0;
    for (size_t i = 0; i < n; i++) {
        size_t due = (size_t)((double)(i + 1) * (double)wanted / (double)n);
        if (i + 1 == n) {
            due = wanted;
        }
        if (due > n_out) {
            held_out[n_out++] = kept[i];
        } else {
            kept[n_in++] = kept[i];
        }
    }
    qsort(kept, n_in, sizeof *kept, compare_u32);
    qsort(held_out, n_out, sizeof *held_out, compare_u32);
    *n_kept = n_in;
    *n_held_out = n_out;
}
