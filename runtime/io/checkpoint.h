/* checkpoint: one file that holds everything a run needs to go on, and says when a byte of it is wrong.
 *
 * Little-endian layout:
 *     0  8 bytes  magic "CRCKPT\r\n" (a transfer in text mode breaks it)
 *     8  u32      version, 1
 *    12  u32      sections n
 *    16  u64      run id
 *    24  u64      optimiser step
 *    32  u64      bytes of the file
 *    40  u64      XXH3-64 of bytes 0...39 and of the table
 *    48  16 bytes zero
 *    64  n times  {u32 kind, u32 zero, u64 offset, u64 length, u64 XXH3-64 of the section}
 *        sections, each at the next multiple of 64 (gaps zero), in the order of the table
 *   -16  16 bytes XXH3-128 of everything before (low half first)
 *
 * Files are written through the atomic writer (temporary, fsync, rename, fsync of the directory).
 * Errors: CR_E_IO, CR_E_INPUT naming file and place, CR_E_MEMORY.
 */
#ifndef CR_IO_CHECKPOINT_H
#define CR_IO_CHECKPOINT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/core/error.h"
#include "runtime/io/file.h"

enum cr_checkpoint_kind {
    CR_CKPT_SETTINGS = 1,          /* JSON: every setting that changes the result */
    CR_CKPT_WEIGHTS = 2,           /* f32: the trained parameters as they lie in the adapter */
    CR_CKPT_OPTIMISER = 3,         /* moments, as the method lays them out */
    CR_CKPT_RNG = 4,               /* u64 seed, u64 step: all draws are functions of these */
    CR_CKPT_POSITION = 5,          /* u64 epoch, u64 examples of it already used */
    CR_CKPT_HISTORY = 6,           /* running numbers of reports, evaluations and guards (runtime/train/state.c) */
    CR_CKPT_BEST = 7,              /* f32: result of the method at the best evaluation; absent before the first */
    CR_CKPT_DIGESTS = 8,           /* JSON: what model, data and start adapter hashed to */
    CR_CKPT_JOURNAL = 9,           /* u64: lines of train.jsonl up to this step; not bytes, which depend on the clock */
    CR_CKPT_ADAPTER = 10,          /* JSON: shapes of the parameters (runtime/adapter/files.h) */
    CR_CKPT_METHOD = 11,           /* counters of the method */
    CR_CKPT_HESSIAN = 12,          /* f32: curvature estimate of each parameter */
    CR_CKPT_TRAINED = 13,          /* f32: parameters under training, where the weights are their average */
    CR_CKPT_MOMENTS = 14,          /* f32: running moments of snapshots (runtime/posterior/swag.h) */
    CR_CKPT_DEVIATIONS = 15,       /* bf16: deviations of snapshots */
    CR_CKPT_SPREAD = 16,           /* f32: rho of each parameter (runtime/posterior/blob.h) */
    CR_CKPT_SPREAD_OPTIMISER = 17, /* its moments */
    CR_CKPT_START = 18             /* f32: parameters that a later part of the run starts from */
};

enum { CR_CKPT_MAX_SECTIONS = 16 };

struct cr_checkpoint_section {
    uint32_t kind;
    const void *data; /* borrowed */
    size_t bytes;
};

cr_status cr_checkpoint_write(const char *path, uint64_t run_id, uint64_t step,
                              const struct cr_checkpoint_section *sections, size_t n, struct cr_error *err);

struct cr_checkpoint {
    struct cr_file_map map; /* owned; section data lies in it */
    uint64_t run_id, step;
    size_t n_sections;
    struct cr_checkpoint_section sections[CR_CKPT_MAX_SECTIONS];
};

/* Maps a file and verifies all of it. On success close with cr_checkpoint_close; *out untouched on failure. */
cr_status cr_checkpoint_open(const char *path, struct cr_checkpoint *out, struct cr_error *err);
void cr_checkpoint_close(struct cr_checkpoint *checkpoint);

/* NULL when the file has no such section. */
const struct cr_checkpoint_section *cr_checkpoint_find(const struct cr_checkpoint *checkpoint, uint32_t kind);

/* What a resume needs; CR_E_INPUT without the name of the file. `require` wants a section of exactly `bytes` bytes,
 * `get` copies it; name: what it holds, for the message, may be NULL. `finite` refuses numbers as "<what> 3 is nan". */
cr_status cr_checkpoint_require(const struct cr_checkpoint *checkpoint, uint32_t kind, const char *name, size_t bytes,
                                const void **out, struct cr_error *err);
cr_status cr_checkpoint_get(const struct cr_checkpoint *checkpoint, uint32_t kind, const char *name, void *out,
                            size_t bytes, struct cr_error *err);
cr_status cr_checkpoint_finite(const char *what, const float *values, size_t n, struct cr_error *err);

/* Reads run id and step from a header whose own checksum is right; the rest of the file is not looked at. */
bool cr_checkpoint_peek(const char *path, uint64_t *run_id, uint64_t *step);

/* True when the file begins like a checkpoint. */
bool cr_checkpoint_sniff(const char *path);

#endif
