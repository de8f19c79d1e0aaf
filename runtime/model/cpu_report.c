#include "runtime/model/cpu_report.h"

#include <inttypes.h>
#include <string.h>

#include "credence/kernels/act.h"
#include "credence/kernels/adamw.h"
#include "credence/kernels/attention.h"
#include "credence/kernels/cast.h"
#include "credence/kernels/dequant.h"
#include "credence/kernels/dplr.h"
#include "credence/kernels/embed.h"
#include "credence/kernels/ivon.h"
#include "credence/kernels/lowrank.h"
#include "credence/kernels/norm.h"
#include "credence/kernels/qgemm.h"
#include "credence/kernels/rng.h"
#include "credence/kernels/rope.h"
#include "credence/kernels/xent.h"
#include "runtime/core/buf.h"
#include "runtime/core/error.h"
#include "runtime/thread/machine.h"
#include "runtime/thread/parallel.h"
#include "runtime/thread/workers.h"

static const enum cr_tier x86_tiers[] = {CR_TIER_AVX2, CR_TIER_AVX512, CR_TIER_AVX512_BF16, CR_TIER_AMX};
static const enum cr_tier arm_tiers[] = {CR_TIER_NEON, CR_TIER_NEON_DOTPROD, CR_TIER_NEON_I8MM, CR_TIER_NEON_BF16};
enum { N_TIERS = 4 };

static const char *const needs[] = {
    [CR_TIER_AVX2] = "AVX2, FMA, F16C, BMI2",
    [CR_TIER_AVX512] = "AVX-512 F, BW, DQ, VL, VNNI",
    [CR_TIER_AVX512_BF16] = "AVX-512 BF16",
    [CR_TIER_AMX] = "AMX tiles, bf16, int8",
    [CR_TIER_NEON] = "Advanced SIMD",
    [CR_TIER_NEON_DOTPROD] = "dot product",
    [CR_TIER_NEON_I8MM] = "int8 matrix product",
    [CR_TIER_NEON_BF16] = "bf16 matrix product",
};

/* Dequantisation has a function a type instead of a table; one type stands for all. */
struct dequant_ops {
    cr_dequant_fn *fn;
};

static void dequant_ops_init(struct dequant_ops *ops, enum cr_tier tier)
{
    ops->fn = cr_dequant_fn_for(CR_Q_Q4_K, tier);
}

/* All tables as one union: two tiers that fill it with the same bytes are one variant. */
union ops {
    struct cr_qgemm_ops qgemm;
    struct cr_lowrank_ops lowrank;
    struct cr_attention_ops attention;
    struct cr_norm_ops norm;
    struct cr_rope_ops rope;
    struct cr_act_ops act;
    struct cr_cast_ops cast;
    struct cr_embed_ops embed;
    struct cr_xent_ops xent;
    struct cr_adamw_ops adamw;
    struct cr_ivon_ops ivon;
    struct cr_dplr_ops dplr;
    struct cr_rng_ops rng;
    struct dequant_ops dequant;
};

#define FAMILIES(X)                                                                                                    \
    X(qgemm, cr_qgemm_ops_init)                                                                                        \
    X(lowrank, cr_lowrank_ops_init)                                                                                    \
    X(attention, cr_attention_ops_init)                                                                                \
    X(norm, cr_norm_ops_init)                                                                                          \
    X(rope, cr_rope_ops_init)                                                                                          \
    X(act, cr_act_ops_init)                                                                                            \
    X(cast, cr_cast_ops_init)                                                                                          \
    X(embed, cr_embed_ops_init)                                                                                        \
    X(xent, cr_xent_ops_init)                                                                                          \
    X(adamw, cr_adamw_ops_init)                                                                                        \
    X(ivon, cr_ivon_ops_init)                                                                                          \
    X(dplr, cr_dplr_ops_init)                                                                                          \
    X(rng, cr_rng_ops_init)                                                                                            \
    X(dequant, dequant_ops_init)

enum family {
#define AS_ENUM(name, init) FAMILY_##name,
    FAMILIES(AS_ENUM) N_FAMILIES
};

static const char *const family_names[] = {
#define AS_NAME(name, init) #name,
    FAMILIES(AS_NAME)};

static void ops_init(union ops *ops, enum family family, enum cr_tier tier)
{
    memset(ops, 0, sizeof *ops);
    switch (family) {
#define AS_CASE(name, init)                                                                                            \
    case FAMILY_##name:                                                                                                \
        init(&ops->name, tier);                                                                                        \
        break;
        FAMILIES(AS_CASE)
    case N_FAMILIES:
        break;
    }
}

static bool same_variant(enum family family, enum cr_tier a, enum cr_tier b)
{
    union ops first, second;
    ops_init(&first, family, a);
    ops_init(&second, family, b);
    return memcmp(&first, &second, sizeof first) == 0;
}

struct report {
    struct cr_cpu cpu;
    enum cr_tier tier; /* after the cap */
    const enum cr_tier *tiers;
    struct cr_buf text;
};

static bool present(const struct report *report, enum cr_tier tier)
{
    return (report->cpu.features >> (unsigned)tier & 1) != 0;
}

/* Lowest tier whose table is the chosen one. */
static enum cr_tier variant_of(const struct report *report, enum family family)
{
    if (same_variant(family, CR_TIER_SCALAR, report->tier)) {
        return CR_TIER_SCALAR;
    }
    for (int i = 0; i < N_TIERS && report->tiers[i] < report->tier; i++) {
        if (same_variant(family, report->tiers[i], report->tier)) {
            return report->tiers[i];
        }
    }
    return report->tier;
}

/* Why a tier above the chosen variant does not compute. */
static const char *reason(const struct report *report, enum cr_tier tier)
{
    if (tier == CR_TIER_AMX && report->cpu.amx_refused) {
        return "refused by the operating system";
    }
    if (!present(report, tier)) {
        return "not on this processor";
    }
    if (tier <= report->tier) {
        return "no variant of its own";
    }
    return tier > report->cpu.tier ? "slower than the tier below on this processor" : "capped";
}

static void put_bytes(struct cr_buf *text, const char *name, int64_t bytes)
{
    if (bytes <= 0) {
        cr_buf_printf(text, "%s unknown", name);
    } else if (bytes < 1 << 20) {
        cr_buf_printf(text, "%s %" PRId64 " KiB", name, bytes >> 10);
    } else {
        cr_buf_printf(text, "%s %.4g MiB", name, (double)bytes / (1 << 20));
    }
}

static void put_machine(struct report *report, const struct cr_host *host)
{
    struct cr_buf *text = &report->text;
    const struct cr_cpu *cpu = &report->cpu;
    cr_buf_printf(text, "processor  %s", cpu->name[0] != '\0' ? cpu->name : "unknown");
    if (cpu->vendor[0] != '\0') {
        cr_buf_printf(text, " (%s, family %d, model %d)", cpu->vendor, cpu->family, cpu->model);
    }
    cr_buf_puts(text, "\ncaches     ");
    put_bytes(text, "L1d", cpu->l1d_bytes);
    put_bytes(text, ", L2", cpu->l2_bytes);
    put_bytes(text, ", L3", cpu->l3_bytes);
    cr_buf_printf(text, "\ngranted    %d processors on %d cores", cr_machine_cpus(), cr_machine_cores(""));
    int quota = cr_machine_cpu_quota("");
    if (quota > 0) {
        cr_buf_printf(text, ", time of %d", quota);
    }
    cr_buf_printf(text, "\nthreads    %d", cr_thread_count(host != NULL ? host->n_threads : 0));
    uint64_t budget = cr_machine_memory_budget();
    if (budget != CR_MACHINE_UNLIMITED) {
        cr_buf_printf(text, "\nmemory     %" PRIu64 " MiB can be had now", budget >> 20);
    }
    cr_buf_putc(text, '\n');
}

static void put_tiers(struct report *report, const char *cap)
{
    struct cr_buf *text = &report->text;
    cr_buf_puts(text, "\ntiers\n  scalar        yes\n");
    for (int i = 0; i < N_TIERS; i++) {
        enum cr_tier tier = report->tiers[i];
        const char *state = !present(report, tier) ? "no" : tier > report->cpu.tier ? "yes, not used" : "yes";
        state = tier == CR_TIER_AMX && report->cpu.amx_refused ? "refused" : state;
        cr_buf_printf(text, "  %-13s %-14s %s\n", cr_tier_name(tier), state, needs[tier]);
    }
    cr_buf_printf(text, "in use: %s", cr_tier_name(report->tier));
    if (cap != NULL && cap[0] != '\0') {
        cr_buf_printf(text, " (capped at %s)", cr_tier_name(report->tier));
    }
    cr_buf_putc(text, '\n');
}

/* At least three digits, but none below a thousandth; no line where nothing was measured. */
static void put_rate(struct cr_buf *text, const char *what, double per_second, const char *unit)
{
    double value = per_second / 1e9;
    int decimals = value < 1 ? 3 : value < 10 ? 2 : value < 100 ? 1 : 0;
    if (per_second > 0) {
        cr_buf_printf(text, "  %-17s %7.*f %s\n", what, decimals, value, unit);
    }
}

static void put_calibration(struct cr_buf *text, const struct cr_calibration *measured)
{
    cr_buf_puts(text, "\nmeasured now, all threads together; nothing is chosen by it\n");
    put_rate(text, "f32 multiply-add", measured->f32, "GFLOP/s");
    put_rate(text, "bf16 dot product", measured->dot, "GFLOP/s");
    put_rate(text, "bf16 tile product", measured->tile, "GFLOP/s");
    put_rate(text, "memory", measured->memory, "GB/s");
}

/* "avx512, avx512_bf16: capped; amx: not on this processor" */
static void put_reasons(struct report *report, enum cr_tier variant)
{
    const char *last = NULL;
    for (int i = 0; i < N_TIERS; i++) {
        enum cr_tier tier = report->tiers[i];
        const char *next = i + 1 < N_TIERS ? reason(report, report->tiers[i + 1]) : NULL;
        if (tier <= variant) {
            continue;
        }
        const char *why = reason(report, tier);
        cr_buf_printf(&report->text, "%s%s", last == NULL ? " " : last == why ? ", " : "; ", cr_tier_name(tier));
        if (next != why) {
            cr_buf_printf(&report->text, ": %s", why);
        }
        last = why;
    }
}

static void put_families(struct report *report)
{
    struct cr_buf *text = &report->text;
    cr_buf_puts(text, "\nkernels     variant       why no better one\n");
    for (int family = 0; family < N_FAMILIES; family++) {
        enum cr_tier variant = variant_of(report, (enum family)family);
        cr_buf_printf(text, "  %-9s %-13s", family_names[family], cr_tier_name(variant));
        put_reasons(report, variant);
        cr_buf_putc(text, '\n');
    }
}

cr_status cr_cpu_report_of(const struct cr_cpu *cpu, const struct cr_calibration *measured, const struct cr_host *host,
                           cr_emit_fn *emit, void *ctx, struct cr_error *err)
{
    const char *cap = host != NULL ? host->cpu_cap : NULL;
    struct report report = {.cpu = *cpu, .tiers = x86_tiers};
    CR_TRY(cr_cpu_cap(&report.cpu, cap, &report.tier, err));
    if (present(&report, CR_TIER_NEON)) {
        report.tiers = arm_tiers;
    }
    put_machine(&report, host);
    put_tiers(&report, cap);
    if (measured != NULL) {
        put_calibration(&report.text, measured);
    }
    put_families(&report);
    cr_status status = CR_OK;
    if (report.text.failed) {
        status = cr_fail(err, CR_E_MEMORY, "no memory for the report");
    } else if (!emit(ctx, report.text.data, report.text.n)) {
        status = cr_fail(err, CR_E_IO, "the report could not be written");
    }
    cr_buf_free(&report.text);
    return status;
}

cr_status cr_cpu_report(const struct cr_host *host, cr_emit_fn *emit, void *ctx, struct cr_error *err)
{
    struct cr_host silent = host != NULL ? *host : (struct cr_host){0};
    struct cr_cpu cpu;
    struct cr_workers workers = {0};
    struct cr_calibration measured;
    silent.log = NULL; /* the report says it all */
    cr_cpu_detect(&cpu);
    cr_status status = cr_workers_choose(&workers, &silent, err);
    if (status == CR_OK) {
        cr_calibration_measure(&cpu, workers.tier, workers.parallel, &measured);
        status = cr_cpu_report_of(&cpu, &measured, host, emit, ctx, err);
    }
    cr_workers_release(&workers);
    return status;
}
