/* Strict JSON: what is taken, what is refused and where, helpers, atomic writes. */
#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/core/buf.h"
#include "runtime/io/file.h"
#include "runtime/io/json.h"
#include "runtime/io/members.h"
#include "tests/support/io_test.h"
#include "tests/support/kernel_test.h"

#define TEXT(literal) literal, sizeof(literal) - 1

/* From behind an unreadable page's edge, so that a read past the end dies. */
static cr_status parse(const char *text, size_t n, json_t **out, struct cr_error *err)
{
    char *guarded = cr_guard_alloc(n == 0 ? 1 : n, 1, CR_AT_END);
    memcpy(guarded, text, n);
    cr_status status = cr_json_parse(guarded, n, "label", out, err);
    cr_guard_free(guarded);
    return status;
}

/* Grammar, after the categories of the public JSON parsing suites; own cases. */
START_TEST(accepted)
{
    static const struct {
        const char *text;
        size_t n;
    } cases[] = {
        {TEXT("null")},
        {TEXT(" true ")},
        {TEXT("\"x\"")},
        {TEXT("-0")},
        {TEXT("[]")},
        {TEXT("{}")},
        {TEXT("[1e2,1E+2,1e-2,-1.5e0,0.1,-0.0]")},
        {TEXT("9223372036854775807")},
        {TEXT("-9223372036854775808")},
        {TEXT("{\"a\":{\"b\":[1,{\"c\":null}]},\"d\":\"\"}")},
        {TEXT("\t\r\n[ 1 , 2 ]\n")},
        {TEXT("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\\ud83d\\ude00\"")},
        {TEXT("\"\\u0000\"")},
        {TEXT("\"\x7f\xc2\x80\xed\x9f\xbf\xee\x80\x80\xf0\x90\x80\x80\xf4\x8f\xbf\xbf\"")},
        {TEXT("\"\xef\xbb\xbf\"")},
        {TEXT("{\"\":0}")},
        {TEXT("{\"a\\\"b\":0,\"]\":[\"}\"]}")},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct cr_error err = {0};
        json_t *value = NULL;
        ck_assert_msg(parse(cases[i].text, cases[i].n, &value, &err) == CR_OK, "%s: %s", cases[i].text, err.message);
        json_decref(value);
    }
}
END_TEST

static const struct {
    const char *text;
    size_t n;
    const char *message;
} refusals[] = {
    {TEXT(""), "label|byte"},
    {TEXT("   "), "byte"},
    {TEXT("{\"a\":1"), "line 1"},
    {TEXT("[1,]"), "byte 4|line 1|column 4"},
    {TEXT("{\"a\":1,}"), "byte 8"},
    {TEXT("{'a':1}"), "byte"},
    {TEXT("{a:1}"), "byte"},
    {TEXT("[1 2]"), "byte"},
    {TEXT("[1]x"), "end of file expected"},
    {TEXT("[1][2]"), "end of file expected"},
    {TEXT("[\n1,\n2,,\n]"), "line 3"},
    {TEXT("NaN"), "byte"},
    {TEXT("[Infinity]"), "byte"},
    {TEXT("[-Infinity]"), "byte"},
    {TEXT("[1e400]"), "real number overflow"},
    {TEXT("9223372036854775808"), "too big integer"},
    {TEXT("-9223372036854775809"), "too big negative integer"},
    {TEXT("[01]"), "byte"},
    {TEXT("[1.]"), "byte"},
    {TEXT("[.5]"), "byte"},
    {TEXT("[+1]"), "byte"},
    {TEXT("[0x1]"), "byte"},
    {TEXT("[1e]"), "byte"},
    {TEXT("[-]"), "byte"},
    {TEXT("tru"), "byte"},
    {TEXT("True"), "byte"},
    {TEXT("\"abc"), "byte"},
    {TEXT("\"\\x\""), "byte"},
    {TEXT("\"\\u12g4\""), "byte"},
    {TEXT("\"\\u12"), "byte"},
    {TEXT("\"\\"), "byte"},
    {TEXT("\"\\ud800\""), "byte"},
    {TEXT("\"\\ude00\""), "byte"},
    {TEXT("\"\\ud800\\u0041\""), "byte"},
    {TEXT("\"a\nb\""), "byte 2 (0x0a): control character"},
    {TEXT("\"a\tb\""), "byte 2 (0x09): control character"},
    {TEXT("\"a\\\nb\""), "byte 3 (0x0a): control character"},
    {TEXT("[1,\f2]"), "byte 3 (0x0c): control character"},
    {TEXT("\"a\0b\""), "byte 2 (0x00): control character"},
    {TEXT("[1]\0"), "byte 3 (0x00)"},
    {TEXT("\"\xff\""), "byte 1 (0xff): invalid UTF-8"},
    {TEXT("\"\xc3\""), "byte 1 (0xc3): invalid UTF-8"},
    {TEXT("\"ab\xe2\x82"), "byte 3 (0xe2): invalid UTF-8"},
    {TEXT("\"\xc0\xaf\""), "byte 1 (0xc0): invalid UTF-8"},
    {TEXT("\"\xe0\x80\x80\""), "byte 1 (0xe0): invalid UTF-8"},
    {TEXT("\"\xf0\x80\x80\x80\""), "byte 1 (0xf0): invalid UTF-8"},
    {TEXT("\"\xed\xa0\x80\""), "byte 1 (0xed): invalid UTF-8"},
    {TEXT("\"\xf4\x90\x80\x80\""), "byte 1 (0xf4): invalid UTF-8"},
    {TEXT("\"\xf8\x88\x80\x80\x80\""), "byte 1 (0xf8): invalid UTF-8"},
    {TEXT("\"\x80\""), "byte 1 (0x80): invalid UTF-8"},
    {TEXT("[\xc2\xa0]"), "byte"},
    {TEXT("{\"a\":1,\"a\":2}"), "duplicate"},
    {TEXT("{\"a\":1,\"\\u0061\":2}"), "duplicate"},
    {TEXT("{\"a\\u0000b\":1}"), "NUL"},
    {TEXT("\xef\xbb\xbf{}"), "byte-order mark"},
    {TEXT("\xff\xfe{\0}\0"), "UTF-16"},
    {TEXT("\xfe\xff\0{\0}"), "UTF-16"},
    {TEXT("{\0\"\0a\0\"\0"), "UTF-16"},
    {TEXT("\0{\0\"\0a\0\""), "UTF-16"},
    {TEXT("\x1f\x8b\x08\0\0\0"), "gzip"},
    {TEXT("PAR1\x15\x04"), "Parquet"},
    {TEXT("PK\3\4xxxx"), "zip"},
    {TEXT("version https://git-lfs.github.com/spec/v1\noid sha256:00\n"), "Git LFS pointer"},
    {TEXT("\x1b[31m"), "(0x1b)"},
    {TEXT("[\x1b]"), "byte 1 (0x1b)"},
};

START_TEST(refused)
{
    for (size_t i = 0; i < sizeof refusals / sizeof refusals[0]; i++) {
        struct cr_error err = {0};
        json_t *value = NULL;
        cr_expect_error(refusals[i].text, parse(refusals[i].text, refusals[i].n, &value, &err), &err, CR_E_INPUT,
                        refusals[i].message);
        ck_assert_ptr_null(value);
    }
}
END_TEST

static cr_status nested(size_t depth, char open, char close, struct cr_error *err)
{
    struct cr_buf text = {0};
    json_t *value = NULL;
    cr_buf_fill(&text, open, depth);
    cr_buf_fill(&text, close, close != 0 ? depth : 0);
    cr_status status = cr_json_parse(text.data, text.n, "label", &value, err);
    json_decref(value);
    cr_buf_free(&text);
    return status;
}

static const char *deep_failure; /* written by the one thread below */

static void *deep_nesting(void *arg)
{
    struct cr_error *err = arg;
    if (nested(64, '[', ']', err) != CR_OK) {
        deep_failure = "64 levels";
    } else if (nested(65, '[', ']', err) != CR_E_INPUT || strstr(err->message, "byte 64") == NULL) {
        deep_failure = "65 levels";
    } else if (nested(100000, '[', 0, err) != CR_E_INPUT || nested(100000, '{', 0, err) != CR_E_INPUT) {
        deep_failure = "100000 levels";
    }
    return NULL;
}

/* R9: on a stack of 256 KiB. */
START_TEST(depth_limit)
{
    struct cr_error err = {0};
    pthread_attr_t attributes;
    pthread_t thread;
    ck_assert_int_eq(pthread_attr_init(&attributes), 0);
    ck_assert_int_eq(pthread_attr_setstacksize(&attributes, 256 << 10), 0);
    ck_assert_int_eq(pthread_create(&thread, &attributes, deep_nesting, &err), 0);
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
    ck_assert_msg(deep_failure == NULL, "%s: %s", deep_failure, err.message);
}
END_TEST

START_TEST(scan_fault_offset)
{
    size_t fault = 99;
    struct cr_error err = {0};
    ck_assert_int_eq(cr_json_scan(TEXT("{\"a\": \"\xc3\xa9\"}"), NULL, &fault, &err), CR_OK);
    ck_assert_uint_eq(fault, 99);
    cr_expect_error("scan", cr_json_scan(TEXT("{\"a\": \"\xc3(\"}"), NULL, &fault, &err), &err, CR_E_INPUT, "byte 7");
    ck_assert_uint_eq(fault, 7);
    ck_assert(strncmp(err.message, "byte", 4) == 0); /* no label, no prefix */
}
END_TEST

/* A valid document cut at every byte, and with every byte replaced by every value: never a crash, always a verdict. */
START_TEST(cut_and_changed_everywhere)
{
    static const char text[] = "{\"k\\u00e9\":[1,-2.5e3,true,null,\"\xf0\x9f\x98\x80\\n\"],\"z\":{\"\":{}}}";
    size_t n = sizeof text - 1;
    struct cr_error err = {0};
    for (size_t cut = 0; cut < n; cut++) {
        json_t *value = NULL;
        cr_expect_error("cut", parse(text, cut, &value, &err), &err, CR_E_INPUT, "label");
    }
    char changed[sizeof text];
    int accepted_changes = 0;
    memcpy(changed, text, sizeof text);
    for (size_t i = 0; i < n; i++) {
        for (int byte = 0; byte < 256; byte++) {
            json_t *value = NULL;
            changed[i] = (char)byte;
            cr_status status = cr_json_parse(changed, n, "label", &value, &err);
            ck_assert(status == CR_OK || status == CR_E_INPUT);
            ck_assert((value != NULL) == (status == CR_OK));
            accepted_changes += status == CR_OK;
            json_decref(value);
        }
        changed[i] = text[i];
    }
    ck_assert_int_gt(accepted_changes, (int)n); /* at least each byte by itself, and other letters in strings */
}
END_TEST

START_TEST(members)
{
    struct cr_error err = {0};
    json_t *value = NULL;
    ck_assert_int_eq(
        parse(TEXT("{\"s\":\"t\\u0000u\",\"i\":-3,\"r\":1.5,\"b\":true,\"n\":null,\"a\":[]}"), &value, &err), CR_OK);
    const char *s = "default";
    size_t n = 0;
    int64_t i = 7;
    double r = 7;
    bool b = false;
    ck_assert_int_eq(cr_json_get_str(value, "s", true, &s, &n, "f", &err), CR_OK);
    ck_assert_uint_eq(n, 3);
    ck_assert(memcmp(s, "t\0u", 3) == 0);
    ck_assert_int_eq(cr_json_get_int(value, "i", true, -3, 0, &i, "f", &err), CR_OK);
    ck_assert_int_eq(i, -3);
    ck_assert_int_eq(cr_json_get_number(value, "r", true, &r, "f", &err), CR_OK);
    ck_assert(r == 1.5);
    ck_assert_int_eq(cr_json_get_number(value, "i", true, &r, "f", &err), CR_OK);
    ck_assert(r == -3);
    ck_assert_int_eq(cr_json_get_bool(value, "b", true, &b, "f", &err), CR_OK);
    ck_assert(b);
    s = "default";
    ck_assert_int_eq(cr_json_get_str(value, "x", false, &s, NULL, "f", &err), CR_OK);
    ck_assert_int_eq(cr_json_get_str(value, "n", false, &s, NULL, "f", &err), CR_OK);
    ck_assert_str_eq(s, "default");
    cr_expect_error("absent", cr_json_get_str(value, "x", true, &s, NULL, "f", &err), &err, CR_E_INPUT, "f: |\"x\"");
    cr_expect_error("null", cr_json_get_str(value, "n", true, &s, NULL, "f", &err), &err, CR_E_INPUT, "\"n\"|null");
    cr_expect_error("type", cr_json_get_int(value, "r", true, 0, 9, &i, "f", &err), &err, CR_E_INPUT, "\"r\"|real");
    cr_expect_error("type", cr_json_get_int(value, "s", true, 0, 9, &i, "f", &err), &err, CR_E_INPUT, "string");
    cr_expect_error("low", cr_json_get_int(value, "i", true, -2, 9, &i, "f", &err), &err, CR_E_INPUT, "-3|-2 to 9");
    cr_expect_error("high", cr_json_get_int(value, "i", true, -9, -4, &i, "f", &err), &err, CR_E_INPUT, "-9 to -4");
    cr_expect_error("type", cr_json_get_number(value, "b", true, &r, "f", &err), &err, CR_E_INPUT, "\"b\"|true");
    cr_expect_error("type", cr_json_get_bool(value, "i", true, &b, "f", &err), &err, CR_E_INPUT, "\"i\"|integer");
    cr_expect_error("type", cr_json_get_str(value, "a", true, &s, NULL, "f", &err), &err, CR_E_INPUT, "array");
    cr_expect_error("object", cr_json_get_str(json_object_get(value, "a"), "a", true, &s, NULL, "f", &err), &err,
                    CR_E_INPUT, "an array, expected an object");
    cr_expect_error("nothing", cr_json_get_str(NULL, "a", true, &s, NULL, "f", &err), &err, CR_E_INPUT, "nothing");
    json_decref(value);
}
END_TEST

START_TEST(files)
{
    struct cr_error err = {0};
    json_t *value =
        json_pack("{s:i, s:[f, s], s:n, s:[i, f, n, b], s:[], s:s, s:[[i, i], [i]]}", "zeta", 1, "alpha", 0.1,
                  "\xc3\xa9", "mid", "numbers", 1, -0.5, 1, "empty", "text", "\"[ 1, ] \\", "deep", 1, 2, 3);
    const char *path = cr_test_path("v.json");
    ck_assert_msg(cr_json_write(value, path, &err) == CR_OK, "%s", err.message);
    uint8_t *text;
    ck_assert_int_eq(cr_file_read(path, 1000, &text, NULL, &err), CR_OK);
    ck_assert_str_eq((const char *)text,
                     "{\n  \"alpha\": [\n    0.10000000000000001,\n    \"\xc3\xa9\"\n  ],\n  \"deep\": [\n    [1,2],\n"
                     "    [3]\n  ],\n  \"empty\": [],\n  \"mid\": null,\n  \"numbers\": [1,-0.5,null,true],\n"
                     "  \"text\": \"\\\"[ 1, ] \\\\\",\n  \"zeta\": 1\n}\n");
    cr_free(text);
    json_t *again = NULL;
    ck_assert_int_eq(cr_json_load(path, 1000, &again, &err), CR_OK);
    ck_assert(json_equal(value, again));
    json_decref(again);
    cr_expect_error("limit", cr_json_load(path, 10, &again, &err), &err, CR_E_INPUT, "v.json|at most 10");
    cr_expect_error("missing", cr_json_load(cr_test_path("no.json"), 10, &again, &err), &err, CR_E_IO, "no.json");
    cr_test_put_file(cr_test_path("bad\n.json"), "{]", 2);
    cr_expect_error("bad", cr_json_load(cr_test_path("bad\n.json"), 10, &again, &err), &err, CR_E_INPUT,
                    "bad\\n.json|line 1|column 2");
    cr_test_fault(CR_CALL_WRITE, 1, ENOSPC, true);
    cr_status status = cr_json_write(json_null(), path, &err);
    cr_test_fault_off();
    cr_expect_error("full", status, &err, CR_E_IO, "v.json|No space");
    ck_assert_int_eq(cr_json_load(path, 1000, &again, &err), CR_OK); /* the old file is whole */
    json_decref(again);
    json_decref(value);
    ck_assert_int_eq((int)cr_alloc_live(), 0);
}
END_TEST

START_TEST(member_walk)
{
    static const char text[] = " { \"a\" : [1,{\"}\":\"]\\\"\"}] ,\"b\\u0062\":\"x\", \"c\":-1e5 } ";
    static const char *const want[][2] = {
        {"\"a\"", "[1,{\"}\":\"]\\\"\"}]"}, {"\"b\\u0062\"", "\"x\""}, {"\"c\"", "-1e5"}};
    struct cr_members walk = {.text = text, .n = sizeof text - 1, .label = "f"};
    struct cr_error err = {0};
    struct cr_member m;
    bool more = false;
    for (int i = 0; i < 3; i++) {
        ck_assert_msg(cr_members_next(&walk, &m, &more, &err) == CR_OK && more, "%s", err.message);
        ck_assert_uint_eq(m.key_bytes, strlen(want[i][0]));
        ck_assert(memcmp(m.key, want[i][0], m.key_bytes) == 0);
        ck_assert_uint_eq(m.value_bytes, strlen(want[i][1]));
        ck_assert(memcmp(m.value, want[i][1], m.value_bytes) == 0);
    }
    ck_assert_int_eq(cr_members_next(&walk, &m, &more, &err), CR_OK);
    ck_assert(!more);
    static const char *const bad[][2] = {{"", "{"},
                                         {"[]", "{"},
                                         {"{,}", "key"},
                                         {"{\"a\"}", ":"},
                                         {"{\"a\":}", "value"},
                                         {"{\"a\":1", "}"},
                                         {"{\"a\":1,}", "key"},
                                         {"{} x", "end"},
                                         {"{\"a\":[1}", ", or }"},
                                         {"{\"a", "quote"},
                                         {"{\"a\":1 2}", ", or }"}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        walk = (struct cr_members){.text = bad[i][0], .n = strlen(bad[i][0]), .label = "f"};
        cr_status status = CR_OK;
        more = true;
        while (status == CR_OK && more) {
            status = cr_members_next(&walk, &m, &more, &err);
        }
        cr_expect_error(bad[i][0], status, &err, CR_E_INPUT, bad[i][1]);
    }
}
END_TEST

static void make_object(struct cr_buf *text, size_t n)
{
    cr_buf_putc(text, '{');
    for (size_t i = 0; i < n; i++) {
        cr_buf_printf(text, "%s\"key%zu\":[%zu,\"v\"]", i > 0 ? "," : "", i, i);
    }
    cr_buf_putc(text, '}');
}

static void take_object(const struct cr_buf *text)
{
    struct cr_error err;
    json_t *value = NULL;
    ck_assert_int_eq(cr_json_parse(text->data, text->n, NULL, &value, &err), CR_OK);
    json_decref(value);
}

/* R8: 40,000 keys. */
START_TEST(linear_time)
{
    cr_expect_linear_time("keys", 1250, make_object, take_object);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("json");
    TCase *tcase = tcase_create("json");
    tcase_add_checked_fixture(tcase, NULL, cr_test_dir_remove);
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, accepted);
    tcase_add_test(tcase, refused);
    tcase_add_test(tcase, depth_limit);
    tcase_add_test(tcase, scan_fault_offset);
    tcase_add_test(tcase, cut_and_changed_everywhere);
    tcase_add_test(tcase, members);
    tcase_add_test(tcase, files);
    tcase_add_test(tcase, member_walk);
    tcase_add_test(tcase, linear_time);
    suite_add_tcase(suite, tcase);
    return cr_run_suite(suite);
}
