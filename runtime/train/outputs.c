/* Which files a finished run leaves in its output directory, and whether they are there. */
#include <string.h>
#include <unistd.h>

#include "runtime/core/alloc.h"
#include "runtime/io/file.h"
#include "runtime/io/hash.h"
#include "runtime/posterior/output_dir.h"
#include "runtime/posterior/posterior_file.h"
#include "runtime/posterior/run_summary.h"
#include "runtime/train/train.h"

/* What this run writes: some methods leave more than an adapter, and prefixes and trained label rows have no GGUF form.
 */
bool cr_train_writes(const struct cr_train *train, const char *name)
{
    return strcmp(name, CR_POSTERIOR_FILE) == 0 ? train->method->write != NULL
           : strcmp(name, "adapter.gguf") == 0  ? !train->method->prefix && !cr_train_owns_rows(train)
                                                : true;
}

bool cr_train_outputs_present(const struct cr_train *train)
{
    for (int i = 0; i < (train->method->no_adapter ? CR_OUTPUT_OF_ADAPTER : CR_OUTPUT_N); i++) {
        char *path = cr_path_join(train->options.output, cr_output_names[i]);
        bool present = path != NULL && access(path, F_OK) == 0;
        cr_free(path);
        if (!present && cr_train_writes(train, cr_output_names[i])) {
            return false;
        }
    }
    return true;
}

cr_status cr_train_outputs_of(const struct cr_train *train, uint64_t run_id, bool *of_run, struct cr_error *err)
{
    struct cr_run_summary summary;
    bool found = false;
    char hex[17];
    CR_TRY(cr_run_summary_read(train->options.output, &summary, &found, err));
    *of_run = found && strcmp(summary.run_id, cr_hex_64(hex, run_id)) == 0;
    return CR_OK;
}
