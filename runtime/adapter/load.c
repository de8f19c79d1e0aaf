#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "runtime/adapter/files.h"
#include "runtime/core/error.h"
#include "runtime/core/host.h"
#include "runtime/io/checkpoint.h"
#include "runtime/io/hash.h"

cr_status cr_base_hash_parse(const char *text, size_t n, const char *label, uint64_t *hash, struct cr_error *err)
{
    uint64_t value = 0;
    bool good = n == 16;
    for (size_t i = 0; i < n && good; i++) {
        const char *digits = "0123456789abcdef";
        const char *digit = text[i] != '\0' ? strchr(digits, text[i]) : NULL;
        good = digit != NULL;
        value = value << 4 | (good ? (uint64_t)(digit - digits) : 0);
    }
    if (!good) {
        char shown[CR_ESCAPE_BYTES];
        return cr_fail(err, CR_E_INPUT, "%s: %s is \"%s\", 16 hexadecimal digits expected", label, CR_KEY_BASE_HASH,
                       cr_escape(shown, sizeof shown, text, n));
    }
    *hash = value;
    return CR_OK;
}

void cr_adapter_set_method(struct cr_adapter *adapter, const char *text, size_t n)
{
    bool fits = text != NULL && n < sizeof adapter->method;
    for (size_t i = 0; i < n && fits; i++) {
        fits = (text[i] >= 'a' && text[i] <= 'z') || text[i] == '-';
    }
    if (fits) {
        memcpy(adapter->method, text, n);
    }
    adapter->method[fits ? n : 0] = '\0';
}

cr_status cr_adapter_read(const char *path, const struct cr_model *model, bool with_grads, struct cr_adapter **out,
                          struct cr_adapter_base *base, struct cr_error *err)
{
    struct stat info;
    char shown[CR_ESCAPE_BYTES];
    if (stat(path, &info) != 0) {
        int code = errno;
        return cr_fail(err, CR_E_IO, "%s: %s", cr_escape(shown, sizeof shown, path, strlen(path)), strerror(code));
    }
    if (S_ISDIR(info.st_mode)) {
        return cr_adapter_read_peft(path, model, with_grads, out, base, err);
    }
    return S_ISREG(info.st_mode) && cr_checkpoint_sniff(path)
               ? cr_adapter_read_checkpoint(path, model, with_grads, out, base, err)
               : cr_adapter_read_gguf(path, model, with_grads, out, base, err);
}

cr_status cr_adapter_load(const char *path, const struct cr_model *model, bool with_grads, bool allow_inexact,
                          const struct cr_host *host, struct cr_adapter **out, struct cr_error *err)
{
    struct cr_adapter *adapter = NULL;
    struct cr_adapter_base base = {0};
    char shown[CR_ESCAPE_BYTES];
    cr_escape(shown, sizeof shown, path, strlen(path));
    CR_TRY(cr_adapter_read(path, model, with_grads, &adapter, &base, err));
    if (adapter->base_hash == 0) {
        cr_host_log(host, CR_LOG_WARNING, "%s: no record of the base model it was trained on: not compared", shown);
    } else if (model->base_hash != 0 && adapter->base_hash != model->base_hash) {
        char recorded[17], found[17];
        cr_hex_64(recorded, adapter->base_hash);
        cr_hex_64(found, model->base_hash);
        if (!allow_inexact) {
            cr_adapter_destroy(adapter);
            return cr_fail(err, CR_E_BUSY, "%s: trained on base %s, this model file is %s (allow-inexact accepts it)",
                           shown, recorded, found);
        }
        cr_host_log(host, CR_LOG_WARNING, "%s: trained on base %s, this model file is %s", shown, recorded, found);
    }
    *out = adapter;
    return CR_OK;
}

cr_status cr_adapter_save_peft(const struct cr_adapter *adapter, const struct cr_model *model, const char *dir,
                               const char *method, struct cr_error *err)
{
    struct cr_adapter_base base;
    cr_adapter_base_of(model, &base);
    return cr_adapter_write_peft(adapter, &base, NULL, dir, method, err);
}

cr_status cr_adapter_save_gguf(const struct cr_adapter *adapter, const struct cr_model *model, const char *path,
                               struct cr_error *err)
{
    struct cr_adapter_base base;
    cr_adapter_base_of(model, &base);
    return cr_adapter_write_gguf(adapter, &base, path, err);
}
