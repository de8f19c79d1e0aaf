#include "runtime/data/store.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/core/error.h"
#include "runtime/io/hash.h"

static cr_status no_memory(const char *what, size_t n, struct cr_error *err)
{
    return cr_fail(err, CR_E_MEMORY, "out of memory for %zu %s of the data set", n, what);
}

static uint64_t content_hash(const struct cr_example *example, const int32_t *ids, const int32_t *loss)
{
    uint64_t parts[5] = {cr_xxh3_64(ids, example->n_ids * sizeof *ids),
                         loss != NULL ? cr_xxh3_64(loss, example->n_ids * sizeof *loss) : 0, example->n_choices,
                         example->answer, (uint64_t)(int64_t)example->task};
    return cr_xxh3_64(parts, sizeof parts);
}

/* Room for one more example of n token ids. */
static cr_status reserve(struct cr_store *store, size_t n, bool masked, struct cr_error *err)
{
    int32_t *ids = cr_grow(store->ids, store->n_ids, n, &store->ids_capacity, sizeof *ids);
    if (ids == NULL) {
        return no_memory("tokens", store->n_ids + n, err);
    }
    store->ids = ids;
    uint8_t *masks = masked ? cr_grow(store->masks, store->n_ids, n, &store->masks_capacity, sizeof *masks) : NULL;
    if (masked && masks == NULL) {
        return no_memory("tokens", store->n_ids + n, err);
    }
    store->masks = masked ? masks : store->masks;
    struct cr_example *examples =
        cr_grow(store->examples, store->n_examples, 1, &store->examples_capacity, sizeof *examples);
    if (examples == NULL) {
        return no_memory("examples", store->n_examples + 1, err);
    }
    store->examples = examples;
    uint64_t *hashes = cr_grow(store->hashes, store->n_examples, 1, &store->hashes_capacity, sizeof *hashes);
    if (hashes == NULL) {
        return no_memory("examples", store->n_examples + 1, err);
    }
    store->hashes = hashes;
    return CR_OK;
}

cr_status cr_store_add(struct cr_store *store, const struct cr_example *example, const int32_t *ids,
                       const int32_t *loss, struct cr_error *err)
{
    size_t n = example->n_ids;
    CR_TRY(reserve(store, n, loss != NULL, err));
    for (size_t i = 0; loss != NULL && i < n; i++) {
        store->masks[store->n_ids + i] = loss[i] != 0;
    }
    memcpy(store->ids + store->n_ids, ids, n * sizeof *ids);
    store->examples[store->n_examples] = *example;
    store->hashes[store->n_examples] = content_hash(example, ids, loss);
    store->n_examples++;
    store->n_ids += n;
    return CR_OK;
}

static size_t find_slot(const struct cr_store *store, const char *name, size_t n)
{
    size_t slot = (size_t)cr_xxh3_64(name, n) & (store->table_slots - 1);
    while (store->table[slot] != 0) {
        const char *other = store->names[store->table[slot] - 1];
        if (strlen(other) == n && memcmp(other, name, n) == 0) {
            break;
        }
        slot = (slot + 1) & (store->table_slots - 1);
    }
    return slot;
}

/* Keeps the table at most half full. */
static cr_status widen_table(struct cr_store *store, struct cr_error *err)
{
    if (store->n_names * 2 < store->table_slots) {
        return CR_OK;
    }
    size_t slots = store->table_slots == 0 ? 64 : store->table_slots * 2;
    uint32_t *table = cr_zalloc(slots, sizeof *table);
    if (table == NULL) {
        return cr_fail(err, CR_E_MEMORY, "out of memory for %zu task names", store->n_names);
    }
    cr_free(store->table);
    store->table = table;
    store->table_slots = slots;
    for (size_t i = 0; i < store->n_names; i++) {
        store->table[find_slot(store, store->names[i], strlen(store->names[i]))] = (uint32_t)i + 1;
    }
    return CR_OK;
}

cr_status cr_store_task(struct cr_store *store, const char *name, size_t n, int32_t *task, struct cr_error *err)
{
    CR_TRY(widen_table(store, err));
    size_t slot = find_slot(store, name, n);
    if (store->table[slot] == 0) {
        if (store->n_names >= INT32_MAX) {
            return cr_fail(err, CR_E_INPUT, "more than %d task names", INT32_MAX);
        }
        char **names = cr_grow(store->names, store->n_names, 1, &store->names_capacity, sizeof *names);
        if (names == NULL) {
            return cr_fail(err, CR_E_MEMORY, "out of memory for %zu task names", store->n_names);
        }
        store->names = names;
        char *copy = cr_strndup(name, n);
        if (copy == NULL) {
            return cr_fail(err, CR_E_MEMORY, "out of memory for %zu task names", store->n_names);
        }
        store->names[store->n_names++] = copy;
        store->table[slot] = (uint32_t)store->n_names;
    }
    *task = (int32_t)store->table[slot] - 1;
    return CR_OK;
}

static int compare_u64(const void *a, const void *b)
{
    uint64_t x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return (x > y) - (x < y);
}

uint64_t cr_store_count_duplicates(struct cr_store *store)
{
    uint64_t n = 0;
    if (store->n_examples == 0) {
        return 0;
    }
    qsort(store->hashes, store->n_examples, sizeof *store->hashes, compare_u64);
    for (size_t i = 1; i < store->n_examples; i++) {
        n += store->hashes[i] == store->hashes[i - 1];
    }
    cr_free(store->hashes);
    store->hashes = NULL;
    return n;
}

void cr_store_finish(struct cr_store *store)
{
    size_t at = 0;
    for (size_t i = 0; i < store->n_examples; i++) {
        struct cr_example *example = &store->examples[i];
        example->ids = store->ids + at;
        example->mask = store->masks != NULL ? store->masks + at : NULL;
        at += example->n_ids;
    }
}

void cr_store_deinit(struct cr_store *store)
{
    for (size_t i = 0; i < store->n_names; i++) {
        cr_free(store->names[i]);
    }
    cr_free(store->names);
    cr_free(store->table);
    cr_free(store->ids);
    cr_free(store->masks);
    cr_free(store->examples);
    cr_free(store->hashes);
    memset(store, 0, sizeof *store);
}
