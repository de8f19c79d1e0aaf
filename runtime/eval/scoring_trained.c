/* Leaving out of a training file what its run held out of it. */
#include "runtime/eval/scoring_parts.h"

#include <inttypes.h>
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/core/host.h"
#include "runtime/io/file.h"
#include "runtime/io/hash.h"
#include "runtime/posterior/run_summary.h"

/* The split is a function of the data, the seed and nothing else, so it is made again rather than looked up. */
static cr_status split_again(struct cr_scoring *s, const struct cr_run_summary *run, const char *shown,
                             struct cr_error *err)
{
    struct cr_scoring_set *set = &s->main;
    size_t n = set->data.n, n_kept, n_out;
    uint32_t *held_out = cr_alloc(n, sizeof *held_out), *kept = cr_alloc(n, sizeof *kept);
    if (held_out == NULL || kept == NULL) {
        cr_free(held_out);
        cr_free(kept);
        return cr_fail(err, CR_E_MEMORY, "no memory for the order of %zu examples", n);
    }
    cr_dataset_split(&set->data, run->seed, CR_HELD_OUT_SHARE, kept, &n_kept, held_out, &n_out);
    cr_free(held_out);
    if (n_kept == run->n_train && n_out == run->n_valid) {
        cr_free(set->order);
        set->order = kept;
        set->n = n_kept;
        cr_host_log(s->host, CR_LOG_INFO, "%zu of %zu examples count: those that the run in %s was trained on", n_kept,
                    n, shown);
        return CR_OK;
    }
    cr_free(kept);
    cr_host_log(s->host, CR_LOG_WARNING,
                "%zu examples, of which the run in %s knew %" PRIu64 ": those it held out cannot be told and count too "
                "(--max-seq-length, --on-long)",
                n, shown, run->n_train + run->n_valid);
    return CR_OK;
}

cr_status cr_scoring_keep_trained(struct cr_scoring *s, const char *adapter, struct cr_error *err)
{
    const struct cr_dataset *data = &s->main.data;
    struct cr_run_summary run;
    bool found = false;
    char hex[33], shown[CR_ESCAPE_BYTES], path[CR_ESCAPE_BYTES];
    CR_TRY(cr_run_summary_read(adapter, &run, &found, err));
    cr_escape(shown, sizeof shown, adapter, strlen(adapter));
    cr_hex_128(hex, (struct cr_hash128){.high = data->digest[0], .low = data->digest[1]});
    if (found && strcmp(run.data, hex) != 0) {
        cr_host_log(s->host, CR_LOG_WARNING, "%s is not the file that the run in %s was trained on; it is taken for it",
                    cr_escape(path, sizeof path, s->main.path, strlen(s->main.path)), shown);
        return CR_OK;
    }
    return found && run.splits ? split_again(s, &run, shown, err) : CR_OK;
}
