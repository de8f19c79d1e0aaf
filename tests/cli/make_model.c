/* Writes small files for the tests of the program: make_model vocab|vocab-spm FILE */
#include <stdio.h>
#include <string.h>

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
    return 2;
}
