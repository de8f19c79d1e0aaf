/* Prediction with a prefix: centroid, draws that no neighbour changes, vertices, the PEFT directory, what is refused.
 */
#include <check.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/posterior/method.h"
#include "runtime/thread/parallel.h"
#include "tests/support/io_test.h"
#include "tests/support/kernel_test.h"
#include "tests/support/tiny_model.h"
#include "tests/support/train_test.h"

enum { N = CR_TRAIN_CHOICES };

static struct cr_parallel serial;

static void train(const char *output, uint32_t vertices, const char *file)
{
    struct cr_train_run run;
    char path[1024];
    snprintf(path, sizeof path, "%s", cr_train_path(file));
    cr_train_run_init(&run, output);
    run.options.method = "prefix";
    run.options.data = path;
    run.options.vertices = vertices;
    run.options.prefix_length = 5;
    run.options.lr = 2e-2;
    run.options.steps = 6;
    cr_train_must(&run);
}

static void setup(void)
{
    cr_train_dir_make();
    cr_parallel_serial(&serial);
    train("three", 3, "choices.jsonl");
}

struct call {
    struct cr_eval_options options;
    struct cr_host host;
    struct cr_error err;
    char model[1024], data[1024], adapter[1024];
    json_t *lines;
};

static bool on_line(void *ctx, const char *line)
{
    json_t *object = json_loads(line, 0, NULL);
    ck_assert_ptr_nonnull(object);
    return json_array_append_new(((struct call *)ctx)->lines, object) == 0;
}

static void call_init(struct call *call, const char *adapter)
{
    memset(call, 0, sizeof *call);
    cr_eval_options_init(&call->options);
    snprintf(call->model, sizeof call->model, "%s", cr_train_path("model.gguf"));
    snprintf(call->data, sizeof call->data, "%s", cr_train_path("other.jsonl"));
    snprintf(call->adapter, sizeof call->adapter, "%s", cr_train_path(adapter));
    call->options.model = call->model;
    call->options.data = call->data;
    call->options.adapter = call->adapter;
    call->host.parallel = &serial;
    call->host.cpu_cap = cr_test_cap();
}

static json_t *predict(struct call *call)
{
    call->lines = json_array();
    cr_status status = cr_predict(&call->options, &call->host, on_line, call, &call->err);
    ck_assert_msg(status == CR_OK, "%s", call->err.message);
    ck_assert_uint_eq(json_array_size(call->lines), N);
    return call->lines;
}

static void refuse(struct call *call, cr_status want, const char *part)
{
    struct cr_eval_result result = {0};
    cr_status status = cr_eval(&call->options, &call->host, &result, &call->err);
    ck_assert_msg(status == want && strstr(call->err.message, part) != NULL, "%d %s (expected %d %s)", status,
                  call->err.message, want, part);
    ck_assert_ptr_null(strchr(call->err.message, '\n'));
}

static double prob(const json_t *lines, size_t i)
{
    return json_real_value(json_array_get(json_object_get(json_array_get(lines, i), "probs"), 0));
}

static bool same_lines(json_t *a, json_t *b)
{
    bool same = json_equal(a, b);
    json_decref(a);
    json_decref(b);
    return same;
}

static json_t *answers(const char *adapter, uint32_t samples, uint64_t seed, uint32_t batch_size, int vertex)
{
    struct call call;
    call_init(&call, adapter);
    call.options.samples = samples;
    call.options.seed = seed;
    call.options.batch_size = batch_size;
    call.options.vertex_set = vertex >= 0;
    call.options.vertex = vertex >= 0 ? (uint32_t)vertex : 0;
    return predict(&call);
}

/* Nothing said is the centroid, which --mean is, too; a checkpoint has the same vertices. */
START_TEST(centroid)
{
    struct call call;
    call_init(&call, "three");
    call.options.mean = true;
    json_t *mean = predict(&call);
    ck_assert(same_lines(answers("three", 0, 0, 0, -1), json_incref(mean)));
    ck_assert(same_lines(answers("three", 0, 9, 4, -1), json_incref(mean)));
    ck_assert(same_lines(answers("three/checkpoints/step-00000006.cck", 0, 0, 0, -1), mean));
}
END_TEST

/* A draw is keyed by seed, sample, example and layer: batches, threads and further samples change nothing. */
START_TEST(draws)
{
    json_t *four = answers("three", 4, 3, 0, -1), *one = answers("three", 1, 3, 0, -1);
    ck_assert(same_lines(answers("three", 4, 3, 1, -1), json_incref(four)));
    ck_assert(same_lines(answers("three", 4, 3, 7, -1), json_incref(four)));
    ck_assert(!same_lines(answers("three", 4, 4, 0, -1), json_incref(four)));
    ck_assert(!same_lines(answers("three", 0, 0, 0, -1), json_incref(one)));
    ck_assert_int_eq(json_integer_value(json_object_get(json_array_get(four, 0), "members")), 4);
    struct cr_parallel pool;
    struct call call;
    cr_parallel_openmp(&pool, 3);
    call_init(&call, "three");
    call.options.samples = 4;
    call.options.seed = 3;
    call.host.parallel = &pool;
    ck_assert(same_lines(predict(&call), json_incref(four)));
    json_decref(four);
    json_decref(one);
}
END_TEST

/* The mean over draws lies between the vertices where the model is nearly linear: here it only has to be a mean of
 * different answers, whose first one is that of one sample. */
START_TEST(members)
{
    json_t *one = answers("three", 1, 3, 0, -1), *two = answers("three", 2, 3, 0, -1);
    size_t differ = 0;
    for (size_t i = 0; i < N; i++) {
        double second = 2 * prob(two, i) - prob(one, i);
        ck_assert(second > 0 && second < 1);
        differ += second != prob(one, i);
    }
    ck_assert_uint_gt(differ, N / 2);
    json_decref(one);
    json_decref(two);
}
END_TEST

START_TEST(vertices)
{
    json_t *each[3];
    for (int j = 0; j < 3; j++) {
        each[j] = answers("three", 0, 0, 0, j);
    }
    ck_assert(!json_equal(each[0], each[1]) && !json_equal(each[1], each[2]) && !json_equal(each[0], each[2]));
    for (int j = 0; j < 3; j++) {
        json_decref(each[j]);
    }
    struct call call;
    call_init(&call, "three");
    call.options.vertex_set = true;
    call.options.vertex = 3;
    refuse(&call, CR_E_USAGE, "has 3, counted from 0");
    call.options.vertex = 0;
    call.options.samples = 2;
    refuse(&call, CR_E_USAGE, "without --mean or --samples");
}
END_TEST

/* A model of texts has no label rows: the exported directory of one vertex answers as the run's own, to the last bit.
 */
START_TEST(peft_directory)
{
    char from[1024], to[1024];
    train("texts", 1, "texts.jsonl");
    snprintf(from, sizeof from, "%s", cr_train_path("texts"));
    snprintf(to, sizeof to, "%s", cr_train_path("peft"));
    struct cr_export_options o = {.size = sizeof o, .adapter = from, .output = to, .format = "peft"};
    ck_assert_int_eq(cr_export(&o, NULL, NULL), CR_OK);
    double nll[3];
    for (int i = 0; i < 3; i++) {
        struct call call;
        struct cr_eval_result result = {0};
        call_init(&call, i == 0 ? "texts" : "peft");
        snprintf(call.data, sizeof call.data, "%s", cr_train_path("texts.jsonl"));
        call.options.adapter = i == 2 ? NULL : call.adapter;
        ck_assert_msg(cr_eval(&call.options, &call.host, &result, &call.err) == CR_OK, "%s", call.err.message);
        nll[i] = result.all.nll;
        cr_eval_result_deinit(&result);
    }
    ck_assert(nll[0] == nll[1] && nll[0] < nll[2]);
    /* one vertex has nothing to draw */
    struct call call;
    call_init(&call, "texts");
    snprintf(call.data, sizeof call.data, "%s", cr_train_path("texts.jsonl"));
    call.options.samples = 2;
    refuse(&call, CR_E_USAGE, "no more than 1 sample");
}
END_TEST

/* A setting of the exported directory that does not fit the rest, or is not supported. */
START_TEST(bad_directories)
{
    static const struct {
        const char *key, *value, *says;
    } bad[] = {
        {"prefix_projection", "true", "only the table itself"},
        {"num_virtual_tokens", "0", "num_virtual_tokens"},
        {"num_virtual_tokens", "257", "num_virtual_tokens"},
        {"num_virtual_tokens", "4", "of shape 4 x"},
        {"num_layers", "3", "a prefix of 3 layers"},
        {"token_dim", "16", "keys of 16 features"},
        {"peft_type", "\"P_TUNING\"", "\"LORA\" or \"PREFIX_TUNING\" expected"},
    };
    char from[1024], to[1024], config[1100];
    snprintf(from, sizeof from, "%s", cr_train_path("three"));
    snprintf(to, sizeof to, "%s", cr_train_path("peft"));
    snprintf(config, sizeof config, "%s/adapter_config.json", to);
    struct cr_export_options o = {.size = sizeof o, .adapter = from, .output = to, .format = "peft"};
    ck_assert_int_eq(cr_export(&o, NULL, NULL), CR_OK);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct call call;
        json_t *whole = json_load_file(config, 0, NULL), *changed = json_deep_copy(whole);
        json_object_set_new(changed, bad[i].key, json_loads(bad[i].value, JSON_DECODE_ANY, NULL));
        ck_assert_int_eq(json_dump_file(changed, config, 0), 0);
        call_init(&call, "peft");
        refuse(&call, CR_E_INPUT, bad[i].says);
        ck_assert_int_eq(json_dump_file(whole, config, 0), 0);
        json_decref(whole);
        json_decref(changed);
    }
    /* every value of the table is looked at */
    size_t n;
    uint8_t *bytes = cr_train_bytes("peft/adapter_model.safetensors", &n);
    bytes[n - 1] = 0x7f;
    bytes[n - 2] = 0xc0;
    cr_train_write("peft/adapter_model.safetensors", bytes, n);
    cr_free(bytes);
    struct call call;
    call_init(&call, "peft");
    refuse(&call, CR_E_INPUT, "nan");
}
END_TEST

static cr_status eval_two(void *arg, struct cr_error *err)
{
    struct call call;
    struct cr_eval_result result = {0};
    (void)arg;
    call_init(&call, "three");
    call.options.samples = 2;
    cr_status status = cr_eval(&call.options, &call.host, &result, err);
    cr_eval_result_deinit(&result);
    return status;
}

/* Memory that cannot be had is an error of its own and leaves nothing behind. */
START_TEST(no_memory)
{
    ck_assert_int_gt(cr_test_alloc_sweep_long("eval", eval_two, NULL, 3), 200);
}
END_TEST

static void other_model(char *path, size_t n, const struct cr_tiny_spec *spec)
{
    struct cr_error err;
    snprintf(path, n, "%s", cr_train_path("other.gguf"));
    ck_assert_msg(cr_tiny_model_file(spec, path, &err) == CR_OK, "%s", err.message);
}

/* Replaces the first `from` in a file by as many bytes. */
static void patch(const char *name, const char *from, const char *to)
{
    size_t n;
    uint8_t *bytes = cr_train_bytes(name, &n);
    size_t at = 0;
    while (at + strlen(from) <= n && memcmp(bytes + at, from, strlen(from)) != 0) {
        at++;
    }
    ck_assert_uint_le(at + strlen(from), n);
    memcpy(bytes + at, to, strlen(from));
    cr_train_write(name, bytes, n);
    cr_free(bytes);
}

START_TEST(refusals)
{
    struct call call;
    call_init(&call, "three");
    call.options.posterior_temperature = 2;
    refuse(&call, CR_E_USAGE, "--posterior-temperature");
    call_init(&call, "three");
    call.options.prune = 0.1;
    refuse(&call, CR_E_USAGE, "--prune");
    call_init(&call, "three");
    call.options.mc_dropout = true;
    refuse(&call, CR_E_USAGE, "--mc-dropout");
    call_init(&call, "three");
    const char *twice[] = {call.adapter, call.adapter};
    call.options.adapters = twice;
    call.options.n_adapters = 2;
    refuse(&call, CR_E_USAGE, "answers alone");

    struct cr_tiny_spec same_shape = {.type = 8, .seed = 77}, other_shape = {.type = 8, .n_layers = 3};
    call_init(&call, "three");
    other_model(call.model, sizeof call.model, &other_shape);
    refuse(&call, CR_E_INPUT, "layers");
    other_model(call.model, sizeof call.model, &same_shape);
    refuse(&call, CR_E_BUSY, "trained on base");

    static const char more[] = "{\"question\":\"which\",\"choices\":[\"a\",\"b\",\"c\"],\"answer\":2}\n";
    call_init(&call, "three");
    cr_train_write("more.jsonl", more, sizeof more - 1);
    snprintf(call.data, sizeof call.data, "%s", cr_train_path("more.jsonl"));
    refuse(&call, CR_E_INPUT, "3 choices, the prefix was trained on label rows for 2");

    patch("three/" CR_POSTERIOR_FILE, "\\\"vertices\\\":3", "\\\"vertices\\\":2");
    call_init(&call, "three");
    refuse(&call, CR_E_INPUT, "shape 3 x 5 x 128, 2 x 5");
    patch("three/" CR_POSTERIOR_FILE, "\\\"vertices\\\":2", "\\\"vertices\\\":3");
    patch("three/" CR_POSTERIOR_FILE, "\\\"offset\\\":5", "\\\"offset\\\":4");
    refuse(&call, CR_E_INPUT, "position 4 behind 5 rows");
    patch("three/" CR_POSTERIOR_FILE, "\\\"offset\\\":4", "\\\"offset\\\":5");
    size_t n;
    uint8_t *bytes = cr_train_bytes("three/" CR_POSTERIOR_FILE, &n);
    bytes[n - 3] ^= 0x10;
    cr_train_write("three/" CR_POSTERIOR_FILE, bytes, n);
    cr_free(bytes);
    refuse(&call, CR_E_INPUT, "the mean of its vertices is not the adapter beside it");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("prefix eval");
    TCase *all = tcase_create("all");
    tcase_set_timeout(all, 60);
    tcase_add_checked_fixture(all, setup, cr_train_dir_drop);
    tcase_add_test(all, centroid);
    tcase_add_test(all, draws);
    tcase_add_test(all, members);
    tcase_add_test(all, vertices);
    tcase_add_test(all, peft_directory);
    tcase_add_test(all, bad_directories);
    tcase_add_test(all, no_memory);
    tcase_add_test(all, refusals);
    suite_add_tcase(suite, all);
    return cr_run_suite(suite);
}
