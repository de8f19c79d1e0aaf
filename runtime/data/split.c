/* The held-out part: by answer and task in proportion, the same for a seed on every machine. */
#include <stdlib.h>
#include <string.h>

#include "credence/kernels/rng.h"
#include "runtime/core/order.h"
#include "runtime/data/dataset.h"

/* Second key word of the split, so that it shares no stream with other uses of the seed. */
enum { SPLIT_STREAM = 0x73706c74 };

/* What examples are told apart by. */
struct strata {
    const struct cr_dataset *dataset;
    bool tasks; /* beside answers */
};

static uint64_t stratum(const struct strata *by, uint32_t i)
{
    const struct cr_example *example = &by->dataset->examples[i];
    uint32_t task = by->tasks ? (uint32_t)(example->task + 1) : 0;
    return (uint64_t)task << 32 | (by->dataset->classification ? example->answer : 0);
}

/* Stable merge sort of items by stratum. */
static void sort_by_stratum(const struct strata *by, uint32_t *items, uint32_t *scratch, size_t n)
{
    for (size_t width = 1; width < n; width *= 2) {
        for (size_t start = 0; start < n; start += 2 * width) {
            size_t middle = start + width < n ? start + width : n;
            size_t end = middle + width < n ? middle + width : n;
            size_t left = start, right = middle;
            for (size_t i = start; i < end; i++) {
                bool take_left =
                    right == end || (left < middle && stratum(by, items[left]) <= stratum(by, items[right]));
                scratch[i] = take_left ? items[left++] : items[right++];
            }
        }
        memcpy(items, scratch, n * sizeof *items);
    }
}

/* Behind the last of the sorted items that are of the stratum of items[begin]. */
static size_t end_of_run(const struct strata *by, const uint32_t *items, size_t begin, size_t n)
{
    size_t end = begin + 1;
    while (end < n && stratum(by, items[end]) == stratum(by, items[begin])) {
        end++;
    }
    return end;
}

/* Sorts a permutation of all examples; returns how many of them are not alone in their stratum. */
static size_t arrange(const struct strata *by, uint64_t seed, uint32_t *items, uint32_t *scratch)
{
    uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32) ^ (uint32_t)SPLIT_STREAM};
    size_t n = by->dataset->n, n_shared = 0;
    cr_permutation(key, 0, items, n);
    sort_by_stratum(by, items, scratch, n);
    for (size_t begin = 0, end; begin < n; begin = end) {
        end = end_of_run(by, items, begin, n);
        n_shared += end - begin > 1 ? end - begin : 0;
    }
    return n_shared;
}

void cr_dataset_split(const struct cr_dataset *dataset, uint64_t seed, double fraction, uint32_t *kept, size_t *n_kept,
                      uint32_t *held_out, size_t *n_held_out)
{
    size_t n = dataset->n;
    struct strata by = {dataset, true};
    size_t n_shared = arrange(&by, seed, kept, held_out);
    if (n_shared == 0) {
        by.tasks = false;
        n_shared = arrange(&by, seed, kept, held_out);
    }
    uint64_t wanted = fraction > 0 ? (uint64_t)((double)n * (fraction < 0.5 ? fraction : 0.5) + 0.5) : 0;
    wanted = wanted < 1 && fraction > 0 ? 1 : wanted; /* both parts get something */
    wanted = wanted < n_shared / 2 ? wanted : n_shared / 2;
    /* Of those that are not alone every i-th, sorted, with floor((i+1) w/n) > floor(i w/n) is held out: each stratum is
     * a run of them, so it gives its share to within one example, and of two neighbours at most one goes. */
    size_t n_out = 0, n_in = 0;
    uint64_t place = 0;
    for (size_t begin = 0, end; begin < n; begin = end) {
        end = end_of_run(&by, kept, begin, n);
        for (size_t i = begin; i < end; i++) {
            place += end - begin > 1;
            uint64_t due = n_shared > 0 ? place * wanted / n_shared : 0;
            if (due > n_out) {
                held_out[n_out++] = kept[i];
            } else {
                kept[n_in++] = kept[i];
            }
        }
    }
    qsort(kept, n_in, sizeof *kept, cr_order_u32);
    qsort(held_out, n_out, sizeof *held_out, cr_order_u32);
    *n_kept = n_in;
    *n_held_out = n_out;
}
