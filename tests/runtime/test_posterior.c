/* Prediction with posteriors: draws against the same weights exported one by one, means, mixtures, dropout, scores of
 * examples from elsewhere, refusals of posteriors that do not belong. */
#include <check.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/core/alloc.h"
#include "runtime/core/buf.h"
#include "runtime/eval/metrics.h"
#include "runtime/eval/sets.h"
#include "runtime/adapter/files.h"
#include "runtime/posterior/method.h"
#include "runtime/posterior/posterior.h"
#include "runtime/thread/parallel.h"
#include "tests/support/kernel_test.h"
#include "tests/support/tiny_model.h"
#include "tests/support/train_test.h"

enum { SAMPLES = 4, N = CR_TRAIN_CHOICES };

static struct cr_parallel serial;
static char model[1024], data[1024], other[1024];

static void train_ivon(const char *output, const char *file, uint64_t seed)
{
    struct cr_train_run run;
    cr_train_run_init(&run, output);
    run.options.method = "ivon";
    run.options.data = file;
    run.options.lr = 0.2;
    run.options.clip_radius = 0.01;
    run.options.ess = 2e5;
    run.options.steps = 6;
    run.options.seed = seed;
    cr_train_must(&run);
}

static void train_adamw(const char *output, const char *targets, uint32_t rank, double dropout)
{
    struct cr_train_run run;
    cr_train_run_init(&run, output);
    run.options.targets = targets;
    run.options.rank = rank;
    run.options.dropout = dropout;
    run.options.steps = 6;
    run.options.lr = 2e-2;
    run.options.seed = rank;
    cr_train_must(&run);
}

static void setup(void)
{
    cr_train_dir_make();
    cr_parallel_serial(&serial);
    snprintf(model, sizeof model, "%s", cr_train_path("model.gguf"));
    snprintf(data, sizeof data, "%s", cr_train_path("choices.jsonl"));
    snprintf(other, sizeof other, "%s", cr_train_path("other.jsonl"));
    train_ivon("ivon", data, 0);
}

/* One evaluation or prediction. Paths of adapters are kept here. */
struct call {
    struct cr_eval_options options;
    struct cr_host host;
    struct cr_error err;
    struct cr_eval_result result;
    const char *adapters[3];
    char paths[3][1024], data[1024];
    json_t *lines; /* of predict */
    char first_warning[256];
};

static void on_log(void *ctx, enum cr_log_level level, const char *line)
{
    struct call *call = ctx;
    if (level == CR_LOG_WARNING && call->first_warning[0] == '\0') {
        snprintf(call->first_warning, sizeof call->first_warning, "%s", line);
    }
}

static bool on_line(void *ctx, const char *line)
{
    struct call *call = ctx;
    json_t *value = json_loads(line, 0, NULL);
    ck_assert_ptr_nonnull(value);
    json_array_append_new(call->lines, value);
    return true;
}

static void add_adapter(struct call *call, const char *name)
{
    char *path = call->paths[call->options.n_adapters];
    snprintf(path, sizeof call->paths[0], "%s", cr_train_path(name));
    call->adapters[call->options.n_adapters++] = path;
    call->options.adapters = call->adapters;
}

static void use_data(struct call *call, const char *name)
{
    snprintf(call->data, sizeof call->data, "%s", cr_train_path(name));
    call->options.data = call->data;
}

static void call_init(struct call *call, const char *adapter)
{
    memset(call, 0, sizeof *call);
    cr_eval_options_init(&call->options);
    call->options.model = model;
    use_data(call, "other.jsonl");
    call->host = (struct cr_host){.parallel = &serial, .log = on_log, .ctx = call};
    call->lines = json_array();
    if (adapter != NULL) {
        add_adapter(call, adapter);
    }
}

static void call_free(struct call *call)
{
    cr_eval_result_deinit(&call->result);
    json_decref(call->lines);
}

static void eval(struct call *call)
{
    ck_assert_msg(cr_eval(&call->options, &call->host, &call->result, &call->err) == CR_OK, "%s", call->err.message);
}

static void predict(struct call *call)
{
    ck_assert_msg(cr_predict(&call->options, &call->host, on_line, call, &call->err) == CR_OK, "%s", call->err.message);
}

static void refuse(struct call *call, cr_status want, const char *part)
{
    cr_status status = cr_eval(&call->options, &call->host, &call->result, &call->err);
    ck_assert_msg(status == want && strstr(call->err.message, part) != NULL, "%d %s (expected %d %s)", status,
                  call->err.message, want, part);
    ck_assert_ptr_null(strchr(call->err.message, '\n'));
    call_free(call);
}

static const json_t *line_of(const struct call *call, size_t i)
{
    return json_array_get(call->lines, i);
}

static double real(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    ck_assert_msg(json_is_number(value), "%s", key);
    return json_number_value(value);
}

static double prob(const struct call *call, size_t i, size_t c)
{
    return json_number_value(json_array_get(json_object_get(line_of(call, i), "probs"), c));
}

static void export_set(const char *adapter, const char *output, bool sample, uint32_t k, double prune)
{
    char from[1024], to[1024];
    struct cr_error err = {0};
    snprintf(from, sizeof from, "%s", cr_train_path(adapter));
    snprintf(to, sizeof to, "%s", cr_train_path(output));
    struct cr_export_options o = {.size = sizeof o, .adapter = from, .output = to, .format = "peft"};
    o.mean = !sample;
    o.sample_set = sample;
    o.sample = k;
    o.prune = prune;
    ck_assert_msg(cr_export(&o, NULL, &err) == CR_OK, "%s", err.message);
}

/* Exported one by one and asked alone, the draws give what they give together, to the last bit. */
START_TEST(samples_are_exported_samples)
{
    struct call together, alone[SAMPLES];
    call_init(&together, "ivon");
    together.options.samples = SAMPLES;
    predict(&together);
    for (uint32_t s = 0; s < SAMPLES; s++) {
        char name[32];
        snprintf(name, sizeof name, "sample%u", s);
        export_set("ivon", name, true, s, 0);
        call_init(&alone[s], name);
        predict(&alone[s]);
        ck_assert_ptr_null(strstr(alone[s].first_warning, CR_POSTERIOR_FILE)); /* a point, and that is all right */
    }
    ck_assert_uint_eq(json_array_size(together.lines), N);
    double spread = 0;
    for (size_t i = 0; i < N; i++) {
        double members[SAMPLES][2], mean[2];
        size_t differ = 0;
        for (int s = 0; s < SAMPLES; s++) {
            for (size_t c = 0; c < 2; c++) {
                members[s][c] = prob(&alone[s], i, c);
            }
            spread = fmax(spread, fabs(members[s][0] - members[0][0]));
        }
        cr_mean_probs(members[0], SAMPLES, 2, mean);
        const json_t *line = line_of(&together, i);
        ck_assert(prob(&together, i, 0) == mean[0] && prob(&together, i, 1) == mean[1]);
        ck_assert(json_is_null(json_object_get(line, "logits")));
        ck_assert(real(line, "entropy") == cr_entropy(mean, 2));
        ck_assert(real(line, "expected_entropy") == cr_expected_entropy(members[0], SAMPLES, 2));
        ck_assert(real(line, "mutual_information") == cr_mutual_information(members[0], SAMPLES, 2, mean));
        double logit = 0;
        for (int s = 0; s < SAMPLES; s++) {
            logit += log(members[s][1] / members[s][0]);
        }
        for (int s = 0; s < SAMPLES; s++) {
            differ += (members[s][1] > members[s][0]) != (logit > 0);
        }
        ck_assert(real(line, "disagreement") == (double)differ / SAMPLES);
        ck_assert(real(line, "members") == SAMPLES);
    }
    ck_assert_double_gt(spread, 1e-3); /* they are different models */
    for (int s = 0; s < SAMPLES; s++) {
        call_free(&alone[s]);
    }
    call_free(&together);
}
END_TEST

/* The figures after k members are those of an evaluation with k samples; the last are those of the whole. */
START_TEST(running_figures)
{
    struct call all;
    call_init(&all, "ivon");
    use_data(&all, _i == 0 ? "other.jsonl" : "texts.jsonl");
    all.options.samples = SAMPLES;
    char json[1024];
    snprintf(json, sizeof json, "%s", cr_train_path("eval.json"));
    all.options.json = json;
    eval(&all);
    ck_assert_uint_eq(all.result.n_members, SAMPLES);
    ck_assert_uint_eq(all.result.samples, SAMPLES);
    for (uint32_t k = 1; k <= SAMPLES; k++) {
        struct call some;
        call_init(&some, "ivon");
        use_data(&some, _i == 0 ? "other.jsonl" : "texts.jsonl");
        some.options.samples = k;
        eval(&some);
        for (size_t g = 0; g <= some.result.n_groups; g++) {
            const struct cr_group_metrics *want = g == 0 ? &some.result.all : &some.result.groups[g - 1];
            const struct cr_group_metrics *got = &all.result.running[g * SAMPLES + k - 1];
            ck_assert_str_eq(got->task, want->task);
            ck_assert(got->nll == want->nll);
            ck_assert(_i == 1 ? got->perplexity == want->perplexity
                              : got->accuracy == want->accuracy && got->ece == want->ece && got->brier == want->brier);
        }
        ck_assert_ptr_eq(k == 1 ? some.result.running : NULL, NULL);
        call_free(&some);
    }
    ck_assert(all.result.running[SAMPLES - 1].nll == all.result.all.nll);
    json_t *file = json_load_file(json, 0, NULL);
    const json_t *group = json_object_get(file, "all");
    ck_assert(real(file, "samples") == SAMPLES && real(file, "members") == SAMPLES);
    ck_assert_uint_eq(json_array_size(json_object_get(group, "running")), SAMPLES);
    ck_assert(real(json_array_get(json_object_get(group, "running"), 1), "nll") == all.result.running[1].nll);
    if (_i == 0) {
        ck_assert_double_eq_tol(real(group, "entropy") - real(group, "expected_entropy"),
                                real(group, "mutual_information"), 1e-12);
    }
    json_decref(file);
    call_free(&all);
}
END_TEST

/* Texts of one target token: the NLL is that of the mean of the members' probabilities. */
START_TEST(averaged_token_distribution)
{
    struct cr_buf buf = {0};
    for (int i = 0; i < 6; i++) {
        cr_buf_printf(&buf, "{\"text\":\"%c\"}\n", 'a' + i); /* the letter, then the end */
    }
    cr_train_write("letters.jsonl", buf.data, buf.n);
    cr_buf_free(&buf);
    struct call together, alone[SAMPLES];
    call_init(&together, "ivon");
    together.options.samples = SAMPLES;
    use_data(&together, "letters.jsonl");
    predict(&together);
    for (uint32_t s = 0; s < SAMPLES; s++) {
        char name[32];
        snprintf(name, sizeof name, "sample%u", s);
        export_set("ivon", name, true, s, 0);
        call_init(&alone[s], name);
        use_data(&alone[s], "letters.jsonl");
        predict(&alone[s]);
    }
    for (size_t i = 0; i < 6; i++) {
        double nll[SAMPLES], mean = 0;
        ck_assert(real(line_of(&together, i), "n_targets") == 1);
        for (int s = 0; s < SAMPLES; s++) {
            nll[s] = real(line_of(&alone[s], i), "nll");
            mean += nll[s] / SAMPLES;
        }
        ck_assert(real(line_of(&together, i), "nll") == cr_mixture_nll(nll, SAMPLES));
        ck_assert_double_lt(real(line_of(&together, i), "nll"), mean); /* Jensen */
    }
    for (int s = 0; s < SAMPLES; s++) {
        call_free(&alone[s]);
    }
    call_free(&together);
}
END_TEST

START_TEST(same_bits_for_batches_and_threads)
{
    struct call base, many;
    call_init(&base, "ivon");
    base.options.samples = 3;
    predict(&base);
    for (int i = 0; i < 4; i++) {
        call_init(&many, i == 3 ? "ivon/checkpoints/step-00000006.cck" : "ivon");
        many.options.samples = 3;
        many.options.batch_size = i == 0 ? 1 : i == 1 ? 7 : 0;
        if (i == 2) {
            many.host.parallel = NULL;
            many.host.n_threads = 3;
        }
        predict(&many);
        ck_assert(json_equal(base.lines, many.lines));
        call_free(&many);
    }
    call_init(&many, "ivon");
    many.options.samples = 3;
    many.options.seed = 1;
    predict(&many);
    ck_assert(!json_equal(base.lines, many.lines));
    call_free(&many);
    call_free(&base);
}
END_TEST

/* The mean is the adapter beside the posterior; draws with next to no variance are as good as it. */
/* Sets that share passes, one example at a time in groups of as many as fit, and sets that take turns because a batch
 * is full: the same bits. More draws than any group; adapters of different ranks and targets; masks. */
START_TEST(same_bits_for_shared_passes)
{
    train_adamw("wide", "q_proj,v_proj", 6, 0.3);
    train_adamw("narrow", "o_proj,v_proj,down_proj", 3, 0.3);
    for (int kind = 0; kind < 3; kind++) {
        struct call full, shared;
        struct call *both[] = {&full, &shared};
        for (int i = 0; i < 2; i++) {
            call_init(both[i], kind == 0 ? "ivon" : "wide");
            if (kind > 0) {
                add_adapter(both[i], "narrow");
            }
            both[i]->options.mc_dropout = kind == 2;
            both[i]->options.samples = kind == 0 ? CR_SETS_SHOWN + 5 : kind == 1 ? 1 : 7;
            both[i]->options.batch_size = i == 0 ? 0 : kind == 1 ? 5 : 1;
            predict(both[i]);
        }
        ck_assert_msg(json_equal(full.lines, shared.lines), "kind %d", kind);
        call_free(&full);
        call_free(&shared);
    }
}
END_TEST

START_TEST(mean_and_temperature)
{
    struct call mean, other_way;
    call_init(&mean, "ivon");
    mean.options.mean = true;
    predict(&mean);
    ck_assert(json_array_size(json_object_get(line_of(&mean, 0), "logits")) == 2);
    call_init(&other_way, "ivon/adapter.gguf");
    predict(&other_way);
    ck_assert(json_equal(mean.lines, other_way.lines));
    call_free(&other_way);
    export_set("ivon", "mean", false, 0, 0);
    call_init(&other_way, "mean");
    predict(&other_way);
    ck_assert(json_equal(mean.lines, other_way.lines));
    eval(&other_way);
    ck_assert_str_eq(other_way.result.method, "ivon-mean");
    call_free(&other_way);
    double before = 0;
    for (int i = 0; i < 3; i++) {
        call_init(&other_way, "ivon");
        other_way.options.posterior_temperature = i == 0 ? 1e-14 : i == 1 ? 1 : 4;
        predict(&other_way);
        eval(&other_way);
        ck_assert_uint_eq(other_way.result.n_members, 10); /* what a posterior gives by itself */
        for (size_t n = 0; i == 0 && n < N; n++) {
            /* noise below an ulp of most weights; outputs of order 1 through two layers in bf16 or f32 */
            ck_assert_double_eq_tol(prob(&other_way, n, 0), prob(&mean, n, 0), 2e-2);
        }
        ck_assert(i == 0 || other_way.result.all.mutual_information > before);
        before = other_way.result.all.mutual_information;
        call_free(&other_way);
    }
    call_free(&mean);
}
END_TEST

/* Adapters of different shapes and methods: the mean of their answers, members kept apart. */
START_TEST(mixtures)
{
    static const char *const names[] = {"wide", "narrow"};
    struct call mixture, alone[2];
    train_adamw("wide", "q_proj,v_proj", 6, 0);
    train_adamw("narrow", "o_proj,v_proj,down_proj", 3, 0);
    call_init(&mixture, "wide");
    add_adapter(&mixture, "narrow");
    predict(&mixture);
    for (int a = 0; a < 2; a++) {
        call_init(&alone[a], names[a]);
        predict(&alone[a]);
    }
    for (size_t i = 0; i < N; i++) {
        double members[2][2], mean[2];
        for (size_t c = 0; c < 4; c++) {
            members[c / 2][c % 2] = prob(&alone[c / 2], i, c % 2);
        }
        cr_mean_probs(members[0], 2, 2, mean);
        ck_assert(prob(&mixture, i, 0) == mean[0]);
        ck_assert(real(line_of(&mixture, i), "mutual_information") == cr_mutual_information(members[0], 2, 2, mean));
    }
    eval(&mixture);
    ck_assert_str_eq(mixture.result.method, "adamw");
    ck_assert(mixture.result.samples == 1 && mixture.result.n_members == 2);
    for (int a = 0; a < 2; a++) {
        call_free(&alone[a]);
    }
    call_free(&mixture);
    /* Posteriors: the first sample of each, then the second of each, with noise of their own. */
    call_init(&mixture, "ivon");
    add_adapter(&mixture, "ivon");
    mixture.options.samples = 2;
    eval(&mixture);
    ck_assert_uint_eq(mixture.result.n_members, 4);
    ck_assert(mixture.result.running[0].nll != mixture.result.running[1].nll);
    call_init(&alone[0], "ivon");
    alone[0].options.samples = 2;
    eval(&alone[0]);
    ck_assert(mixture.result.running[0].nll == alone[0].result.running[0].nll);
    ck_assert(mixture.result.all.nll != alone[0].result.all.nll);
    call_free(&alone[0]);
    call_free(&mixture);
    call_init(&mixture, "ivon");
    add_adapter(&mixture, "wide");
    refuse(&mixture, CR_E_USAGE, "as many of each");
    call_init(&mixture, "ivon");
    add_adapter(&mixture, "wide");
    mixture.options.mean = true;
    eval(&mixture);
    ck_assert_str_eq(mixture.result.method, "mixture");
    call_free(&mixture);
}
END_TEST

START_TEST(mc_dropout)
{
    struct call call, again;
    train_adamw("dropped", "all", 8, 0.3);
    call_init(&call, "dropped");
    call.options.mc_dropout = true;
    call.options.samples = 5;
    eval(&call);
    ck_assert_str_eq(call.result.method, "mc-dropout");
    ck_assert_uint_eq(call.result.n_members, 5);
    ck_assert_double_gt(call.result.all.mutual_information, 0);
    predict(&call);
    call_init(&again, "dropped");
    again.options.mc_dropout = true;
    again.options.samples = 5;
    again.options.batch_size = 3; /* a mask depends on the example, not on its neighbours */
    predict(&again);
    ck_assert(json_equal(call.lines, again.lines));
    call_free(&again);
    call_free(&call);
    call_init(&call, "dropped");
    call.options.samples = 5;
    refuse(&call, CR_E_USAGE, "--samples 5");
    call_init(&call, "ivon");
    call.options.mc_dropout = true;
    refuse(&call, CR_E_USAGE, "--mc-dropout");
}
END_TEST

/* AUROC and average precision against the definitions, pair by pair. */
START_TEST(examples_from_elsewhere)
{
    struct call in, out;
    double score[2 * N], information[2 * N];
    struct cr_buf buf = {0};
    for (int i = 0; i < N; i++) { /* other words, and three choices: entropies are divided by ln 3 */
        cr_buf_printf(&buf, "{\"question\":\"%d\",\"choices\":[\"a\",\"b\",\"c\"],\"answer\":%d}\n", i * 37, i % 3);
    }
    cr_train_write("elsewhere.jsonl", buf.data, buf.n);
    cr_buf_free(&buf);
    char elsewhere[1024], json[1024];
    snprintf(elsewhere, sizeof elsewhere, "%s", cr_train_path("elsewhere.jsonl"));
    snprintf(json, sizeof json, "%s", cr_train_path("ood.json"));
    call_init(&in, "ivon");
    in.options.samples = 3;
    predict(&in);
    call_init(&out, "ivon");
    out.options.samples = 3;
    use_data(&out, "elsewhere.jsonl");
    predict(&out);
    for (size_t i = 0; i < N; i++) {
        score[i] = real(line_of(&in, i), "entropy") / log(2);
        score[N + i] = real(line_of(&out, i), "entropy") / log(3);
        information[i] = real(line_of(&in, i), "mutual_information");
        information[N + i] = real(line_of(&out, i), "mutual_information");
    }
    double above = 0, informed = 0, precision = 0;
    for (size_t o = N; o < 2 * N; o++) {
        double hits = 0, all = 0;
        for (size_t i = 0; i < 2 * N; i++) {
            above += i < N ? (score[o] > score[i]) + 0.5 * (score[o] == score[i]) : 0;
            informed += i < N ? (information[o] > information[i]) + 0.5 * (information[o] == information[i]) : 0;
            hits += i >= N && score[i] >= score[o];
            all += score[i] >= score[o];
        }
        precision += hits / all / N;
    }
    in.options.ood = elsewhere;
    in.options.json = json;
    eval(&in);
    const struct cr_ood_metrics *m = &in.result.ood;
    ck_assert(in.result.has_ood && m->n_in == N && m->n_out == N);
    ck_assert_double_eq_tol(m->auroc, above / (N * N), 1e-12);
    ck_assert_double_eq_tol(m->information_auroc, informed / (N * N), 1e-12);
    ck_assert_double_eq_tol(m->average_precision, precision, 1e-12);
    json_t *file = json_load_file(json, 0, NULL);
    ck_assert(real(json_object_get(file, "ood"), "auroc") == m->auroc);
    ck_assert(real(json_object_get(file, "ood"), "entropy_out") == m->mean_out);
    json_decref(file);
    call_free(&out);
    call_free(&in);
    call_init(&in, "ivon");
    snprintf(in.paths[2], sizeof in.paths[2], "%s", cr_train_path("texts.jsonl"));
    in.options.ood = in.paths[2];
    refuse(&in, CR_E_INPUT, "--ood");
    call_init(&in, "ivon");
    use_data(&in, "texts.jsonl");
    in.options.ood = elsewhere;
    refuse(&in, CR_E_USAGE, "--ood");
}
END_TEST

/* Mean NLL of predicted lines at a temperature, from their probabilities. */
static double nll_at(const json_t *lines, double temperature)
{
    double sum = 0;
    for (size_t i = 0; i < json_array_size(lines); i++) {
        const json_t *line = json_array_get(lines, i), *probs = json_object_get(line, "probs");
        double all = 0, own = 0;
        for (size_t c = 0; c < json_array_size(probs); c++) {
            double p = pow(json_real_value(json_array_get(probs, c)), 1 / temperature);
            all += p;
            own = (json_int_t)c == json_integer_value(json_object_get(line, "answer")) ? p : own;
        }
        sum -= log(own / all);
    }
    return sum / (double)json_array_size(lines);
}

/* The temperature is the best one of the validation file for this very predictor; what is raw stays as it was. */
START_TEST(fitted_temperature)
{
    bool point = _i == 1;
    struct call valid, raw, call;
    char json[1024];
    snprintf(json, sizeof json, "%s", cr_train_path("calibrated.json"));
    train_adamw("sure", "q_proj,v_proj", 8, 0);
    call_init(&valid, point ? "sure" : "ivon");
    use_data(&valid, "choices.jsonl");
    predict(&valid);
    call_init(&raw, point ? "sure" : "ivon");
    raw.options.json = json;
    eval(&raw);
    call_init(&call, point ? "sure" : "ivon");
    call.options.calibrate = data;
    call.options.json = json;
    eval(&call);
    double t = call.result.temperature;
    ck_assert_uint_eq(call.result.n_calibration, N);
    ck_assert(isnan(raw.result.temperature) && raw.result.calibrated == NULL);
    /* 1e-12 in the logarithms of a mixture moves an NLL by less than 1e-10 while probabilities are above .01 */
    ck_assert_double_eq_tol(call.result.calibration_nll[0], nll_at(valid.lines, 1), 1e-9);
    ck_assert_double_eq_tol(call.result.calibration_nll[1], nll_at(valid.lines, t), 1e-9);
    ck_assert_double_le(nll_at(valid.lines, t), nll_at(valid.lines, t * 1.01) + 1e-9);
    ck_assert_double_le(nll_at(valid.lines, t), nll_at(valid.lines, t / 1.01) + 1e-9);
    ck_assert_double_gt(fabs(log(t)), 0.05);
    ck_assert(call.result.all.nll == raw.result.all.nll && call.result.all.ece == raw.result.all.ece);
    ck_assert(call.result.calibrated[0].accuracy == raw.result.all.accuracy);
    predict(&call);
    ck_assert_double_eq_tol(call.result.calibrated[0].nll, nll_at(call.lines, t), 1e-9);
    for (size_t i = 0; i < N; i++) {
        const json_t *p = json_object_get(line_of(&call, i), "probs");
        const json_t *q = json_object_get(line_of(&call, i), "calibrated");
        double odds = json_real_value(json_array_get(p, 0)) / json_real_value(json_array_get(p, 1));
        double want = 1 / (1 + pow(odds, -1 / t));
        ck_assert_double_eq_tol(json_real_value(json_array_get(q, 0)), want, 1e-9);
    }
    json_t *file = json_load_file(json, 0, NULL);
    ck_assert(real(json_object_get(file, "calibration"), "temperature") == t);
    ck_assert(real(json_object_get(json_object_get(file, "all"), "calibrated"), "nll") ==
              call.result.calibrated[0].nll);
    json_decref(file);
    call_free(&valid);
    call_free(&raw);
    call_free(&call);
}
END_TEST

START_TEST(refused_calibration)
{
    struct call call;
    char texts[1024];
    snprintf(texts, sizeof texts, "%s", cr_train_path("texts.jsonl"));
    call_init(&call, "ivon");
    call.options.calibrate = call.options.data;
    refuse(&call, CR_E_USAGE, "--calibrate is the same file as --data");
    call_init(&call, "ivon");
    call.options.calibrate = data;
    call.options.ood = data;
    refuse(&call, CR_E_USAGE, "--calibrate is the same file as --ood");
    call_init(&call, "ivon");
    call.options.calibrate = texts;
    refuse(&call, CR_E_INPUT, "--calibrate");
    call_init(&call, "ivon");
    use_data(&call, "texts.jsonl");
    call.options.calibrate = data;
    refuse(&call, CR_E_USAGE, "--calibrate needs questions");
    call_init(&call, "ivon");
    call.options.calibrate = data;
    call.options.json = data;
    refuse(&call, CR_E_USAGE, "--json is the same file as --calibrate");
}
END_TEST

/* Half of the weights out: exactly so many zeros, and the same in an evaluation of the posterior's mean. */
START_TEST(pruning)
{
    struct call pruned, exported;
    call_init(&pruned, "ivon");
    pruned.options.mean = true;
    pruned.options.prune = 0.5;
    predict(&pruned);
    export_set("ivon", "half", false, 0, 0.5);
    call_init(&exported, "half");
    predict(&exported);
    ck_assert(json_equal(pruned.lines, exported.lines));
    struct cr_adapter *adapter = NULL;
    struct cr_adapter_base base;
    ck_assert_int_eq(cr_adapter_read(exported.adapters[0], NULL, false, &adapter, &base, NULL), CR_OK);
    size_t zeros = 0;
    for (size_t i = 0; i < adapter->n_params; i++) {
        zeros += adapter->params[i] == 0;
    }
    /* gaps are zeros too; a weight of B that never moved may be */
    ck_assert_uint_ge(zeros, adapter->n_trainable / 2 + adapter->n_params - adapter->n_trainable);
    ck_assert_uint_lt(zeros, adapter->n_trainable / 2 + adapter->n_params - adapter->n_trainable + 16);
    cr_adapter_destroy(adapter);
    call_free(&pruned);
    call_free(&exported);
}
END_TEST

static void copy_file(const char *from, const char *to)
{
    size_t n;
    uint8_t *bytes = cr_train_bytes(from, &n);
    cr_train_write(to, bytes, n);
    cr_free(bytes);
}

START_TEST(posteriors_that_do_not_belong)
{
    struct call call;
    size_t n;
    /* Another run's posterior of the same shape; of another rank; of another method. */
    train_ivon("second", other, 3);
    copy_file("second/" CR_POSTERIOR_FILE, "ivon/" CR_POSTERIOR_FILE);
    call_init(&call, "ivon");
    refuse(&call, CR_E_INPUT, "its means are not the adapter beside it");
    train_adamw("narrow", "q_proj,v_proj", 3, 0);
    copy_file("second/" CR_POSTERIOR_FILE, "narrow/" CR_POSTERIOR_FILE);
    call_init(&call, "narrow");
    refuse(&call, CR_E_INPUT, "method \"adamw\"");
    struct cr_train_run run;
    cr_train_run_init(&run, "thin");
    run.options.method = "ivon";
    run.options.rank = 3;
    run.options.steps = 1;
    cr_train_must(&run);
    copy_file("second/" CR_POSTERIOR_FILE, "thin/" CR_POSTERIOR_FILE);
    call_init(&call, "thin");
    refuse(&call, CR_E_INPUT, "has shape 8 x 64, the adapter beside it 3 x 64");
    /* A curvature that gives no variance, and a cut file. */
    uint8_t *bytes = cr_train_bytes("second/" CR_POSTERIOR_FILE, &n);
    static const uint8_t minus_one[4] = {0, 0, 0x80, 0xbf};
    uint8_t kept[4];
    for (size_t at = n - 4; at + 4 > n / 2; at -= (n - n / 2) / 2) {
        memcpy(kept, bytes + at, 4);
        memcpy(bytes + at, minus_one, 4);
        cr_train_write("second/" CR_POSTERIOR_FILE, bytes, n);
        call_init(&call, "second");
        refuse(&call, CR_E_INPUT, CR_POSTERIOR_FILE); /* the mean differs, or the curvature is refused */
        memcpy(bytes + at, kept, 4);
    }
    cr_train_write("second/" CR_POSTERIOR_FILE, bytes, n - 4);
    cr_free(bytes);
    call_init(&call, "second");
    refuse(&call, CR_E_INPUT, CR_POSTERIOR_FILE);
    /* Without the file the mean is what is left, and that is said. */
    ck_assert_int_eq(unlink(cr_train_path("second/" CR_POSTERIOR_FILE)), 0);
    call_init(&call, "second");
    eval(&call);
    ck_assert_ptr_nonnull(strstr(call.first_warning, CR_POSTERIOR_FILE));
    ck_assert_uint_eq(call.result.n_members, 1);
    call_free(&call);
    /* Another model. */
    struct cr_tiny_spec spec = {.type = 8, .seed = 12};
    ck_assert_int_eq(cr_tiny_model_file(&spec, model, NULL), CR_OK);
    call_init(&call, "thin");
    refuse(&call, CR_E_BUSY, "base");
}
END_TEST

/* Cut anywhere, or with any byte of the header changed: a refusal, or a posterior whose numbers make sense; no leak. */
START_TEST(damaged_files)
{
    size_t n, refused = 0;
    char path[1024];
    snprintf(path, sizeof path, "%s", cr_train_path("ivon"));
    uint8_t *bytes = cr_train_bytes("ivon/" CR_POSTERIOR_FILE, &n);
    uint64_t header;
    memcpy(&header, bytes, sizeof header);
    long live = cr_alloc_live();
    for (size_t i = 0; i < 400; i++) {
        bool cut = i < 60;
        size_t at = cut ? n * i / 60 : i * 7919 % (size_t)(header + 8);
        uint8_t kept = bytes[at];
        bytes[at] = (uint8_t)(cut ? kept : kept ^ (1u << i % 8));
        cr_train_write("ivon/" CR_POSTERIOR_FILE, bytes, cut ? at : n);
        bytes[at] = kept;
        struct cr_posterior *p = NULL;
        struct cr_error err = {0};
        cr_status status = cr_posterior_open(path, NULL, false, NULL, CR_TIER_SCALAR, &p, &err);
        ck_assert_msg(status == CR_OK || status == CR_E_INPUT, "%zu: %d %s", at, status, err.message);
        ck_assert(!cut || status == CR_E_INPUT);
        if (status == CR_OK) {
            for (int g = 0; g < CR_IVON_GROUPS; g++) {
                ck_assert(p->groups[g].ess > 0 && p->groups[g].weight_decay >= 0);
            }
            cr_posterior_close(p);
        } else {
            ck_assert(strchr(err.message, '\n') == NULL && err.message[0] != '\0');
            refused++;
        }
        ck_assert_int_eq(cr_alloc_live(), live);
    }
    ck_assert_uint_gt(refused, 300);
    cr_free(bytes);
}
END_TEST

START_TEST(refused_options)
{
    struct call call;
    train_adamw("point", "q_proj", 2, 0);
#define REFUSE(name, field, value, part)                                                                               \
    do {                                                                                                               \
        call_init(&call, name);                                                                                        \
        call.options.field = (value);                                                                                  \
        refuse(&call, CR_E_USAGE, part);                                                                               \
    } while (0)
    REFUSE("point", samples, 2, "--samples 2");
    REFUSE("point", posterior_temperature, 2, "--posterior-temperature");
    REFUSE("point", prune, 0.5, "--prune");
    REFUSE("point", mc_dropout, true, "--mc-dropout");
    REFUSE(NULL, samples, 2, "--samples 2");
    REFUSE(NULL, mc_dropout, true, "--adapter");
    REFUSE("ivon", samples, 10001, "--samples 10001");
    REFUSE("ivon", posterior_temperature, -1, "--posterior-temperature");
    REFUSE("ivon", posterior_temperature, (double)NAN, "--posterior-temperature");
    REFUSE("ivon", prune, 1, "--prune");
#undef REFUSE
    call_init(&call, "ivon");
    call.options.mean = true;
    call.options.samples = 3;
    refuse(&call, CR_E_USAGE, "--mean");
    call_init(&call, "ivon");
    call.options.mean = true;
    call.options.posterior_temperature = 2;
    refuse(&call, CR_E_USAGE, "--mean");
    struct cr_export_options o = {.size = sizeof o, .format = "peft"};
    struct cr_error err;
    char from[1024], to[1024];
    snprintf(from, sizeof from, "%s", cr_train_path("point"));
    snprintf(to, sizeof to, "%s", cr_train_path("out"));
    o.adapter = from;
    o.output = to;
    o.sample_set = true;
    ck_assert_int_eq(cr_export(&o, NULL, &err), CR_E_USAGE);
    ck_assert_ptr_nonnull(strstr(err.message, "--sample"));
    o.mean = true;
    ck_assert_int_eq(cr_export(&o, NULL, &err), CR_E_USAGE);
    ck_assert(!cr_train_exists("out"));
}
END_TEST

/* Too many draws for the memory there is: refused before anything is drawn; and every allocation may fail. */
START_TEST(memory)
{
    struct call call;
    call_init(&call, "ivon");
    call.options.samples = 10000;
    call.host.memory_bytes = (uint64_t)48 << 20;
    refuse(&call, CR_E_MEMORY, "fewer --samples");
    long live = cr_alloc_live();
    cr_status status = CR_E_MEMORY;
    for (long at = 1; status != CR_OK; at++) {
        call_init(&call, "ivon");
        call.options.samples = 2;
        call.options.calibrate = data;
        cr_alloc_fail_at(at, at % 2 == 0);
        status = cr_eval(&call.options, &call.host, &call.result, &call.err);
        cr_alloc_fail_at(0, false);
        ck_assert_msg(status == CR_OK || status == CR_E_MEMORY, "%ld: %d %s", at, status, call.err.message);
        call_free(&call);
        ck_assert_int_eq(cr_alloc_live(), live);
        ck_assert_int_lt(at, 5000);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("posterior");
    TCase *all = tcase_create("all");
    tcase_set_timeout(all, 300);
    tcase_add_checked_fixture(all, setup, cr_train_dir_drop);
    tcase_add_test(all, samples_are_exported_samples);
    tcase_add_loop_test(all, running_figures, 0, 2);
    tcase_add_loop_test(all, fitted_temperature, 0, 2);
    tcase_add_test(all, refused_calibration);
    tcase_add_test(all, averaged_token_distribution);
    tcase_add_test(all, same_bits_for_batches_and_threads);
    tcase_add_test(all, same_bits_for_shared_passes);
    tcase_add_test(all, mean_and_temperature);
    tcase_add_test(all, mixtures);
    tcase_add_test(all, mc_dropout);
    tcase_add_test(all, examples_from_elsewhere);
    tcase_add_test(all, pruning);
    tcase_add_test(all, posteriors_that_do_not_belong);
    tcase_add_test(all, damaged_files);
    tcase_add_test(all, refused_options);
    tcase_add_test(all, memory);
    suite_add_tcase(suite, all);
    return cr_run_suite(suite);
}
