/* export: an adapter from one file form to another. */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "credence/credence.h"
#include "runtime/adapter/files.h"
#include "runtime/core/error.h"
#include "runtime/io/file.h"

static cr_status check_options(const struct cr_export_options *options, bool *gguf, struct cr_error *err)
{
    char shown[CR_ESCAPE_BYTES];
    if (options->adapter == NULL || options->output == NULL) {
        return cr_fail(err, CR_E_USAGE, "export: %s expected", options->adapter == NULL ? "adapter" : "output");
    }
    const char *format = options->format != NULL ? options->format : "peft";
    if (strcmp(format, "peft") != 0 && strcmp(format, "gguf") != 0) {
        return cr_fail(err, CR_E_USAGE, "export: format is \"%s\", peft or gguf expected",
                       cr_escape(shown, sizeof shown, format, strlen(format)));
    }
    *gguf = strcmp(format, "gguf") == 0;
    return CR_OK;
}

/* An existing file is replaced only when asked to. */
static cr_status check_file(const char *path, bool force, struct cr_error *err)
{
    struct stat info;
    char shown[CR_ESCAPE_BYTES];
    if (lstat(path, &info) != 0) {
        return CR_OK; /* absent, or the writer says why not */
    }
    cr_escape(shown, sizeof shown, path, strlen(path));
    if (S_ISDIR(info.st_mode)) {
        return cr_fail(err, CR_E_IO, "%s: %s", shown, strerror(EISDIR));
    }
    return force ? CR_OK : cr_fail(err, CR_E_USAGE, "%s exists already (force replaces it)", shown);
}

cr_status cr_export(const struct cr_export_options *given, const struct cr_host *host, struct cr_error *err)
{
    cr_status status = CR_OK;
    struct cr_export_options copy = {0}; /* fields that an older caller does not know are 0 */
    const struct cr_export_options *options = &copy;
    memcpy(&copy, given, given->size != 0 && given->size < sizeof copy ? given->size : sizeof copy);
    bool gguf = false;
    struct cr_model *model = NULL;
    struct cr_adapter *adapter = NULL;
    struct cr_adapter_base base = {0};
    CR_TRY(check_options(options, &gguf, err));
    if (options->model != NULL) {
        CR_TRY(cr_model_open(options->model, &model, err));
        CR_TRY_OUT(status, cr_adapter_load(options->adapter, model, false, false, host, &adapter, err));
        cr_adapter_base_of(model, &base);
    } else {
        CR_TRY_OUT(status, cr_adapter_read(options->adapter, NULL, false, &adapter, &base, err));
    }
    if (gguf) {
        CR_TRY_OUT(status, check_file(options->output, options->force, err));
        status = cr_adapter_write_gguf(adapter, &base, options->output, err);
    } else {
        CR_TRY_OUT(status, cr_dir_prepare_output(options->output, options->force, false, err));
        status = cr_adapter_write_peft(adapter, &base, options->output,
                                       adapter->method[0] != '\0' ? adapter->method : NULL, err);
    }
out:
    cr_adapter_destroy(adapter);
    cr_model_close(model);
    return status;
}
