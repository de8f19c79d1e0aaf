/* Which files a finished run leaves in its output directory. */
#include <string.h>
#include <unistd.h>

#include "runtime/core/alloc.h"
#include "runtime/io/file.h"
#include "runtime/posterior/output_dir.h"
#include "runtime/posterior/posterior_file.h"
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
