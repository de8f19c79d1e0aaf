/* gguf_test: pairs of GGUF files as only tests write them. Failures as of the writer. */
#ifndef CR_TESTS_GGUF_TEST_H
#define CR_TESTS_GGUF_TEST_H

#include "runtime/io/gguf_write.h"

cr_status cr_test_kv_bool(struct cr_gguf_writer *w, const char *key, bool value, struct cr_error *err);

/* The i-th pair of an open file, unchanged; not general.alignment, of which the writer has its own. */
cr_status cr_test_kv_copy(struct cr_gguf_writer *w, const struct cr_gguf *from, size_t i, struct cr_error *err);

#endif
