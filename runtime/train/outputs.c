/* Which files a run leaves in its output directory, beside checkpoints, journal and held-out examples. */
#include <string.h>
#include <unistd.h>

#include "runtime/core/alloc.h"
#include "runtime/io/file.h"
#include "runtime/posterior/posterior_file.h"
#include "runtime/train/train.h"

/* Without the first no run is finished; the last ones are those of an adapter. */
static const char *const output_names[] = {"summary.json", CR_POSTERIOR_FILE, "adapter_config.json",
                                           "adapter_model.safetensors", "adapter.gguf"};

enum { N_OUTPUTS = sizeof output_names / sizeof output_names[0], N_OF_ADAPTER = 3, ADAPTER = N_OUTPUTS - N_OF_ADAPTER };

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
    for (int i = 0; i < (train->method->no_adapter ? ADAPTER : N_OUTPUTS); i++) {
        char *path = cr_path_join(train->options.output, output_names[i]);
        bool present = path != NULL && access(path, F_OK) == 0;
        cr_free(path);
        if (!present && cr_train_writes(train, output_names[i])) {
            return false;
        }
    }
    return true;
}

cr_status cr_train_clear_outputs(const struct cr_train *train, struct cr_error *err)
{
    static const char *const sets[] = {"members", "tasks"};
    cr_status status = cr_dir_remove_files(train->options.output, output_names, N_OUTPUTS, err);
    for (size_t i = 0; status == CR_OK && i < sizeof sets / sizeof sets[0]; i++) {
        char *path = cr_path_join(train->options.output, sets[i]);
        status = path != NULL ? cr_dir_remove_children(path, output_names + ADAPTER, N_OF_ADAPTER, err)
                              : cr_fail(err, CR_E_MEMORY, "no memory for a path");
        cr_free(path);
    }
    return status;
}
