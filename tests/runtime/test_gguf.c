/* GGUF: what is written is read back; unusual but valid files. */
#include <check.h>
#include <errno.h>
#include <string.h>

#include "credence/kernels/dequant.h"
#include "runtime/core/alloc.h"
#include "runtime/core/buf.h"
#include "runtime/io/gguf.h"
#include "runtime/io/gguf_write.h"
#include "tests/runtime/gguf_case.h"
#include "tests/support/io_test.h"
#include "tests/support/kernel_test.h"

START_TEST(round_trip)
{
    struct cr_gguf_writer *w = make_writer();
    const char *path = cr_test_path("a b.gguf");
    uint8_t *memory;
    size_t n;
    OK(cr_gguf_writer_write(w, path, &err));
    OK(cr_gguf_writer_to_memory(w, &memory, &n, &err));
    struct cr_gguf *g;
    OK(cr_gguf_open(path, &g, &err));
    ck_assert_uint_eq(cr_gguf_file_bytes(g), n);
    ck_assert(memcmp(cr_gguf_bytes(g), memory, n) == 0);
    ck_assert_str_eq(cr_gguf_label(g), path);
    ck_assert_uint_eq(cr_gguf_version(g), 3);
    ck_assert_uint_eq(cr_gguf_data_offset(g) % 32, 0);
    ck_assert_uint_eq(cr_gguf_trailing_bytes(g), 0);
    ck_assert_uint_eq(cr_gguf_n_kv(g), 8);
    ck_assert_str_eq(cr_gguf_key(g, 1), "llama.block_count");
    ck_assert_uint_eq(cr_gguf_n_tensors(g), 2);
    const struct cr_gguf_tensor *t = cr_gguf_tensor_find(g, "blk.0.w");
    ck_assert_ptr_eq(t, cr_gguf_tensor_at(g, 0));
    ck_assert_uint_eq(t->n_dims, 2);
    ck_assert(t->ne[0] == 64 && t->ne[1] == 2 && t->ne[2] == 1 && t->ne[3] == 1);
    ck_assert_int_eq(t->type, CR_Q_Q8_0);
    ck_assert_uint_eq(t->bytes, 136);
    t = cr_gguf_tensor_find(g, "norm");
    ck_assert_uint_eq(t->offset, 160);
    ck_assert(memcmp(t->data, (const float[]){-64, -63, -62, -61, -60}, 20) == 0);
    ck_assert_ptr_null(cr_gguf_tensor_find(g, "nor"));
    ck_assert_ptr_null(cr_gguf_tensor_find(g, "normal"));
    ck_assert(!cr_gguf_changed(g));
    cr_gguf_close(g);
    cr_gguf_close(NULL);
    cr_free(memory);
    cr_gguf_writer_destroy(w);
    ck_assert_int_eq((int)cr_alloc_live(), 0);
}
END_TEST

/* A copy of all pairs of a file gives the same pairs, byte for byte. */
START_TEST(pairs_copied)
{
    struct cr_gguf_writer *w = make_writer(), *copy = cr_gguf_writer_create();
    uint8_t *first, *second;
    size_t n, m;
    OK(cr_gguf_writer_kv_raw(w, "flags", CR_GGUF_ARRAY, "\7\0\0\0\2\0\0\0\0\0\0\0\1\0", 14, &err));
    OK(cr_gguf_writer_kv_str_array(w, "none", NULL, 0, &err));
    OK(cr_gguf_writer_to_memory(w, &first, &n, &err));
    struct cr_gguf *g = parse(first, n);
    for (size_t i = 0; i < cr_gguf_n_kv(g); i++) {
        OK(cr_test_kv_copy(copy, g, i, &err));
    }
    for (size_t i = 0; i < cr_gguf_n_tensors(g); i++) {
        const struct cr_gguf_tensor *t = cr_gguf_tensor_at(g, i);
        OK(cr_gguf_writer_tensor(copy, t->name, t->type, t->n_dims, t->ne, t->data, (size_t)t->bytes, &err));
    }
    OK(cr_gguf_writer_to_memory(copy, &second, &m, &err));
    ck_assert_uint_eq(n, m);
    ck_assert(memcmp(first, second, n) == 0);
    cr_gguf_close(g);
    cr_free(first);
    cr_free(second);
    cr_gguf_writer_destroy(w);
    cr_gguf_writer_destroy(copy);
    ck_assert_int_eq((int)cr_alloc_live(), 0);
}
END_TEST

START_TEST(writer_refusals)
{
    struct cr_gguf_writer *w = make_writer();
    uint8_t *before, *after;
    size_t n, m;
    char name[65];
    memset(name, 'n', 64);
    name[64] = '\0';
    const float x[64] = {0};
    OK(cr_gguf_writer_to_memory(w, &before, &n, &err));
    cr_expect_error("key twice", cr_gguf_writer_kv_u32(w, "odd", 1, &err), &err, CR_E_USAGE, "odd|twice");
    cr_expect_error("no key", cr_gguf_writer_kv_u32(w, "", 1, &err), &err, CR_E_USAGE, "0 bytes");
    cr_expect_error("alignment", cr_gguf_writer_kv_u32(w, "general.alignment", 64, &err), &err, CR_E_USAGE, "64");
    const struct {
        const char *name;
        int type;
        uint32_t n_dims;
        uint64_t ne[4];
        size_t bytes;
    } tensors[] = {
        {"norm", CR_Q_F32, 1, {64}, 256},
        {"", CR_Q_F32, 1, {64}, 256},
        {name, CR_Q_F32, 1, {64}, 256},
        {"x", CR_Q_F32, 1, {64}, 255},
        {"x", CR_Q_F32, 0, {64}, 4},
        {"x", CR_Q_F32, 5, {2, 2, 2, 2}, 64},
        {"x", CR_Q_Q8_0, 1, {63}, 68},
        {"x", 4, 1, {64}, 64},
        {"x", 999, 1, {64}, 64},
        {"x", CR_Q_F32, 2, {0, 64}, 0},
        {"x", CR_Q_F32, 2, {1ull << 33, 1ull << 33}, 0},
    };
    for (size_t i = 0; i < sizeof tensors / sizeof tensors[0]; i++) {
        cr_status status = cr_gguf_writer_tensor(w, tensors[i].name, tensors[i].type, tensors[i].n_dims, tensors[i].ne,
                                                 x, tensors[i].bytes, &err);
        cr_expect_error("tensor", status, &err, CR_E_USAGE, "GGUF tensor");
    }
    OK(cr_gguf_writer_to_memory(w, &after, &m, &err));
    ck_assert_uint_eq(n, m);
    ck_assert(memcmp(before, after, n) == 0);
    cr_expect_error("path", cr_gguf_writer_write(w, cr_test_path("no/x"), &err), &err, CR_E_IO, "no/x");
    cr_test_fault(CR_CALL_WRITE, 2, ENOSPC, true);
    cr_status status = cr_gguf_writer_write(w, cr_test_path("x"), &err);
    cr_test_fault_off();
    cr_expect_error("full", status, &err, CR_E_IO, "No space");
    ck_assert_int_eq(cr_test_count_files(cr_test_dir(), ""), 0);
    cr_free(before);
    cr_free(after);
    cr_gguf_writer_destroy(w);
    cr_gguf_writer_destroy(NULL);
    ck_assert_int_eq((int)cr_alloc_live(), 0);
}
END_TEST

/* OK-01, OK-02, OK-03 and GG-63: version 2; alignments, also as last key; no keys, no tensors; trailing bytes. */
START_TEST(unusual_files)
{
    static const uint32_t alignments[] = {8, 64, 4096, 1u << 20};
    const float x[3] = {1, 2, 3};
    for (size_t i = 0; i < 4; i++) {
        uint32_t alignment = alignments[i];
        struct cr_buf file = {0};
        cr_buf_puts(&file, "GGUF");
        cr_buf_u32(&file, 2 + i % 2);
        cr_buf_u64(&file, 2);
        cr_buf_u64(&file, 2);
        cr_buf_u64(&file, 3);
        cr_buf_puts(&file, "Key");
        cr_buf_u32(&file, CR_GGUF_STRING);
        cr_buf_u64(&file, 0);
        cr_buf_u64(&file, 17);
        cr_buf_puts(&file, "general.alignment");
        cr_buf_u32(&file, CR_GGUF_U32);
        cr_buf_u32(&file, alignment);
        for (uint64_t t = 0; t < 2; t++) {
            cr_buf_u64(&file, 1);
            cr_buf_putc(&file, (char)('a' + t));
            cr_buf_u32(&file, 1);
            cr_buf_u64(&file, 3);
            cr_buf_u32(&file, CR_Q_F32);
            cr_buf_u64(&file, t * (alignment < 12 ? 16 : alignment));
        }
        for (int t = 0; t < 2; t++) {
            cr_buf_fill(&file, 0, (alignment - file.n % alignment) % alignment);
            cr_buf_append(&file, x, sizeof x);
        }
        size_t end = file.n; /* the last pad is missing: tolerated */
        struct cr_gguf *g = parse((const uint8_t *)file.data, file.n);
        ck_assert(memcmp(cr_gguf_tensor_find(g, "b")->data, x, sizeof x) == 0);
        ck_assert_uint_eq(cr_gguf_trailing_bytes(g), 0);
        cr_gguf_close(g);
        cr_buf_fill(&file, 0, (alignment - end % alignment) % alignment + 5);
        g = parse((const uint8_t *)file.data, file.n);
        ck_assert_uint_eq(cr_gguf_trailing_bytes(g), 5);
        cr_gguf_close(g);
        cr_buf_free(&file);
    }
    struct cr_gguf *g = parse((const uint8_t *)"GGUF\3\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 24);
    ck_assert_uint_eq(cr_gguf_n_kv(g), 0);
    ck_assert_ptr_null(cr_gguf_tensor_find(g, "x"));
    ck_assert(!cr_gguf_find(g, "x", NULL));
    cr_gguf_close(g);
    ck_assert_int_eq((int)cr_alloc_live(), 0);
}
END_TEST

/* Every type of the table in a file. */
START_TEST(every_known_type)
{
    for (int type = 0; type < 64; type++) {
        const struct cr_qtype_info *info = cr_qtype_info(type);
        if (info == NULL || info->removed) {
            continue;
        }
        static const uint8_t block[512];
        ck_assert_uint_le(info->block_bytes, sizeof block);
        struct cr_gguf_writer *w = cr_gguf_writer_create();
        uint8_t *memory;
        size_t n;
        OK(cr_gguf_writer_tensor(w, "t", type, 1, (const uint64_t[]){info->block_values}, block, info->block_bytes,
                                 &err));
        OK(cr_gguf_writer_to_memory(w, &memory, &n, &err));
        struct cr_gguf *g = parse(memory, n);
        ck_assert_uint_eq(cr_gguf_tensor_at(g, 0)->bytes, info->block_bytes);
        cr_gguf_close(g);
        cr_free(memory);
        cr_gguf_writer_destroy(w);
    }
}
END_TEST

/* n keys and n tensors whose names share a long prefix, the keys backwards. */
static void make_names(struct cr_buf *file, size_t n)
{
    cr_buf_puts(file, "GGUF");
    cr_buf_u32(file, 3);
    cr_buf_u64(file, n);
    cr_buf_u64(file, n);
    for (size_t i = 0; i < n; i++) {
        cr_buf_u64(file, 46);
        cr_buf_printf(file, "prefix.prefix.prefix.prefix.prefix.prefix%05zu", n - 1 - i);
        cr_buf_u32(file, CR_GGUF_U8);
        cr_buf_putc(file, 1);
    }
    for (size_t i = 0; i < n; i++) {
        cr_buf_u64(file, 46);
        cr_buf_printf(file, "prefix.prefix.prefix.prefix.prefix.prefix%05zu", i);
        cr_buf_u32(file, 1);
        cr_buf_u64(file, 1);
        cr_buf_u32(file, CR_Q_F32);
        cr_buf_u64(file, 32 * i);
    }
    cr_buf_fill(file, 0, 32 * n + 32);
}

static void take_names(const struct cr_buf *file)
{
    cr_gguf_close(parse((const uint8_t *)file->data, file->n));
}

/* R8: 65,536 keys and tensors open in time that grows like n log n. */
START_TEST(many_names)
{
    cr_expect_linear_time("names", 2048, make_names, take_names);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("gguf");
    TCase *tcase = tcase_create("gguf");
    tcase_add_checked_fixture(tcase, NULL, cr_test_dir_remove);
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, round_trip);
    tcase_add_test(tcase, pairs_copied);
    tcase_add_test(tcase, writer_refusals);
    tcase_add_test(tcase, unusual_files);
    tcase_add_test(tcase, every_known_type);
    tcase_add_test(tcase, many_names);
    suite_add_tcase(suite, tcase);
    return cr_run_suite(suite);
}
