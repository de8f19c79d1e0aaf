#define _GNU_SOURCE /* syscall */
#include "credence/cpu.h"

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#define X86 1
#else
#define X86 0
#endif

static const struct {
    enum cr_tier tier;
    const char *name;
} tiers[] = {
    {CR_TIER_SCALAR, "scalar"},
    {CR_TIER_AVX2, "avx2"},
    {CR_TIER_AVX512, "avx512"},
    {CR_TIER_AVX512_BF16, "avx512_bf16"},
    {CR_TIER_AMX, "amx"},
    {CR_TIER_NEON, "neon"},
    {CR_TIER_NEON_DOTPROD, "neon_dotprod"},
    {CR_TIER_NEON_I8MM, "neon_i8mm"},
    {CR_TIER_NEON_BF16, "neon_bf16"},
};
enum { N_TIERS = sizeof tiers / sizeof tiers[0] };

const char *cr_tier_name(enum cr_tier tier)
{
    for (size_t i = 0; i < N_TIERS; i++) {
        if (tiers[i].tier == tier) {
            return tiers[i].name;
        }
    }
    return "unknown";
}

#if X86

struct regs {
    uint32_t a, b, c, d;
};

static struct regs cpuid(uint32_t leaf, uint32_t subleaf)
{
    struct regs r = {0, 0, 0, 0};
    __cpuid_count(leaf, subleaf, r.a, r.b, r.c, r.d);
    return r;
}

/* Register state that the operating system saves (XCR0). Needs OSXSAVE. */
static uint64_t saved_state(void)
{
    uint32_t low, high;
    __asm__ volatile(".byte 0x0f, 0x01, 0xd0" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

static bool has(uint32_t word, unsigned bit)
{
    return word >> bit & 1u;
}

/* Tile data is saved only for processes that asked: Linux, Documentation/arch/x86/xstate.rst. A kernel that does not
 * know the request does not set the bits of tiles in XCR0 either. */
static bool may_use_tiles(uint64_t state)
{
    bool allowed = (state & 0x60000) == 0x60000;
#if defined(__linux__) && defined(SYS_arch_prctl)
    const long request = 0x1023, tile_data = 18; /* ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA */
    return allowed && syscall(SYS_arch_prctl, request, tile_data) == 0;
#else
    return allowed && false;
#endif
}

/* Bit numbers: Intel SDM volume 2, CPUID leaves 1 and 7; AMD APM volume 3, appendix E. */
static uint32_t x86_features(uint32_t max_leaf, int *amx_refused)
{
    uint32_t features = 1u << CR_TIER_SCALAR;
    struct regs one = cpuid(1, 0);
    if (max_leaf < 7 || !has(one.c, 27)) {
        return features;
    }
    uint64_t state = saved_state();
    struct regs seven = cpuid(7, 0);
    struct regs seven1 = seven.a >= 1 ? cpuid(7, 1) : (struct regs){0, 0, 0, 0};
    bool ymm = (state & 0x6) == 0x6;
    bool zmm = (state & 0xe6) == 0xe6;
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
        *amx_refused = !may_use_tiles(state);
        features |= *amx_refused ? 0 : 1u << CR_TIER_AMX;
    }
    return features;
}

/* Deterministic cache parameters: leaf 4 on Intel, leaf 0x8000001d on AMD, of one shape. */
static void x86_caches(struct cr_cpu *cpu, uint32_t leaf)
{
    for (uint32_t i = 0; i < 16; i++) {
        struct regs r = cpuid(leaf, i);
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

static void x86_brand(struct cr_cpu *cpu)
{
    char text[49] = {0};
    for (uint32_t i = 0; i < 3; i++) {
        struct regs r = cpuid(0x80000002u + i, 0);
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

static void detect(struct cr_cpu *cpu)
{
    struct regs zero = cpuid(0, 0);
    memcpy(cpu->vendor, &zero.b, 4);
    memcpy(cpu->vendor + 4, &zero.d, 4);
    memcpy(cpu->vendor + 8, &zero.c, 4);
    bool amd = strcmp(cpu->vendor, "AuthenticAMD") == 0 || strcmp(cpu->vendor, "HygonGenuine") == 0;

    struct regs one = cpuid(1, 0);
    int family = (int)(one.a >> 8 & 0xf), model = (int)(one.a >> 4 & 0xf);
    if (family == 6 || family == 15) {
        model |= (int)(one.a >> 16 & 0xf) << 4;
    }
    if (family == 15) {
        family += (int)(one.a >> 20 & 0xff);
    }
    cpu->family = family;
    cpu->model = model;

    uint32_t max_extended = cpuid(0x80000000u, 0).a;
    if (max_extended >= 0x80000004u) {
        x86_brand(cpu);
    }
    if (amd && max_extended >= 0x8000001du && has(cpuid(0x80000001u, 0).c, 22)) {
        x86_caches(cpu, 0x8000001du);
    } else if (!amd && zero.a >= 4) {
        x86_caches(cpu, 4);
    }

    cpu->features = x86_features(zero.a, &cpu->amx_refused);
    if (cpu->features >> CR_TIER_AVX2 & 1u) {
        cpu->tier = CR_TIER_AVX2;
    }
    if (cpu->features >> CR_TIER_AVX512 & 1u) {
        cpu->tier = CR_TIER_AVX512;
    }
    /* VDPBF16PS runs at twice the f32 rate on AMD from family 0x19 on and at half of it on Intel, where measured. */
    if (amd && family >= 0x19 && (cpu->features >> CR_TIER_AVX512_BF16 & 1u)) {
        cpu->tier = CR_TIER_AVX512_BF16;
    }
#ifdef CR_HAVE_AMX
    if (cpu->features >> CR_TIER_AMX & 1u) {
        cpu->tier = CR_TIER_AMX;
    }
#endif
}

#else

static void detect(struct cr_cpu *cpu)
{
    cpu->features = 1u << CR_TIER_SCALAR;
#if defined(__aarch64__)
    memcpy(cpu->vendor, "Arm", 4);
    cpu->features |= 1u << CR_TIER_NEON; /* part of the base architecture */
    cpu->tier = CR_TIER_NEON;
#endif
}

#endif

void cr_cpu_detect(struct cr_cpu *cpu)
{
    memset(cpu, 0, sizeof *cpu);
    cpu->tier = CR_TIER_SCALAR;
    detect(cpu);
}

static void append(struct cr_error *err, size_t *used, const char *text)
{
    for (; *text != '\0' && *used + 1 < sizeof err->message; text++) {
        unsigned char c = (unsigned char)*text;
        err->message[(*used)++] = c >= 0x20 && c < 0x7f && c != '"' && c != '\\' ? (char)c : '?';
    }
    err->message[*used] = '\0';
}

static cr_status refuse(const struct cr_cpu *cpu, const char *name, const char *why, struct cr_error *err)
{
    if (err != NULL) {
        size_t used = 0;
        append(err, &used, "CPU tier '");
        append(err, &used, name);
        append(err, &used, why);
        const char *separator = "";
        for (size_t i = 0; i < N_TIERS; i++) {
            if (cpu->features >> tiers[i].tier & 1u) {
                append(err, &used, separator);
                append(err, &used, tiers[i].name);
                separator = ", ";
            }
        }
        err->status = CR_E_USAGE;
    }
    return CR_E_USAGE;
}

cr_status cr_cpu_cap(const struct cr_cpu *cpu, const char *name, enum cr_tier *tier, struct cr_error *err)
{
    if (name == NULL || name[0] == '\0') {
        *tier = cpu->tier;
        return CR_OK;
    }
    for (size_t i = 0; i < N_TIERS; i++) {
        if (strcmp(tiers[i].name, name) == 0) {
            if (!(cpu->features >> tiers[i].tier & 1u)) {
                return refuse(cpu, name, "' is not available on this CPU, expected one of ", err);
            }
            *tier = tiers[i].tier;
            return CR_OK;
        }
    }
    return refuse(cpu, name, "' is unknown, expected one of ", err);
}
