/* Where the library sends its notes and warnings: a callback of the caller, silent by default. */
#ifndef CR_CORE_LOG_H
#define CR_CORE_LOG_H

enum cr_log_level { CR_LOG_WARNING, CR_LOG_INFO, CR_LOG_DEBUG };

/* line: one line without a final line feed, valid during the call. A NULL function drops everything. */
struct cr_log {
    void (*line)(void *ctx, enum cr_log_level level, const char *text);
    void *ctx;
    enum cr_log_level max_level; /* lines above it are not formatted */
};

/* printf form; log may be NULL. Lines are cut at 1023 bytes. Bytes from files must have gone through cr_escape. */
void cr_log(const struct cr_log *log, enum cr_log_level level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
