/* The checkpoints of a directory: finding the newest, keeping a few. */
#include "runtime/train/checkpoint_dir.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/core/host.h"
#include "runtime/io/sys.h"

char *cr_checkpoint_path(const char *dir, uint64_t step)
{
    char name[64];
    snprintf(name, sizeof name, "step-%08" PRIu64 ".cck", step);
    return cr_path_join(dir, name);
}

/* The step in "step-00000200.cck": digits only, at least eight. */
static bool step_of_name(const char *name, uint64_t *step)
{
    if (strncmp(name, "step-", 5) != 0) {
        return false;
    }
    size_t digits = strspn(name + 5, "0123456789");
    if (digits < 8 || digits > 19 || strcmp(name + 5 + digits, ".cck") != 0) {
        return false;
    }
    *step = strtoull(name + 5, NULL, 10);
    return true;
}

struct found {
    char *path; /* owned */
    uint64_t run_id, step;
};

struct list {
    struct found *items; /* owned */
    size_t n, capacity;
};

static void list_free(struct list *list)
{
    for (size_t i = 0; i < list->n; i++) {
        cr_free(list->items[i].path);
    }
    cr_free(list->items);
    *list = (struct list){0};
}

/* Takes path. */
static bool list_add(struct list *list, char *path, uint64_t run_id, uint64_t step)
{
    struct found *items = cr_grow(list->items, list->n, 1, &list->capacity, sizeof *items);
    if (items == NULL) {
        cr_free(path);
        return false;
    }
    list->items = items;
    list->items[list->n++] = (struct found){.path = path, .run_id = run_id, .step = step};
    return true;
}

/* Verifies one candidate. A bad one is a warning, and `err` keeps the last reason. */
static cr_status consider(struct list *list, char *path, uint64_t named, const struct cr_host *host,
                          struct cr_error *err)
{
    struct cr_checkpoint checkpoint;
    struct cr_error why = {0};
    cr_status status = cr_checkpoint_open(path, &checkpoint, &why);
    if (status != CR_OK) {
        cr_free(path);
        if (status == CR_E_MEMORY) {
            return cr_fail(err, status, "%s", why.message);
        }
        cr_host_log(host, CR_LOG_WARNING, "checkpoint passed over: %s", why.message);
        cr_fail(err, status, "%s", why.message);
        return CR_OK;
    }
    uint64_t run_id = checkpoint.run_id;
    uint64_t step = checkpoint.step;
    cr_checkpoint_close(&checkpoint);
    if (step != named) {
        cr_host_log(host, CR_LOG_WARNING, "%s: holds step %" PRIu64 ", not the step of its name", path, step);
    }
    return list_add(list, path, run_id, step) ? CR_OK : cr_fail(err, CR_E_MEMORY, "no memory for a list of files");
}

static cr_status scan(const char *dir, const struct cr_host *host, struct list *list, struct cr_error *err)
{
    DIR *stream = opendir(dir);
    if (stream == NULL) {
        if (errno == ENOENT) {
            return CR_OK;
        }
        return cr_fail(err, CR_E_IO, "%s: %s", dir, strerror(errno));
    }
    cr_status status = CR_OK;
    uint64_t named;
    for (struct dirent *entry; status == CR_OK && (entry = readdir(stream)) != NULL;) {
        if (step_of_name(entry->d_name, &named)) {
            char *path = cr_path_join(dir, entry->d_name);
            status = path != NULL ? consider(list, path, named, host, err)
                                  : cr_fail(err, CR_E_MEMORY, "no memory for a path");
        }
    }
    closedir(stream);
    return status;
}

/* The item with the highest step of a run; of two equal ones the later path, so that the choice does not hang on the
 * order of the directory. NULL when there is none. */
static struct found *newest_of(const struct list *list, uint64_t run_id)
{
    struct found *best = NULL;
    for (size_t i = 0; i < list->n; i++) {
        struct found *item = &list->items[i];
        if (item->run_id != run_id) {
            continue;
        }
        if (best == NULL || item->step > best->step ||
            (item->step == best->step && strcmp(item->path, best->path) > 0)) {
            best = item;
        }
    }
    return best;
}

cr_status cr_checkpoint_newest(const char *dir, uint64_t run_id, const struct cr_host *host, char **path,
                               struct cr_checkpoint *checkpoint, bool *others, struct cr_error *err)
{
    struct list list = {0};
    struct cr_error why = {0};
    cr_status status = scan(dir, host, &list, &why);
    struct found *best = newest_of(&list, run_id);
    if (status != CR_OK) {
        cr_fail(err, status, "%s", why.message);
    } else if (list.n == 0) {
        status = cr_fail(err, CR_E_INPUT, "%s: no intact checkpoint to resume from%s%.500s", dir,
                         why.message[0] != 0 ? "; " : "", why.message);
    } else if (best == NULL) {
        best = newest_of(&list, list.items[0].run_id);
        for (size_t i = 0; i < list.n; i++) {
            if (list.items[i].run_id != best->run_id) {
                status = cr_fail(err, CR_E_BUSY,
                                 "%s: checkpoints of several other runs (%016" PRIx64 ", %016" PRIx64
                                 "), none of this one (%016" PRIx64 ")",
                                 dir, best->run_id, list.items[i].run_id, run_id);
                break;
            }
        }
    }
    if (status == CR_OK) {
        status = cr_checkpoint_open(best->path, checkpoint, err);
    }
    if (status == CR_OK) {
        *others = false;
        for (size_t i = 0; i < list.n; i++) {
            *others = *others || list.items[i].run_id != best->run_id;
        }
        *path = best->path;
        best->path = NULL;
    }
    list_free(&list);
    return status;
}

static int newer_first(const void *a, const void *b)
{
    const struct found *x = a;
    const struct found *y = b;
    return x->step < y->step ? 1 : x->step > y->step ? -1 : 0;
}

void cr_checkpoint_retain(const char *dir, uint64_t run_id, uint64_t step, uint32_t keep, bool fresh)
{
    struct list list = {0};
    DIR *stream = opendir(dir);
    if (stream == NULL) {
        return;
    }
    uint64_t named;
    for (struct dirent *entry; (entry = readdir(stream)) != NULL;) {
        char *path = step_of_name(entry->d_name, &named) ? cr_path_join(dir, entry->d_name) : NULL;
        uint64_t id;
        uint64_t inside;
        if (path == NULL || !cr_checkpoint_peek(path, &id, &inside) || id != run_id || inside == step ||
            (inside > step && !fresh)) {
            cr_free(path);
        } else if (!list_add(&list, path, id, inside)) {
            break;
        }
    }
    closedir(stream);
    if (list.n > 1) {
        qsort(list.items, list.n, sizeof *list.items, newer_first);
    }
    /* The committed one is the first of those that stay. */
    for (size_t i = fresh || keep == 0 ? 0 : keep - 1; i < list.n; i++) {
        cr_sys()->unlink(list.items[i].path);
    }
    list_free(&list);
}

void cr_checkpoint_sweep(const char *dir)
{
    DIR *stream = opendir(dir);
    if (stream == NULL) {
        return;
    }
    for (struct dirent *entry; (entry = readdir(stream)) != NULL;) {
        const char *suffix = strstr(entry->d_name, ".cck.tmp.");
        if (suffix != NULL && strncmp(entry->d_name, "step-", 5) == 0) {
            char *path = cr_path_join(dir, entry->d_name);
            if (path != NULL) {
                cr_sys()->unlink(path);
                cr_free(path);
            }
        }
    }
    closedir(stream);
}
