/* Files and directories: read-only maps, whole-file reads, atomic writes, the output directory and its lock.
 *
 * Errors: CR_E_IO names the path and the system's reason (missing, permission, directory or FIFO in place of a
 * regular file, full disk, file cut while it is read); CR_E_MEMORY when an allocation fails; others as stated.
 * Paths are C strings of any bytes. EINTR and short transfers are continued.
 */
#ifndef CR_IO_FILE_H
#define CR_IO_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/core/error.h"

/* A regular file mapped read-only. The descriptor stays open, so replacing the path by rename does not matter:
 * the old contents are used to the end. data is never NULL, even for an empty file. */
struct cr_file_map {
    const uint8_t *data;
    size_t bytes;
    int fd; /* -1 when closed */
    int64_t mtime_s, mtime_ns;
    uint64_t device, inode;
};

/* Fills *map; on failure it is left closed (safe to close again). */
cr_status cr_file_map_open(const char *path, struct cr_file_map *map, struct cr_error *err);
void cr_file_map_close(struct cr_file_map *map);

/* True when size or modification time of the mapped file differ from those at opening (or cannot be asked). */
bool cr_file_map_changed(const struct cr_file_map *map);

/* Reads a whole regular file into owned memory (cr_free) with one 0 byte behind the last. CR_E_INPUT when it is
 * larger than max_bytes. *n may be NULL. */
cr_status cr_file_read(const char *path, size_t max_bytes, uint8_t **data, size_t *n, struct cr_error *err);

/* Writes a file so that a reader sees the old contents or all of the new ones, whatever happens in between:
 * `path.tmp.<pid>.<random>` (O_EXCL) in the same directory, fsync, rename, fsync of the directory. A symbolic link
 * at `path` is replaced, never written through. After any failure the temporary is gone and every further call on
 * the writer returns CR_E_IO; cr_file_writer_abort is always allowed and needed only without a successful commit. */
enum { CR_TEMPORARY_BYTES = 32 }; /* at most what its name adds: the name itself is to be that much shorter than NAME_MAX */
struct cr_file_writer {
    char *path;      /* owned */
    char *temporary; /* owned; NULL once committed or aborted */
    int fd;
    uint64_t bytes; /* written so far */
};

cr_status cr_file_writer_open(struct cr_file_writer *w, const char *path, struct cr_error *err);
cr_status cr_file_writer_write(struct cr_file_writer *w, const void *data, size_t n, struct cr_error *err);
cr_status cr_file_writer_commit(struct cr_file_writer *w, struct cr_error *err);
void cr_file_writer_abort(struct cr_file_writer *w); /* removes the temporary; zeroed, committed, aborted: no effect */

/* All of the above for one block of memory. */
cr_status cr_file_write(const char *path, const void *data, size_t n, struct cr_error *err);

/* Makes `path` ready to receive outputs: created when absent (its parent missing: CR_E_IO), taken when it is an
 * empty directory. CR_E_BUSY when another process holds its lock. Non-empty: CR_E_USAGE unless force or resume.
 * With resume an absent directory is CR_E_IO. A file in its place, a dangling link, no permission: CR_E_IO.
 * A lone `.lock` counts as empty. Nothing is deleted. */
cr_status cr_dir_prepare_output(const char *path, bool force, bool resume, struct cr_error *err);

/* The same refusals before the minutes of work; nothing is created yet, so that a later refusal leaves nothing behind.
 */
cr_status cr_dir_check_output(const char *path, bool force, bool resume, struct cr_error *err);

/* Creates the directory `path` unless it is there already; the parent must exist. */
cr_status cr_dir_create(const char *path, struct cr_error *err);

/* Removes these files from the directory, and from every directory in it; there then also the directories that are
 * empty, and `path` itself. What is not named stays, and so does what links lead to. Absent is fine. */
cr_status cr_dir_remove_files(const char *path, const char *const *names, size_t n, struct cr_error *err);
cr_status cr_dir_remove_children(const char *path, const char *const *names, size_t n, struct cr_error *err);

/* Takes the advisory lock on path/.lock (created, never removed). CR_E_BUSY when another process has it. *fd is
 * owned: cr_dir_unlock releases it, as does the end of the process. */
cr_status cr_dir_lock(const char *path, int *fd, struct cr_error *err);
void cr_dir_unlock(int fd); /* -1 is fine */

/* "dir/name" without a doubled slash; name alone when dir is "". Returns owned, NULL when memory cannot be had. */
char *cr_path_join(const char *dir, const char *name);

/* Whether dir/name is there. Errors: CR_E_MEMORY, *has untouched: what cannot be asked for is not absent. */
cr_status cr_dir_has(const char *dir, const char *name, bool *has, struct cr_error *err);

/* The directory that holds `path` ("." when it has no slash, "/" for the root). Returns owned or NULL. */
char *cr_path_parent(const char *path);

/* "name" of "dir/name" or "dir/name/"; borrowed. */
const char *cr_base_name(const char *path);

/* True for two names of one existing file or directory; either may be NULL. */
bool cr_same_file(const char *a, const char *b);

/* An output that cannot be written is better refused before the work than after it. path may be NULL; flag is the
 * option that named it. Errors: CR_E_USAGE, CR_E_IO, CR_E_MEMORY. */
cr_status cr_check_output(const char *flag, const char *path, struct cr_error *err);

#endif
