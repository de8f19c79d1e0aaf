/* model_file: the real model that some tests want. CREDENCE_TEST_MODEL, else the demo's cache. */
#ifndef CR_TESTS_MODEL_FILE_H
#define CR_TESTS_MODEL_FILE_H

#include <stdbool.h>

const char *cr_test_model_path(void); /* static storage */
bool cr_test_model_present(void);

#endif
