/* Writes small files for the tests of the program: make_model vocab|vocab-spm|model|model-untied FILE */
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "credence/kernels/dequant.h"
#include "tests/support/tiny_model.h"
#include "tests/support/tiny_vocab.h"

int main(int argc, char **argv)
{
    if (argc != 3) {
        return 2;
    }
    struct cr_tiny_vocab_options spm = {.spm = true};
    if (strcmp(argv[1], "vocab") == 0) {
        return cr_tiny_vocab_write(argv[2], NULL) ? 0 : 1;
    }
    if (strcmp(argv[1], "vocab-spm") == 0) {
        return cr_tiny_vocab_write(argv[2], &spm) ? 0 : 1;
    }
    bool untied = strcmp(argv[1], "model-untied") == 0;
    if (untied || strcmp(argv[1], "model") == 0) {
        struct cr_tiny_spec spec = {.type = CR_Q_Q4_0, .seed = 1, .untied = untied};
        struct cr_error err;
        cr_status status = cr_tiny_model_file(&spec, argv[2], &err);
        if (status != CR_OK) {
            fprintf(stderr, "%s\n", err.message);
        }
        return -status;
    }
    return 2;
}
