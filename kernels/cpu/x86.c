#include "kernels/cpu/x86.h"

#include <stddef.h>
#include <string.h>

enum { BIT_AVX2 = 1 << CR_TIER_AVX2, BIT_AVX512 = 1 << CR_TIER_AVX512, BIT_BF16 = 1 << CR_TIER_AVX512_BF16 };
#ifdef CR_HAVE_AMX
enum { BIT_AMX = 1 << CR_TIER_AMX };
#else
enum { BIT_AMX = 0 }; /* the compiler that built us knows no tiles */
#endif

/* Tiers that are faster than those below them, where they are present: the first row that fits. Per core, f32 FMA,
 * VDPBF16PS and tiles in GFLOP/s: Zen 4 118, 236, none; Zen 5 235, 473, none; Sapphire Rapids 158, 85, 2245. */
static const struct {
    const char *vendor; /* NULL: any */
    int family, model;  /* this family and later ones (0: any); this model (0: any) */
    uint32_t faster;
} choices[] = {
    {"AuthenticAMD", 0x19, 0, BIT_AVX2 | BIT_AVX512 | BIT_BF16 | BIT_AMX},
    {"HygonGenuine", 0x19, 0, BIT_AVX2 | BIT_AVX512 | BIT_BF16 | BIT_AMX},
    {"GenuineIntel", 6, 143, BIT_AVX2 | BIT_AVX512 | BIT_AMX}, /* Sapphire Rapids */
    {NULL, 0, 0, BIT_AVX2 | BIT_AVX512 | BIT_AMX},             /* no measurement of VDPBF16PS: f32 is safe */
};

static struct cr_x86_regs cpuid(const struct cr_x86_source *source, uint32_t leaf, uint32_t subleaf)
{
    return source->cpuid(source->ctx, leaf, subleaf);
}

static bool has(uint32_t word, unsigned bit)
{
    return word >> bit & 1u;
}

/* Bit numbers: Intel SDM volume 2, CPUID leaves 1 and 7; AMD APM volume 3, appendix E. */
static uint32_t features_of(const struct cr_x86_source *source, uint32_t max_leaf, int *amx_refused)
{
    uint32_t features = 1u << CR_TIER_SCALAR;
    struct cr_x86_regs one = cpuid(source, 1, 0);
    if (max_leaf < 7 || !has(one.c, 27)) {
        return features;
    }
    uint64_t state = source->saved_state(source->ctx);
    struct cr_x86_regs seven = cpuid(source, 7, 0), seven1 = {0, 0, 0, 0};
    if (seven.a >= 1) {
        seven1 = cpuid(source, 7, 1);
    }
    bool ymm = (state & 0x6) == 0x6;
    bool zmm = (state & 0xe6) == 0xe6;
    bool tiles = (state & 0x60000) == 0x60000;
    /* AVX, FMA, F16C; AVX2, BMI2 */
    if (!ymm || !has(one.c, 28) || !has(one.c, 12) || !has(one.c, 29) || !has(seven.b, 5) || !has(seven.b, 8)) {
        return features;
    }
    features |= 1u << CR_TIER_AVX2;
    /* F, DQ, BW, VL; VNNI */
    if (!zmm || !has(seven.b, 16) || !has(seven.b, 17) || !has(seven.b, 30) || !has(seven.b, 31) || !has(seven.c, 11)) {
        return features;
    }
    features |= 1u << CR_TIER_AVX512;
    if (!has(seven1.a, 5)) {
        return features;
    }
    features |= 1u << CR_TIER_AVX512_BF16;
    /* AMX-TILE, AMX-BF16, AMX-INT8 */
    if (has(seven.d, 24) && has(seven.d, 22) && has(seven.d, 25)) {
        *amx_refused = !tiles || !source->may_use_tiles(source->ctx);
        features |= *amx_refused ? 0 : 1u << CR_TIER_AMX;
    }
    return features;
}

/* Deterministic cache parameters: leaf 4 on Intel, leaf 0x8000001d on AMD, of one shape. */
static void caches(struct cr_cpu *cpu, const struct cr_x86_source *source, uint32_t leaf)
{
    for (uint32_t i = 0; i < 16; i++) {
        struct cr_x86_regs r = cpuid(source, leaf, i);
        uint32_t kind = r.a & 0x1f;
        if (kind == 0) {
            return;
        }
        int64_t line = (r.b & 0xfff) + 1, partitions = (r.b >> 12 & 0x3ff) + 1, ways = (r.b >> 22) + 1;
        int64_t bytes = line * partitions * ways * ((int64_t)r.c + 1);
        uint32_t level = r.a >> 5 & 7;
        if (kind == 2) {
            continue; /* instructions */
        }
        if (level == 1) {
            cpu->l1d_bytes = bytes;
        } else if (level == 2) {
            cpu->l2_bytes = bytes;
        } else if (level == 3) {
            cpu->l3_bytes = bytes;
        }
    }
}

static void brand(struct cr_cpu *cpu, const struct cr_x86_source *source)
{
    char text[49] = {0};
    for (uint32_t i = 0; i < 3; i++) {
        struct cr_x86_regs r = cpuid(source, 0x80000002u + i, 0);
        memcpy(text + 16 * i, &r, 16);
    }
    const char *start = text + strspn(text, " ");
    size_t length = strlen(start);
    while (length > 0 && start[length - 1] == ' ') {
        length--;
    }
    memcpy(cpu->name, start, length);
    cpu->name[length] = '\0';
}

static void display_family(struct cr_cpu *cpu, uint32_t signature)
{
    cpu->family = (int)(signature >> 8 & 0xf);
    cpu->model = (int)(signature >> 4 & 0xf);
    if (cpu->family == 6 || cpu->family == 15) {
        cpu->model |= (int)(signature >> 16 & 0xf) << 4;
    }
    if (cpu->family == 15) {
        cpu->family += (int)(signature >> 20 & 0xff);
    }
}

static enum cr_tier best_of(const struct cr_cpu *cpu)
{
    size_t i = 0;
    while (choices[i].vendor != NULL &&
           (strcmp(choices[i].vendor, cpu->vendor) != 0 || cpu->family < choices[i].family ||
            (choices[i].model != 0 && (cpu->family != choices[i].family || cpu->model != choices[i].model)))) {
        i++;
    }
    enum cr_tier best = CR_TIER_SCALAR;
    for (unsigned tier = CR_TIER_AVX2; tier <= CR_TIER_AMX; tier++) {
        best = (cpu->features & choices[i].faster) >> tier & 1u ? (enum cr_tier)tier : best;
    }
    return best;
}

void cr_x86_describe(struct cr_cpu *cpu, const struct cr_x86_source *source)
{
    struct cr_x86_regs zero = cpuid(source, 0, 0);
    memcpy(cpu->vendor, &zero.b, 4);
    memcpy(cpu->vendor + 4, &zero.d, 4);
    memcpy(cpu->vendor + 8, &zero.c, 4);
    bool amd = strcmp(cpu->vendor, "AuthenticAMD") == 0 || strcmp(cpu->vendor, "HygonGenuine") == 0;
    display_family(cpu, cpuid(source, 1, 0).a);
    uint32_t max_extended = cpuid(source, 0x80000000u, 0).a;
    if (max_extended >= 0x80000004u) {
        brand(cpu, source);
    }
    if (amd && max_extended >= 0x8000001du && has(cpuid(source, 0x80000001u, 0).c, 22)) {
        caches(cpu, source, 0x8000001du);
    } else if (!amd && zero.a >= 4) {
        caches(cpu, source, 4);
    }
    cpu->features = features_of(source, zero.a, &cpu->amx_refused);
    cpu->tier = best_of(cpu);
}
