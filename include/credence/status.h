/* Status codes and the error record that every fallible call fills. */
#ifndef CREDENCE_STATUS_H
#define CREDENCE_STATUS_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define CR_API __attribute__((visibility("default")))
#else
#define CR_API
#endif

/* 0 or negative. Values are pinned; -status is the exit code of the program for that class of failure. */
typedef int32_t cr_status;

enum {
    CR_OK = 0,
    CR_E_USAGE = -2,    /* a setting or an argument, or two that conflict */
    CR_E_INPUT = -3,    /* a file is malformed, inconsistent or unsupported */
    CR_E_IO = -4,       /* missing file, permission, full disk, read error, file changed while in use */
    CR_E_MEMORY = -5,   /* predicted above the budget, or an allocation failed */
    CR_E_DIVERGED = -6, /* non-finite loss, gradient or weight beyond the retry policy */
    CR_E_STOPPED = -7,  /* stopped on request after a complete checkpoint */
    CR_E_BUSY = -8      /* output held by another process, or a resume would not be exact */
};

/* Caller's memory. On failure: one line without a final line feed that names file, place, value found and
 * value expected. Text that came from a file is escaped and cut. Untouched on success. NULL is allowed. */
struct cr_error {
    cr_status status;
    char message[768];
};

#ifdef __cplusplus
}
#endif
#endif
