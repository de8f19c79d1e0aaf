/* store: the growing arrays behind a data set while its file is read. */
#ifndef CR_DATA_STORE_H
#define CR_DATA_STORE_H

#include "runtime/data/dataset.h"

struct cr_store {
    int32_t *ids;   /* owned: all examples, one after the other */
    uint8_t *masks; /* owned: as long as ids; empty for choices */
    size_t n_ids, ids_capacity, masks_capacity;
    struct cr_example *examples; /* owned; ids and mask unset until cr_store_finish */
    size_t n_examples, examples_capacity;
    uint64_t *hashes; /* owned: of every example's content, for counting duplicates */
    size_t hashes_capacity;
    char **names; /* owned: task names */
    size_t n_names, names_capacity;
    uint32_t *table; /* owned: open addressing, name number + 1, 0 = free; a power of two of slots */
    size_t table_slots;
};

/* Appends an example (its ids and mask are ignored) with the given tokens; loss NULL for choices. Errors:
 * CR_E_MEMORY; the store then holds what it held. */
cr_status cr_store_add(struct cr_store *store, const struct cr_example *example, const int32_t *ids,
                       const int32_t *loss, struct cr_error *err);

/* Number of the task of this name, new names added. Constant time on average. */
cr_status cr_store_task(struct cr_store *store, const char *name, size_t n, int32_t *task, struct cr_error *err);

/* How many examples equal an earlier one. Sorts the hashes: call once, at the end. */
uint64_t cr_store_count_duplicates(struct cr_store *store);

/* Points the examples at their tokens: nothing may be added afterwards. */
void cr_store_finish(struct cr_store *store);

void cr_store_deinit(struct cr_store *store);

#endif
