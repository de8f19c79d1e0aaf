#include "runtime/cli/host.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "runtime/cli/message.h"
#include "runtime/cli/signals.h"
#include "runtime/cli/values.h"

enum { LINE_BYTES = 256 };

/* Seconds between two rewritings of the line. */
#define LIVE_INTERVAL_S 0.1

static bool is_live_terminal(int fd)
{
    const char *kind = getenv("TERM");
    return isatty(fd) && (kind == NULL || strcmp(kind, "dumb") != 0);
}

bool cr_cli_color(int fd)
{
    const char *no_color = getenv("NO_COLOR");
    return is_live_terminal(fd) && (no_color == NULL || no_color[0] == '\0');
}

static void clear_live(struct cr_cli_host *host)
{
    if (host->live_columns > 0) {
        fprintf(stderr, "\r%*s\r", (int)host->live_columns, "");
        host->live_columns = 0;
    }
}

static void print_held(struct cr_cli_host *host)
{
    fwrite(host->held, 1, host->n_held, stderr);
    host->n_held = 0;
}

static void on_log(void *ctx, enum cr_log_level level, const char *line)
{
    struct cr_cli_host *host = ctx;
    char text[1200];
    if (level == CR_LOG_WARNING) {
        clear_live(host);
        snprintf(text, sizeof text, "warning: %s", line);
        cr_cli_complain(text);
    } else if (!host->quiet && host->started) {
        clear_live(host);
        cr_cli_complain(line);
    } else if (!host->quiet) {
        int n = snprintf(text, sizeof text, "credence: %s\n", line);
        if (n > 0 && (size_t)n < sizeof text && (size_t)n < sizeof host->held - host->n_held) {
            memcpy(host->held + host->n_held, text, (size_t)n);
            host->n_held += (size_t)n;
        }
    }
}

/* "  ETA 12s", "  ETA 3m05s", "  ETA 2h07m" */
static void append_duration(char *line, size_t *n, double seconds)
{
    long s = lround(seconds);
    char *end = line + *n;
    size_t room = LINE_BYTES - *n;
    int got = s < 60     ? snprintf(end, room, "  ETA %lds", s)
              : s < 3600 ? snprintf(end, room, "  ETA %ldm%02lds", s / 60, s % 60)
                         : snprintf(end, room, "  ETA %ldh%02ldm", s / 3600, s / 60 % 60);
    *n += (size_t)got;
}

/* Appends one figure when it applies. */
static void append(char *line, size_t *n, const char *format, double value)
{
    if (isfinite(value)) {
        *n += (size_t)snprintf(line + *n, LINE_BYTES - *n, format, value);
    }
}

static size_t format_progress(const struct cr_progress *p, char *line)
{
    size_t n = (size_t)snprintf(line, LINE_BYTES, "%.16s", p->phase != NULL ? p->phase : "working");
    if (p->n_steps > 0) {
        n += (size_t)snprintf(line + n, LINE_BYTES - n, " %llu/%llu", (unsigned long long)p->step,
                              (unsigned long long)p->n_steps);
    }
    bool training = p->phase != NULL && strcmp(p->phase, "train") == 0;
    append(line, &n, "  epoch %.2f", training ? p->epoch : NAN);
    append(line, &n, "  loss %.4f", p->loss);
    append(line, &n, "  lr %.2e", training ? p->lr : NAN);
    append(line, &n, "  |g| %.3g", training ? p->grad_norm : NAN);
    append(line, &n, "  %.0f tok/s", p->tok_s > 0 ? p->tok_s : NAN);
    if (isfinite(p->eta_s) && p->eta_s >= 0 && p->eta_s < 1e7) {
        append_duration(line, &n, p->eta_s);
    }
    append(line, &n, "  %.0f MiB", p->rss_mb > 0 ? p->rss_mb : NAN);
    return n;
}

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static size_t terminal_columns(void)
{
    struct winsize size;
    return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1 ? size.ws_col - 1u : 79;
}

static void rewrite_live(struct cr_cli_host *host, const char *line, size_t n)
{
    double now = now_s();
    if (now - host->last_s < LIVE_INTERVAL_S) {
        return;
    }
    host->last_s = now;
    size_t columns = terminal_columns();
    size_t shown = n < columns ? n : columns;
    size_t rest = host->live_columns > shown ? host->live_columns - shown : 0;
    fprintf(stderr, "\r%.*s%*s", (int)shown, line, (int)rest, "");
    fflush(stderr);
    host->live_columns = shown;
}

/* Phases in which an input may still be refused. */
static bool is_preparation(const char *phase)
{
    return phase == NULL || strcmp(phase, "load") == 0 || strcmp(phase, "data") == 0;
}

static void on_progress(void *ctx, const struct cr_progress *progress)
{
    struct cr_cli_host *host = ctx;
    char line[LINE_BYTES];
    if (!host->started && !is_preparation(progress->phase)) {
        clear_live(host);
        print_held(host);
        host->started = true;
    }
    if (host->live) {
        size_t n = format_progress(progress, line);
        rewrite_live(host, line, n);
    } else if (progress->report) {
        format_progress(progress, line);
        fprintf(stderr, "%s\n", line);
    }
}

static bool on_stop(void *ctx)
{
    (void)ctx;
    return cr_cli_signals_pending();
}

/* What the environment asks for: the first number of OMP_NUM_THREADS, 0 when there is none that can be used. */
static int threads_of_environment(void)
{
    const char *text = getenv("OMP_NUM_THREADS");
    char first[8];
    uint64_t n;
    if (text == NULL || strcspn(text, ",") >= sizeof first) {
        return 0;
    }
    snprintf(first, strcspn(text, ",") + 1, "%s", text);
    return cr_cli_parse_uint(first, &n) && n >= 1 && n <= 1024 ? (int)n : 0;
}

cr_status cr_cli_host_init(struct cr_cli_host *host, const struct cr_cli_args *args, struct cr_error *err)
{
    const char *cap = cr_cli_text(args, CR_CLI_CPU);
    const char *where = cap != NULL ? "--cpu" : "CREDENCE_CPU";
    if (cap == NULL) {
        cap = getenv("CREDENCE_CPU");
    }
    if (cap != NULL && cap[0] == '\0') {
        cap = NULL;
    }
    struct cr_cpu cpu;
    enum cr_tier tier;
    struct cr_error reason;
    cr_cpu_detect(&cpu);
    cr_status status = cr_cpu_cap(&cpu, cap, &tier, &reason);
    if (status != CR_OK) {
        return cr_cli_fail(err, status, "%s: %s", where, reason.message);
    }
    enum cr_threads_by by = cr_cli_is(args, CR_CLI_THREADS_BY, "openmp") ? CR_THREADS_OPENMP
                            : cr_cli_is(args, CR_CLI_THREADS_BY, "pool") ? CR_THREADS_POOL
                                                                         : CR_THREADS_AUTO;
    host->quiet = cr_cli_given(args, CR_CLI_QUIET);
    host->live = is_live_terminal(STDERR_FILENO);
    host->host = (struct cr_host){
        .cpu_cap = cap,
        .n_threads = (int)cr_cli_uint(args, CR_CLI_THREADS, (uint64_t)threads_of_environment()),
        .log = on_log,
        .progress = host->quiet ? NULL : on_progress,
        .stop = on_stop,
        .ctx = host,
        .memory_bytes = cr_cli_uint(args, CR_CLI_MEMORY, 0),
        .verbose = cr_cli_text(args, CR_CLI_VERBOSE),
        .threads_by = by,
    };
    return CR_OK;
}

void cr_cli_host_finish(struct cr_cli_host *host, cr_status status)
{
    clear_live(host);
    if (status == CR_OK) {
        print_held(host);
    }
    host->n_held = 0;
}
