/* A host of libcredence: the version that it was compiled with is the one that runs, and a missing file is a status. */
#include <stdio.h>
#include <string.h>

#include <credence/credence.h>
#include <credence/kernels.h>

static bool emit(void *ctx, const char *text, size_t n_bytes)
{
    (void)text;
    *(size_t *)ctx += n_bytes;
    return true;
}

int main(void)
{
    struct cr_error err;
    struct cr_host host;
    size_t n_bytes = 0;
    memset(&err, 0, sizeof err);
    memset(&host, 0, sizeof host);
    if (strncmp(cr_version_text(), "credence " CREDENCE_VERSION, sizeof "credence " CREDENCE_VERSION - 1) != 0 ||
        strcmp(cr_kernels_version(), CREDENCE_VERSION) != 0) {
        printf("compiled with " CREDENCE_VERSION ", running %s\n", cr_version_text());
        return 1;
    }
    if (cr_info("no-such-file.gguf", emit, &n_bytes, &err) != CR_E_IO || strstr(err.message, "no-such-file") == NULL) {
        printf("info of a missing file: %s\n", err.message);
        return 1;
    }
    cr_status status = cr_cpu_report(&host, emit, &n_bytes, &err);
    printf("%s\n%zu bytes of report\n", cr_version_text(), n_bytes);
    return status == CR_OK && n_bytes > 100 ? 0 : 1;
}
