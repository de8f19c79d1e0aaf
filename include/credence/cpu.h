/* CPU tiers: which instruction sets this machine can run, and the cap put on them. */
#ifndef CREDENCE_CPU_H
#define CREDENCE_CPU_H

#include "credence/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Ascending inside one architecture. A kernel family fills its table with the reference and climbs. */
enum cr_tier {
    CR_TIER_SCALAR = 0,
    CR_TIER_AVX2 = 1,          /* AVX2, FMA, F16C, BMI2 */
    CR_TIER_AVX512 = 2,        /* F BW DQ VL VNNI */
    CR_TIER_AVX512_BF16 = 3,   /* VDPBF16PS, only where it is faster than f32 FMA (AMD Zen 4 and later) */
    CR_TIER_AMX = 4,           /* tile, bf16, int8, and all of avx512_bf16; without tiles avx512 computes */
    CR_TIER_NEON = 16,         /* Advanced SIMD, in every 64-bit Arm processor */
    CR_TIER_NEON_DOTPROD = 17, /* 8-bit dot products; implies neon */
    CR_TIER_NEON_I8MM = 18,    /* 8-bit matrix products; implies neon_dotprod */
    CR_TIER_NEON_BF16 = 19     /* BFMMLA; implies neon_dotprod, not neon_i8mm. Default only on Arm's own cores */
};

struct cr_cpu {
    enum cr_tier tier; /* best tier that this CPU and operating system support and this library serves */
    uint32_t features; /* bit (1u << tier) set for every x86 or Arm tier present; avx512_bf16 even where slow */
    int amx_refused;   /* 1: the processor has AMX, but the operating system does not let this process use it */
    int family, model; /* x86 display family and model; Arm implementer and part number; 0 = unknown */
    int64_t l1d_bytes, l2_bytes, l3_bytes; /* 0 = unknown */
    char vendor[16];                       /* "AuthenticAMD", "GenuineIntel", ... */
    char name[64];                         /* brand string */
};

/* Fills *cpu, never fails. Asks the operating system: for the register state it saves and, where the processor has AMX,
 * for the permission to use tiles (Linux: arch_prctl, 5.16 and later). It lasts for the process and its children,
 * asking again changes nothing, and from then on an alternate signal stack must have room for 8 KiB more. */
CR_API void cr_cpu_detect(struct cr_cpu *cpu);

/* "scalar", "avx2", ...; "unknown" for a value outside the enum. Static storage. */
CR_API const char *cr_tier_name(enum cr_tier tier);

/* Resolves a cap by name against a detected CPU. NULL or "" = no cap. Errors: CR_E_USAGE for an unknown name
 * or a tier that the CPU lacks; *tier is untouched then. */
CR_API cr_status cr_cpu_cap(const struct cr_cpu *cpu, const char *name, enum cr_tier *tier, struct cr_error *err);

#ifdef __cplusplus
}
#endif
#endif
