#include "runtime/io/checkpoint.h"

#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "runtime/io/hash.h"
#include "runtime/io/sys.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "checkpoints are written as the memory lies");

static const char magic[8] = {'C', 'R', 'C', 'K', 'P', 'T', '\r', '\n'};

enum { VERSION = 1, ALIGN = 64, HEAD_HASHED = 40, HASH_BYTES = 16 };

struct head {
    char magic[8];
    uint32_t version, n_sections;
    uint64_t run_id, step, file_bytes, hash;
    uint64_t zero[2];
};

struct entry {
    uint32_t kind, zero;
    uint64_t offset, length, hash;
};

_Static_assert(sizeof(struct head) == ALIGN, "header layout");
_Static_assert(sizeof(struct entry) == 32, "table layout");

static uint64_t align_up(uint64_t x)
{
    return (x + ALIGN - 1) / ALIGN * ALIGN;
}

static cr_status head_hash(const struct head *head, const struct entry *table, uint64_t *out, struct cr_error *err)
{
    struct cr_hash *hash = cr_hash_create();
    if (hash == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for a hash");
    }
    cr_hash_update(hash, head, HEAD_HASHED);
    cr_hash_update(hash, table, head->n_sections * sizeof *table);
    *out = cr_hash_64(hash);
    cr_hash_destroy(hash);
    return CR_OK;
}

/* A writer with the digest of all that went through it. */
struct sink {
    struct cr_file_writer writer;
    struct cr_hash *hash;
};

static cr_status put(struct sink *sink, const void *data, size_t n, struct cr_error *err)
{
    cr_hash_update(sink->hash, data, n);
    return cr_file_writer_write(&sink->writer, data, n, err);
}

static cr_status put_all(struct sink *sink, const struct head *head, const struct entry *table,
                         const struct cr_checkpoint_section *sections, struct cr_error *err)
{
    static const char zeros[ALIGN];
    CR_TRY(put(sink, head, sizeof *head, err));
    CR_TRY(put(sink, table, head->n_sections * sizeof *table, err));
    for (size_t i = 0; i < head->n_sections; i++) {
        CR_TRY(put(sink, zeros, (size_t)(table[i].offset - sink->writer.bytes), err));
        CR_TRY(put(sink, sections[i].data, sections[i].bytes, err));
    }
    struct cr_hash128 whole = cr_hash_128(sink->hash);
    CR_TRY(put(sink, &whole, sizeof whole, err));
    return cr_file_writer_commit(&sink->writer, err);
}

cr_status cr_checkpoint_write(const char *path, uint64_t run_id, uint64_t step,
                              const struct cr_checkpoint_section *sections, size_t n, struct cr_error *err)
{
    if (n == 0 || n > CR_CKPT_MAX_SECTIONS) {
        return cr_fail(err, CR_E_USAGE, "checkpoint: %zu sections, expected 1 to %d", n, CR_CKPT_MAX_SECTIONS);
    }
    struct head head = {.version = VERSION, .n_sections = (uint32_t)n, .run_id = run_id, .step = step};
    struct entry table[CR_CKPT_MAX_SECTIONS];
    memcpy(head.magic, magic, sizeof magic);
    uint64_t at = sizeof head + n * sizeof table[0];
    for (size_t i = 0; i < n; i++) {
        at = align_up(at);
        table[i] = (struct entry){.kind = sections[i].kind,
                                  .offset = at,
                                  .length = sections[i].bytes,
                                  .hash = cr_xxh3_64(sections[i].data, sections[i].bytes)};
        at += sections[i].bytes;
    }
    head.file_bytes = at + HASH_BYTES;
    CR_TRY(head_hash(&head, table, &head.hash, err));

    struct sink sink = {.hash = cr_hash_create()};
    if (sink.hash == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for a hash");
    }
    cr_status status = cr_file_writer_open(&sink.writer, path, err);
    if (status == CR_OK) {
        status = put_all(&sink, &head, table, sections, err);
        if (status != CR_OK) {
            cr_file_writer_abort(&sink.writer);
        }
    }
    cr_hash_destroy(sink.hash);
    return status;
}

/* What the first bytes promise, checked against `bytes` present. */
static cr_status check_head(const char *label, const uint8_t *data, size_t bytes, struct head *head,
                            struct entry *table, struct cr_error *err)
{
    if (bytes < sizeof *head + HASH_BYTES) {
        return cr_fail(err, CR_E_INPUT, "%s: %zu bytes, a checkpoint has at least %zu", label, bytes,
                       sizeof *head + HASH_BYTES);
    }
    memcpy(head, data, sizeof *head);
    if (memcmp(head->magic, magic, sizeof magic) != 0) {
        return cr_fail(err, CR_E_INPUT, "%s: offset 0: not a checkpoint (magic differs)", label);
    }
    if (head->version != VERSION) {
        return cr_fail(err, CR_E_INPUT, "%s: offset 8: version %" PRIu32 ", this program reads version %d", label,
                       head->version, VERSION);
    }
    if (head->n_sections == 0 || head->n_sections > CR_CKPT_MAX_SECTIONS) {
        return cr_fail(err, CR_E_INPUT, "%s: offset 12: %" PRIu32 " sections, expected 1 to %d", label,
                       head->n_sections, CR_CKPT_MAX_SECTIONS);
    }
    size_t table_bytes = head->n_sections * sizeof *table;
    if (bytes - sizeof *head - HASH_BYTES < table_bytes) {
        return cr_fail(err, CR_E_INPUT, "%s: %zu bytes, too few for a table of %" PRIu32 " sections", label, bytes,
                       head->n_sections);
    }
    memcpy(table, data + sizeof *head, table_bytes);
    uint64_t hash = 0;
    CR_TRY(head_hash(head, table, &hash, err));
    if (hash != head->hash || head->zero[0] != 0 || head->zero[1] != 0) {
        return cr_fail(err, CR_E_INPUT, "%s: header checksum is %016" PRIx64 ", expected %016" PRIx64, label,
                       head->hash, hash);
    }
    return CR_OK;
}

static cr_status check_sections(const char *label, const struct cr_file_map *map, const struct head *head,
                                const struct entry *table, struct cr_checkpoint *out, struct cr_error *err)
{
    if (head->file_bytes != map->bytes) {
        return cr_fail(err, CR_E_INPUT, "%s: %zu bytes, the header promises %" PRIu64, label, map->bytes,
                       head->file_bytes);
    }
    struct cr_hash128 stored;
    struct cr_hash128 whole = cr_xxh3_128(map->data, map->bytes - HASH_BYTES);
    memcpy(&stored, map->data + map->bytes - HASH_BYTES, sizeof stored);
    if (stored.low != whole.low || stored.high != whole.high) {
        return cr_fail(err, CR_E_INPUT, "%s: checksum of the file differs from the one at its end", label);
    }
    uint64_t at = sizeof *head + head->n_sections * sizeof *table;
    uint64_t end = map->bytes - HASH_BYTES;
    for (size_t i = 0; i < head->n_sections; i++) {
        const struct entry *entry = &table[i];
        at = align_up(at);
        if (entry->offset != at || at > end || entry->length > end - at || entry->zero != 0) {
            return cr_fail(err, CR_E_INPUT,
                           "%s: section %zu at %" PRIu64 " with %" PRIu64 " bytes, expected at %" PRIu64
                           " inside %" PRIu64,
                           label, i, entry->offset, entry->length, at, end);
        }
        for (size_t j = 0; j < i; j++) {
            if (table[j].kind == entry->kind) {
                return cr_fail(err, CR_E_INPUT, "%s: section kind %" PRIu32 " twice", label, entry->kind);
            }
        }
        if (cr_xxh3_64(map->data + at, (size_t)entry->length) != entry->hash) {
            return cr_fail(err, CR_E_INPUT, "%s: checksum of section %zu (kind %" PRIu32 ") differs", label, i,
                           entry->kind);
        }
        out->sections[i] =
            (struct cr_checkpoint_section){.kind = entry->kind, .data = map->data + at, .bytes = (size_t)entry->length};
        at += entry->length;
    }
    if (at != end) {
        return cr_fail(err, CR_E_INPUT, "%s: last section ends at %" PRIu64 ", expected %" PRIu64, label, at, end);
    }
    return CR_OK;
}

cr_status cr_checkpoint_open(const char *path, struct cr_checkpoint *out, struct cr_error *err)
{
    struct cr_checkpoint made = {0};
    struct head head;
    struct entry table[CR_CKPT_MAX_SECTIONS];
    char label[CR_ESCAPE_BYTES];
    CR_TRY(cr_file_map_open(path, &made.map, err));
    cr_escape(label, sizeof label, path, strlen(path));
    cr_status status = check_head(label, made.map.data, made.map.bytes, &head, table, err);
    if (status == CR_OK) {
        status = check_sections(label, &made.map, &head, table, &made, err);
    }
    if (status != CR_OK) {
        cr_file_map_close(&made.map);
        return status;
    }
    made.run_id = head.run_id;
    made.step = head.step;
    made.n_sections = head.n_sections;
    *out = made;
    return CR_OK;
}

void cr_checkpoint_close(struct cr_checkpoint *checkpoint)
{
    cr_file_map_close(&checkpoint->map);
    checkpoint->n_sections = 0;
}

const struct cr_checkpoint_section *cr_checkpoint_find(const struct cr_checkpoint *checkpoint, uint32_t kind)
{
    for (size_t i = 0; i < checkpoint->n_sections; i++) {
        if (checkpoint->sections[i].kind == kind) {
            return &checkpoint->sections[i];
        }
    }
    return NULL;
}

cr_status cr_checkpoint_require(const struct cr_checkpoint *checkpoint, uint32_t kind, const char *name, size_t bytes,
                                const void **out, struct cr_error *err)
{
    const struct cr_checkpoint_section *section = cr_checkpoint_find(checkpoint, kind);
    if (section == NULL || section->bytes != bytes) {
        return cr_fail(err, CR_E_INPUT, "section %u%s%s%s has %zu bytes, expected %zu", kind, name != NULL ? " (" : "",
                       name != NULL ? name : "", name != NULL ? ")" : "", section != NULL ? section->bytes : 0, bytes);
    }
    *out = section->data;
    return CR_OK;
}

cr_status cr_checkpoint_get(const struct cr_checkpoint *checkpoint, uint32_t kind, const char *name, void *out,
                            size_t bytes, struct cr_error *err)
{
    const void *data = NULL;
    CR_TRY(cr_checkpoint_require(checkpoint, kind, name, bytes, &data, err));
    memcpy(out, data, bytes);
    return CR_OK;
}

cr_status cr_checkpoint_finite(const char *what, const float *values, size_t n, struct cr_error *err)
{
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(values[i])) {
            return cr_fail(err, CR_E_INPUT, "%s %zu is %g, expected a finite number", what, i, (double)values[i]);
        }
    }
    return CR_OK;
}

bool cr_checkpoint_peek(const char *path, uint64_t *run_id, uint64_t *step)
{
    struct cr_file_map map;
    struct head head;
    struct entry table[CR_CKPT_MAX_SECTIONS];
    if (cr_file_map_open(path, &map, NULL) != CR_OK) {
        return false;
    }
    bool good = check_head(path, map.data, map.bytes, &head, table, NULL) == CR_OK;
    cr_file_map_close(&map);
    if (good) {
        *run_id = head.run_id;
        *step = head.step;
    }
    return good;
}

bool cr_checkpoint_sniff(const char *path)
{
    char start[sizeof magic];
    int fd = cr_sys()->open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK, 0);
    if (fd < 0) {
        return false;
    }
    bool same =
        cr_sys()->read(fd, start, sizeof start) == (ssize_t)sizeof start && memcmp(start, magic, sizeof magic) == 0;
    cr_sys()->close(fd);
    return same;
}
