#define _GNU_SOURCE /* syscall */
#include "credence/cpu.h"
#include "kernels/cpu/x86.h"

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
