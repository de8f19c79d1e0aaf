#include "runtime/tokenizer/special.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/core/error.h"
#include "runtime/tokenizer/heap.h"

cr_status cr_specials_add(struct cr_specials *specials, struct cr_special item, struct cr_error *err)
{
    struct cr_special *items = cr_grow(specials->items, specials->n, 1, &specials->capacity, sizeof *items);
    if (items == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for more than %zu special tokens", specials->n);
    }
    specials->items = items;
    specials->items[specials->n++] = item;
    return CR_OK;
}

static int compare(const void *left, const void *right)
{
    const struct cr_special *a = left;
    const struct cr_special *b = right;
    int order = memcmp(a->text, b->text, a->n_bytes < b->n_bytes ? a->n_bytes : b->n_bytes);
    if (order != 0) {
        return order;
    }
    if (a->n_bytes != b->n_bytes) {
        return a->n_bytes < b->n_bytes ? -1 : 1;
    }
    return a->id < b->id ? -1 : a->id > b->id;
}

void cr_specials_sort(struct cr_specials *specials)
{
    if (specials->n > 0) {
        qsort(specials->items, specials->n, sizeof *specials->items, compare);
    }
    size_t item = 0;
    for (size_t byte = 0; byte < 256; byte++) {
        specials->first[byte] = item;
        while (item < specials->n && (unsigned char)specials->items[item].text[0] == byte) {
            item++;
        }
    }
    specials->first[256] = item;
}

void cr_specials_deinit(struct cr_specials *specials)
{
    cr_free(specials->items);
    memset(specials, 0, sizeof *specials);
}

void cr_fragments_deinit(struct cr_fragments *list)
{
    cr_free(list->items);
    memset(list, 0, sizeof *list);
}

/* First item of [low, high) whose byte at `depth` is not below `byte`; items there are longer than depth. */
static size_t lower_bound(const struct cr_special *items, size_t low, size_t high, size_t depth, unsigned byte)
{
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if ((unsigned char)items[middle].text[depth] < byte) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

/* The longest token of at most `limit` bytes that stands at s, NULL when none does. Of equal texts the last id. */
static const struct cr_special *longest(const struct cr_specials *specials, const char *s, size_t limit, bool control)
{
    const struct cr_special *items = specials->items;
    const struct cr_special *best = NULL;
    size_t low = specials->first[(unsigned char)s[0]];
    size_t high = specials->first[(unsigned char)s[0] + 1];
    for (size_t depth = 1; low < high; depth++) {
        while (low < high && items[low].n_bytes == depth) {
            if (control || items[low].always) {
                best = &items[low];
            }
            low++;
        }
        if (depth >= limit) {
            break;
        }
        unsigned byte = (unsigned char)s[depth];
        low = lower_bound(items, low, high, depth, byte);
        high = lower_bound(items, low, high, depth, byte + 1);
    }
    return best;
}

static cr_status append(struct cr_fragments *list, struct cr_fragment fragment, struct cr_error *err)
{
    struct cr_fragment *last = list->n > 0 ? &list->items[list->n - 1] : NULL;
    if (fragment.id < 0 && last != NULL && last->id < 0 && last->end == fragment.begin) {
        last->end = fragment.end;
        return CR_OK;
    }
    struct cr_fragment *items = cr_grow(list->items, list->n, 1, &list->capacity, sizeof *items);
    if (items == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for more than %zu fragments of a text", list->n);
    }
    list->items = items;
    list->items[list->n++] = fragment;
    return CR_OK;
}

static struct cr_heap_item candidate(const struct cr_special *token, size_t at)
{
    return (struct cr_heap_item){(uint64_t)(CR_SPECIAL_MAX_BYTES - token->n_bytes) << 32 | (uint32_t)token->id, at};
}

/* Takes candidates longest first; owner[i] becomes the id + 1 of the token that covers byte i. A candidate that
 * overlaps what is taken makes room for the next shorter one at its place. Because nothing taken is shorter than the
 * candidate, it overlaps exactly when its first or its last byte is covered. */
static void take(const struct cr_specials *specials, const char *text, bool control, struct cr_heap_item *heap,
                 size_t n_heap, uint32_t *owner)
{
    while (n_heap > 0) {
        struct cr_heap_item item = cr_heap_pop(heap, &n_heap);
        size_t at = item.check;
        size_t n = CR_SPECIAL_MAX_BYTES - (size_t)(item.key >> 32);
        if (owner[at] != 0) {
            continue;
        }
        if (owner[at + n - 1] == 0) {
            for (size_t i = at; i < at + n; i++) {
                owner[i] = (uint32_t)item.key + 1;
            }
        } else if (n > 1) {
            const struct cr_special *shorter = longest(specials, text + at, n - 1, control);
            if (shorter != NULL) {
                cr_heap_push(heap, &n_heap, candidate(shorter, at));
            }
        }
    }
}

static cr_status emit(const struct cr_specials *specials, const char *text, size_t begin, size_t end, bool control,
                      const uint32_t *owner, struct cr_fragments *list, struct cr_error *err)
{
    size_t at = begin;
    while (at < end) {
        uint32_t id = owner[at - begin];
        size_t next = at + 1;
        if (id == 0) {
            while (next < end && owner[next - begin] == 0) {
                next++;
            }
        } else {
            /* The token's own length, because the same token may follow at once. */
            const struct cr_special *token = longest(specials, text + at, end - at, control);
            while ((uint32_t)token->id + 1 != id) {
                token = longest(specials, text + at, token->n_bytes - 1, control);
            }
            next = at + token->n_bytes;
        }
        CR_TRY(append(list, (struct cr_fragment){at, next, (int32_t)(id - 1)}, err));
        at = next;
    }
    return CR_OK;
}

cr_status cr_specials_split(const struct cr_specials *specials, const char *text, size_t begin, size_t end,
                            bool control, struct cr_fragments *list, struct cr_error *err)
{
    size_t n_found = 0;
    for (size_t i = begin; i < end && specials->n > 0; i++) {
        n_found += longest(specials, text + i, end - i, control) != NULL;
    }
    if (n_found == 0) {
        return begin == end ? CR_OK : append(list, (struct cr_fragment){begin, end, -1}, err);
    }
    cr_status status = CR_OK;
    uint32_t *owner = cr_zalloc(end - begin, sizeof *owner);
    struct cr_heap_item *heap = cr_alloc(n_found, sizeof *heap);
    if (owner == NULL || heap == NULL) {
        status =
            cr_fail(err, CR_E_MEMORY, "no memory for %zu special tokens in a text of %zu bytes", n_found, end - begin);
        goto out;
    }
    size_t n_heap = 0;
    for (size_t i = begin; i < end; i++) {
        const struct cr_special *token = longest(specials, text + i, end - i, control);
        if (token != NULL) {
            cr_heap_push(heap, &n_heap, candidate(token, i - begin));
        }
    }
    take(specials, text + begin, control, heap, n_heap, owner);
    status = emit(specials, text, begin, end, control, owner, list, err);
out:
    cr_free(heap);
    cr_free(owner);
    return status;
}
