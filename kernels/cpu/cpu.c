#define _GNU_SOURCE /* syscall */
#include "credence/cpu.h"
#include "kernels/cpu/x86.h"

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#define X86 1
#else
#define X86 0
#endif

#if defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
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

static struct cr_x86_regs ask(void *ctx, uint32_t leaf, uint32_t subleaf)
{
    (void)ctx;
    struct cr_x86_regs r = {0, 0, 0, 0};
    __cpuid_count(leaf, subleaf, r.a, r.b, r.c, r.d);
    return r;
}

/* Register state that the operating system saves (XCR0). Needs OSXSAVE. */
static uint64_t saved_state(void *ctx)
{
    (void)ctx;
    uint32_t low, high;
    __asm__ volatile(".byte 0x0f, 0x01, 0xd0" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

/* Tile data is saved only for processes that asked: Linux, Documentation/arch/x86/xstate.rst. A kernel that does not
 * know the request does not set the bits of tiles in XCR0 either. */
static bool may_use_tiles(void *ctx)
{
    (void)ctx;
#if defined(__linux__) && defined(SYS_arch_prctl)
    const long request = 0x1023, tile_data = 18; /* ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA */
    return syscall(SYS_arch_prctl, request, tile_data) == 0;
#else
    return false;
#endif
}

static void detect(struct cr_cpu *cpu)
{
    const struct cr_x86_source here = {ask, saved_state, may_use_tiles, NULL};
    cr_x86_describe(cpu, &here);
}

#elif defined(__aarch64__)

#if defined(__linux__)
static uint32_t arm_features(void)
{
    uint32_t features = 0;
    unsigned long hwcap = getauxval(AT_HWCAP), hwcap2 = getauxval(AT_HWCAP2);
    if (hwcap & HWCAP_ASIMDDP) {
        features |= 1u << CR_TIER_NEON_DOTPROD;
        features |= hwcap2 & HWCAP2_I8MM ? 1u << CR_TIER_NEON_I8MM : 0;
        features |= hwcap2 & HWCAP2_BF16 ? 1u << CR_TIER_NEON_BF16 : 0;
    }
    return features;
}

/* Main ID register, which the kernel emulates for programs: implementer in bits 31-24, part in 15-4. */
static void arm_identity(struct cr_cpu *cpu)
{
    uint64_t midr;
    if (!(getauxval(AT_HWCAP) & HWCAP_CPUID)) {
        return;
    }
    __asm__("mrs %0, midr_el1" : "=r"(midr));
    cpu->family = (int)(midr >> 24 & 0xff);
    cpu->model = (int)(midr >> 4 & 0xfff);
}
#else
static uint32_t arm_features(void)
{
    return 0;
}

static void arm_identity(struct cr_cpu *cpu)
{
    (void)cpu;
}
#endif

enum { IMPLEMENTER_ARM = 0x41 };

static void detect(struct cr_cpu *cpu)
{
    memcpy(cpu->vendor, "Arm", 4);
    arm_identity(cpu);
    cpu->features = 1u << CR_TIER_SCALAR | 1u << CR_TIER_NEON | arm_features(); /* NEON is part of the architecture */
    cpu->tier = CR_TIER_NEON;
    if (cpu->features >> CR_TIER_NEON_DOTPROD & 1u) {
        cpu->tier = CR_TIER_NEON_DOTPROD;
    }
    if (cpu->features >> CR_TIER_NEON_I8MM & 1u) {
        cpu->tier = CR_TIER_NEON_I8MM;
    }
    /* BFDOT issues at the rate of FMLA and does twice the products on Arm's own cores that have it (software
     * optimization guides of Neoverse N2, V1, V2); elsewhere unknown. By implementer, not by part: the cores of one
     * machine may differ, and what computes must not depend on where the program happened to start. */
    if (cpu->family == IMPLEMENTER_ARM && (cpu->features >> CR_TIER_NEON_BF16 & 1u)) {
        cpu->tier = CR_TIER_NEON_BF16;
    }
}

#else

static void detect(struct cr_cpu *cpu)
{
    cpu->features = 1u << CR_TIER_SCALAR;
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
