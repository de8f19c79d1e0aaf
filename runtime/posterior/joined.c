#include "runtime/posterior/joined.h"

#include <string.h>

#include "runtime/adapter/layout.h"
#include "runtime/core/alloc.h"
#include "runtime/core/error.h"

cr_status cr_joined_create(const struct cr_adapter *sets, bool with_grads, struct cr_adapter **out,
                           struct cr_error *err)
{
    size_t n_slots = (size_t)sets->n_layers * CR_N_PROJ;
    struct cr_lora *slots = cr_alloc(n_slots, sizeof *slots);
    struct cr_adapter *joined = NULL;
    if (slots == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for joined adapters");
    }
    for (size_t i = 0; i < n_slots; i++) {
        slots[i] = sets->slots[i];
        slots[i].rank *= 2;
    }
    cr_status status = cr_adapter_assemble(slots, sets->n_layers, with_grads, &joined, err);
    cr_free(slots);
    if (status == CR_OK) {
        cr_adapter_inherit(joined, sets);
        joined->alpha = 2 * sets->alpha; /* over twice the rank: the same scale */
        status = cr_adapter_repeat(&joined, sets->n_sets, err);
    }
    if (status != CR_OK) {
        cr_adapter_destroy(joined);
        return status;
    }
    for (size_t i = 0; i < n_slots; i++) {
        cr_joined_fill(joined, sets, i);
    }
    *out = joined;
    return CR_OK;
}

/* Half 0 or 1 of A and B; NULL: zeros. */
static void fill_half(const struct cr_lora *joined, const struct cr_lora *set, int half)
{
    size_t rank = joined->rank / 2, n_a = rank * joined->n_in;
    for (size_t i = 0; i < n_a; i++) {
        joined->a[(size_t)half * n_a + i] = set != NULL ? set->a[i] : 0;
    }
    for (size_t row = 0; row < joined->n_out; row++) {
        for (size_t k = 0; k < rank; k++) {
            joined->b[row * 2 * rank + (size_t)half * rank + k] = set != NULL ? set->b[row * rank + k] : 0;
        }
    }
}

void cr_joined_fill(struct cr_adapter *joined, const struct cr_adapter *sets, size_t slot)
{
    size_t n_slots = (size_t)sets->n_layers * CR_N_PROJ;
    for (size_t d = 0; d < sets->n_sets && sets->slots[slot].rank > 0; d++) {
        const struct cr_lora *to = &joined->slots[d * n_slots + slot];
        fill_half(to, &sets->slots[slot], 0);
        fill_half(to, d > 0 ? &sets->slots[d * n_slots + slot] : NULL, 1);
    }
}

static void add_half(const struct cr_lora *set, const struct cr_lora *joined, int half)
{
    size_t rank = set->rank, n_a = rank * set->n_in;
    for (size_t i = 0; i < n_a; i++) {
        set->grad_a[i] += joined->grad_a[(size_t)half * n_a + i];
    }
    for (size_t row = 0; row < set->n_out; row++) {
        for (size_t k = 0; k < rank; k++) {
            set->grad_b[row * rank + k] += joined->grad_b[row * 2 * rank + (size_t)half * rank + k];
        }
    }
}

void cr_joined_gather(const struct cr_adapter *joined, struct cr_adapter *sets, size_t slot)
{
    size_t n_slots = (size_t)sets->n_layers * CR_N_PROJ;
    for (size_t d = 0; d < sets->n_sets && sets->slots[slot].rank > 0; d++) {
        const struct cr_lora *from = &joined->slots[d * n_slots + slot];
        add_half(&sets->slots[slot], from, 0);
        if (d > 0) {
            add_half(&sets->slots[d * n_slots + slot], from, 1);
        }
    }
}
