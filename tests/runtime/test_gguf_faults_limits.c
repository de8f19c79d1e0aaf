/* GGUF files that must be refused for their size: names, counts, depths, products (ids in the comments and labels);
 * every allocation failing. */
#include <check.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "credence/kernels/dequant.h"
#include "runtime/core/alloc.h"
#include "runtime/core/buf.h"
#include "runtime/io/gguf.h"
#include "runtime/io/gguf_write.h"
#include "tests/runtime/gguf_faults_case.h"
#include "tests/support/io_test.h"
#include "tests/support/kernel_test.h"

/* Sizes that need a longer file than the base: key and string lengths around their limits. */
START_TEST(name_limits)
{
    for (size_t length = 65534; length <= 65536; length++) {
        struct cr_buf file = {0};
        struct cr_error err;
        cr_buf_puts(&file, "GGUF");
        cr_buf_u32(&file, 3);
        cr_buf_u64(&file, 0);
        cr_buf_u64(&file, 1);
        cr_buf_u64(&file, length);
        cr_buf_fill(&file, 'k', length);
        cr_buf_u32(&file, CR_GGUF_U8);
        cr_buf_putc(&file, 0);
        if (length <= 65535) {
            ck_assert_int_eq(verdict(file.data, file.n, &err), CR_OK);
        } else {
            refuse("key of 65536", file.data, file.n, "key length 65536, at most 65535");
        }
        cr_buf_free(&file);
    }
    for (size_t length = 62; length <= 64; length++) { /* GG-30 */
        struct cr_buf file = {0};
        struct cr_error err;
        cr_buf_puts(&file, "GGUF");
        cr_buf_u32(&file, 3);
        cr_buf_u64(&file, 1);
        cr_buf_u64(&file, 0);
        cr_buf_u64(&file, length);
        cr_buf_fill(&file, 't', length);
        cr_buf_u32(&file, 1);
        cr_buf_u64(&file, 1);
        cr_buf_u32(&file, CR_Q_F32);
        cr_buf_u64(&file, 0);
        cr_buf_fill(&file, 0, 64);
        if (length <= 63) {
            ck_assert_int_eq(verdict(file.data, file.n, &err), CR_OK);
        } else {
            refuse("name of 64", file.data, file.n, "name length 64, at most 63");
        }
        cr_buf_free(&file);
    }
}
END_TEST

/* Counts and sizes at their limits and one above; the memory behind them is never touched. */
START_TEST(count_limits)
{
    struct cr_error err = {0};
    struct cr_gguf *g = NULL;
    size_t n = (size_t)80 << 20;
    uint8_t *file = calloc(1, n);
    ck_assert_ptr_nonnull(file);
    static const struct {
        uint64_t n_tensors, n_kv;
        const char *message;
    } counts[] = {{65536, 0, "tensor 0|length 0"},
                  {65537, 0, "n_tensors 65537, at most 65536 allowed"},
                  {0, 65536, "key 0|length 0"},
                  {0, 65537, "n_kv 65537, at most 65536 allowed"}};
    for (size_t i = 0; i < 4; i++) {
        struct cr_buf head = {0};
        cr_buf_puts(&head, "GGUF");
        cr_buf_u32(&head, 3);
        cr_buf_u64(&head, counts[i].n_tensors);
        cr_buf_u64(&head, counts[i].n_kv);
        memcpy(file, head.data, head.n);
        cr_expect_error("counts", cr_gguf_parse(file, n, "x", &g, &err), &err, CR_E_INPUT, counts[i].message);
        cr_buf_free(&head);
    }
    for (uint64_t above = 0; above < 2; above++) {
        struct base b = {0};
        cr_buf_puts(&b.file, "GGUF");
        cr_buf_u32(&b.file, 3);
        cr_buf_u64(&b.file, 0);
        cr_buf_u64(&b.file, 1);
        put_key(&b, "s", CR_GGUF_STRING, -1, -1, -1);
        cr_buf_u64(&b.file, (64u << 20) + above);
        memcpy(file, b.file.data, b.file.n);
        cr_status status = cr_gguf_parse(file, n, "x", &g, &err);
        if (above == 0) {
            ck_assert_msg(status == CR_OK, "%s", err.message);
            cr_gguf_close(g);
            g = NULL;
        } else {
            cr_expect_error("string", status, &err, CR_E_INPUT, "\"s\"|67108865, at most 67108864 allowed");
        }
        cr_buf_free(&b.file);
    }
    free(file);
}
END_TEST

static void *nested_arrays(void *arg)
{
    struct cr_error *err = arg;
    struct base b = {0};
    cr_buf_puts(&b.file, "GGUF");
    cr_buf_u32(&b.file, 3);
    cr_buf_u64(&b.file, 0);
    cr_buf_u64(&b.file, 1);
    put_key(&b, "deep", CR_GGUF_ARRAY, -1, -1, -1);
    for (int i = 0; i < 10000; i++) {
        cr_buf_u32(&b.file, CR_GGUF_ARRAY);
        cr_buf_u64(&b.file, 1);
    }
    struct cr_gguf *g = NULL;
    err->status = cr_gguf_parse((const uint8_t *)b.file.data, b.file.n, "model.gguf", &g, err);
    cr_buf_free(&b.file);
    return NULL;
}

/* GG-21 and R9: depth 10,000 on a stack of 256 KiB. */
START_TEST(deep_arrays)
{
    struct cr_error err = {0};
    pthread_attr_t attributes;
    pthread_t thread;
    ck_assert_int_eq(pthread_attr_init(&attributes), 0);
    ck_assert_int_eq(pthread_attr_setstacksize(&attributes, 256 << 10), 0);
    ck_assert_int_eq(pthread_create(&thread, &attributes, nested_arrays, &err), 0);
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
    cr_expect_error("GG-21", err.status, &err, CR_E_INPUT, "deep|array of arrays");
}
END_TEST

/* Four dimensions below their limit whose product wraps 64 bits; and sums of padded sizes that would. */
START_TEST(products_wrap)
{
    struct cr_buf file = {0};
    cr_buf_puts(&file, "GGUF");
    cr_buf_u32(&file, 3);
    cr_buf_u64(&file, 1);
    cr_buf_u64(&file, 0);
    cr_buf_u64(&file, 1);
    cr_buf_puts(&file, "t");
    cr_buf_u32(&file, 4);
    size_t dims = file.n;
    for (int d = 0; d < 4; d++) {
        cr_buf_u64(&file, 1 << 20);
    }
    cr_buf_u32(&file, CR_Q_F32);
    cr_buf_u64(&file, 0);
    cr_buf_fill(&file, 0, 64);
    refuse("product", file.data, file.n, "\"t\"|beyond 2^63");
    file.data[dims + 26] = 0; /* the last dimension 2^20 becomes 2^10 : 2^72 bytes */
    file.data[dims + 25] = 4;
    refuse("product 2", file.data, file.n, "\"t\"|beyond 2^63");
    cr_buf_free(&file);
    cr_buf_puts(&file, "GGUF");
    cr_buf_u32(&file, 3);
    cr_buf_u64(&file, 3);
    cr_buf_u64(&file, 0);
    for (uint64_t t = 0; t < 3; t++) { /* 2^62 bytes each: the sum passes 2^63 with the second */
        cr_buf_u64(&file, 1);
        cr_buf_putc(&file, (char)('a' + t));
        cr_buf_u32(&file, 2);
        cr_buf_u64(&file, 1u << 30);
        cr_buf_u64(&file, 1u << 30);
        cr_buf_u32(&file, CR_Q_F32);
        cr_buf_u64(&file, t << 62);
    }
    cr_buf_fill(&file, 0, 64);
    refuse("sum", file.data, file.n, "\"b\"|beyond 2^63");
    cr_buf_free(&file);
}
END_TEST

/* R5 and R6: what is allocated while refusing an enormous declared count does not depend on it. */
START_TEST(counts_do_not_allocate)
{
    static const struct {
        enum field field;
        uint64_t value;
    } cases[] = {{N_KV, 1000000000}, {N_TENSORS, 1ull << 40}, {ITEM_COUNT, 1ull << 32}, {STRING_LENGTH, 1 << 30}};
    for (size_t i = 0; i < 4; i++) {
        struct base b = make_base();
        struct cr_error err;
        struct cr_gguf *g = NULL;
        patch(&b, cases[i].field, 8, cases[i].value);
        long before = cr_alloc_count();
        ck_assert_int_eq(cr_gguf_parse((const uint8_t *)b.file.data, b.file.n, "x", &g, &err), CR_E_INPUT);
        ck_assert_int_le(cr_alloc_count() - before, 3); /* the object, its label, at most the table of 5 pairs */
        cr_buf_free(&b.file);
    }
}
END_TEST

struct memory {
    const uint8_t *data;
    size_t n;
    const char *path;
};

static cr_status parse_op(void *arg, struct cr_error *err)
{
    struct memory *m = arg;
    struct cr_gguf *g = NULL;
    cr_status status = cr_gguf_parse(m->data, m->n, "model.gguf", &g, err);
    cr_gguf_close(g);
    return status;
}

static cr_status open_op(void *arg, struct cr_error *err)
{
    struct memory *m = arg;
    struct cr_gguf *g = NULL;
    cr_status status = cr_gguf_open(m->path, &g, err);
    cr_gguf_close(g);
    return status;
}

static cr_status write_op(void *arg, struct cr_error *err)
{
    struct memory *m = arg;
    static const char *const words[] = {"a", "bc"};
    static const float x[40];
    struct cr_gguf_writer *w = cr_gguf_writer_create();
    uint8_t *memory = NULL;
    size_t n;
    cr_status status = w != NULL ? CR_OK : cr_fail(err, CR_E_MEMORY, "no memory");
    char key[300];
    memset(key, 'k', sizeof key - 1);
    key[sizeof key - 1] = '\0';
    if (status != CR_OK) {
        goto out;
    }
    CR_TRY_OUT(status, cr_gguf_writer_kv_str_array(w, "s", words, 2, err));
    CR_TRY_OUT(status, cr_gguf_writer_kv_u32(w, key, 2, err));
    CR_TRY_OUT(status, cr_gguf_writer_tensor(w, "t", CR_Q_F32, 1, (const uint64_t[]){40}, x, sizeof x, err));
    CR_TRY_OUT(status, cr_gguf_writer_write(w, m->path, err));
    CR_TRY_OUT(status, cr_gguf_writer_to_memory(w, &memory, &n, err));
out:
    cr_free(memory);
    cr_gguf_writer_destroy(w);
    return status;
}

START_TEST(allocations_fail)
{
    struct base b = make_base();
    char path[1024];
    snprintf(path, sizeof path, "%s", cr_test_path("m.gguf"));
    cr_test_put_file(path, b.file.data, b.file.n);
    struct memory m = {(const uint8_t *)b.file.data, b.file.n, path};
    ck_assert_int_eq((int)cr_test_alloc_sweep("parse", parse_op, &m), 8);
    ck_assert_int_eq((int)cr_test_alloc_sweep("open", open_op, &m), 8);
    cr_buf_free(&b.file);
    snprintf(path, sizeof path, "%s", cr_test_path("w.gguf"));
    ck_assert_int_ge((int)cr_test_alloc_sweep("write", write_op, &m), 10);
    ck_assert_int_eq(cr_test_count_files(cr_test_dir(), ".tmp."), 0);
    ck_assert_int_eq((int)cr_alloc_live(), 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("gguf_faults limits");
    TCase *tcase = tcase_create("gguf_faults limits");
    tcase_add_checked_fixture(tcase, NULL, cr_test_dir_remove);
    tcase_set_timeout(tcase, 120);
    tcase_add_test(tcase, name_limits);
    tcase_add_test(tcase, count_limits);
    tcase_add_test(tcase, deep_arrays);
    tcase_add_test(tcase, products_wrap);
    tcase_add_test(tcase, counts_do_not_allocate);
    tcase_add_test(tcase, allocations_fail);
    suite_add_tcase(suite, tcase);
    return cr_run_suite(suite);
}
