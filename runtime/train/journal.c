/* train.jsonl: one line a report, cut back on resume to what the checkpoint knows. */
#include "runtime/train/train.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/core/alloc.h"
#include "runtime/core/clock.h"
#include "runtime/io/json.h"
#include "runtime/io/sys.h"
#include "runtime/thread/machine.h"

/* More than a journal can hold in a run of any length; a larger file is not ours. */
#define MAX_JOURNAL_BYTES ((size_t)1 << 30)

/* What is read of a line. */
struct report {
    int64_t tokens;
    double rate, loss; /* NaN: null */
};

/* False when it is not a report. */
static bool read_line(const char *text, size_t n, struct report *out)
{
    json_t *line = NULL;
    *out = (struct report){.loss = (double)NAN};
    bool good = cr_json_parse(text, n, NULL, &line, NULL) == CR_OK && json_is_object(line) &&
                cr_json_get_int(line, "tokens", true, 0, INT64_MAX, &out->tokens, NULL, NULL) == CR_OK &&
                cr_json_get_number(line, "tok_s", true, &out->rate, NULL, NULL) == CR_OK &&
                cr_json_get_number(line, "loss", false, &out->loss, NULL, NULL) == CR_OK;
    json_decref(line);
    return good;
}

/* Whether this is the last report that the checkpoint knows: its tokens, and its loss as printed with 12 digits, which
 * is half a unit of the last one off at most. */
static bool is_last_known(const struct cr_train *train, const struct report *report)
{
    const struct cr_train_history *h = train->history;
    double loss = h->last_report_loss;
    bool same_loss = isnan(report->loss) ? !isfinite(loss) : fabs(report->loss - loss) <= 1e-11 * fabs(loss);
    return (uint64_t)report->tokens == h->report_tokens && same_loss;
}

/* Walks the lines to keep: their bytes, and the seconds that the processes before this one trained, from the rates
 * they reported. (Seconds are kept out of the checkpoint so that its bytes do not depend on the speed of a machine.)
 * False when they are another run's: the last is not the one that the checkpoint knows, or it is not there to tell, and
 * another run has been in the directory. */
static bool read_lines(struct cr_train *train, const char *text, size_t n, uint64_t keep_lines, size_t *keep_bytes)
{
    int64_t before = 0;
    bool known = false;
    for (size_t at = 0; train->journal_lines < keep_lines;) {
        const char *end = memchr(text + at, '\n', n - at);
        if (end == NULL) {
            break;
        }
        size_t length = (size_t)(end - text) - at;
        struct report report;
        bool good = read_line(text + at, length, &report);
        if (good && report.rate > 0 && report.tokens >= before) {
            train->earlier_seconds += (double)(report.tokens - before) / report.rate;
            before = report.tokens;
        }
        at += length + 1;
        *keep_bytes = at;
        train->journal_lines++;
        known = good && is_last_known(train, &report);
    }
    return train->journal_lines < keep_lines ? !train->shared : known;
}

static cr_status read_earlier(struct cr_train *train, uint64_t keep_lines, size_t *keep_bytes, struct cr_error *err)
{
    uint8_t *text = NULL;
    size_t n = 0;
    struct cr_error why;
    cr_status status = cr_file_read(train->journal_path, MAX_JOURNAL_BYTES, &text, &n, &why);
    if (status == CR_E_MEMORY) {
        return cr_fail(err, status, "%s", why.message);
    }
    if (status == CR_OK && !read_lines(train, (const char *)text, n, keep_lines, keep_bytes)) {
        *keep_bytes = 0;
        train->journal_lines = 0;
        train->earlier_seconds = 0;
    }
    if (train->journal_lines < keep_lines) {
        cr_host_log(train->host, CR_LOG_WARNING,
                    "%s has %" PRIu64 " of the %" PRIu64 " lines that the checkpoint knows: reports are lost",
                    train->journal_path, train->journal_lines, keep_lines);
    }
    cr_free(text);
    return CR_OK;
}

cr_status cr_journal_open(struct cr_train *train, uint64_t keep_lines, struct cr_error *err)
{
    size_t keep_bytes = 0;
    train->journal_lines = 0;
    if (keep_lines > 0) {
        CR_TRY(read_earlier(train, keep_lines, &keep_bytes, err));
    }
    int flags = O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW;
    train->journal_fd = cr_sys()->open(train->journal_path, flags, 0666);
    if (train->journal_fd < 0 || ftruncate(train->journal_fd, (off_t)keep_bytes) != 0 ||
        lseek(train->journal_fd, 0, SEEK_END) < 0) {
        return cr_fail(err, CR_E_IO, "%s: %s", train->journal_path, strerror(errno));
    }
    return CR_OK;
}

static void broken(struct cr_train *train, const char *what)
{
    if (!train->journal_broken) {
        cr_host_log(train->host, CR_LOG_WARNING, "%s: cannot %s (%s): reports are no longer recorded",
                    train->journal_path, what, strerror(errno));
    }
    train->journal_broken = true;
}

void cr_journal_sync(struct cr_train *train)
{
    if (train->journal_fd >= 0 && !train->journal_broken && cr_sys()->fsync(train->journal_fd) != 0) {
        broken(train, "sync");
    }
}

void cr_journal_close(struct cr_train *train)
{
    if (train->journal_fd >= 0) {
        cr_sys()->close(train->journal_fd);
        train->journal_fd = -1;
    }
}

static void append(struct cr_train *train, const char *text, size_t n)
{
    for (size_t done = 0; done < n && !train->journal_broken;) {
        ssize_t wrote = cr_sys()->write(train->journal_fd, text + done, n - done);
        if (wrote > 0) {
            done += (size_t)wrote;
        } else if (errno != EINTR) {
            broken(train, "write");
        }
    }
}

/* A figure of a clock or a machine, to a readable number of digits. */
static json_t *rounded(double value, double unit)
{
    return isfinite(value) && fabs(value) < 1e15 ? json_real((double)(int64_t)(value / unit + 0.5) * unit)
                                                 : json_null();
}

static void write_line(struct cr_train *train, const struct cr_progress *p)
{
    /* Two passes (forward, and gradient of the inputs) of a multiplication and an addition for every weight of the
     * projections: an estimate that leaves out attention, the head, the adapter and recomputation, and counts tokens
     * that prompts begin with, computed once for several, for each. */
    double gflops = 4e-9 * (double)train->linear_params * p->tok_s;
    json_t *line = json_object();
    json_object_set_new(line, "step", json_integer((json_int_t)p->step));
    json_object_set_new(line, "epoch", json_real(p->epoch));
    json_object_set_new(line, "loss", cr_json_finite(p->loss));
    json_object_set_new(line, "lr", json_real(p->lr));
    json_object_set_new(line, "grad_norm", cr_json_finite(p->grad_norm));
    json_object_set_new(line, "tokens", json_integer((json_int_t)p->tokens));
    json_object_set_new(line, "tok_s", rounded(p->tok_s, 0.001));
    json_object_set_new(line, "gflops", rounded(gflops, 0.001));
    json_object_set_new(line, "rss_mb", rounded(p->rss_mb, 0.1));
    json_object_set_new(line, "eta_s", rounded(p->eta_s, 0.1));
    char *text = json_dumps(line, JSON_COMPACT | JSON_REAL_PRECISION(12));
    if (text != NULL) {
        size_t n = strlen(text);
        text[n] = '\n'; /* in place of the terminator */
        append(train, text, n + 1);
        train->journal_lines++;
        free(text);
    }
    json_decref(line);
}

void cr_train_report(struct cr_train *train, const struct cr_step_result *step, bool report)
{
    struct cr_train_history *h = train->history;
    double wall = cr_clock_since(train->started_ns);
    uint64_t done = train->step - train->first_step;
    double mean = h->report_steps > 0 ? h->report_loss / (double)h->report_steps : (double)NAN;
    /* Tokens of this process since the last report: what one before it trained took seconds that are not counted here.
     */
    uint64_t since = h->report_tokens > train->first_tokens ? h->report_tokens : train->first_tokens;
    struct cr_progress p = {
        .phase = "train",
        .step = train->step,
        .n_steps = train->n_steps,
        .epoch = (double)train->step / (double)train->steps_per_epoch,
        .loss = report ? mean : step->loss,
        .lr = cr_train_lr(train, train->step - 1),
        .grad_norm = step->norm,
        .tok_s = train->report_seconds > 0 ? (double)(h->tokens - since) / train->report_seconds : (double)NAN,
        .eta_s = done > 0 ? wall / (double)done * (double)(train->n_steps - train->step) : (double)NAN,
        .tokens = h->tokens,
        .report = report,
    };
    if (!report) { /* the rate of this process so far: steadier than that of one step */
        p.tok_s = (double)(h->tokens - train->first_tokens) / train->train_seconds;
        cr_host_progress(train->host, &p);
        return;
    }
    p.rss_mb = (double)cr_machine_rss() / CR_MIB;
    if (train->journal_fd >= 0) {
        write_line(train, &p);
    }
    cr_host_progress(train->host, &p);
    h->last_report_loss = mean;
    h->report_loss = 0;
    h->report_steps = 0;
    h->report_tokens = h->tokens;
    train->report_seconds = 0;
}
