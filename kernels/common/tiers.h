/* tiers: how a family written over lanes becomes one variant per tier.
 *
 * <op>_lanes.h is the template: static functions and `static void fill(struct cr_<op>_ops *)`. Each <op>_<tier>.c
 * includes it and says CR_TIER_VARIANT(<op>, <tier>); <op>.c says CR_TIER_OPS_INIT(<op>), which is cr_<op>_ops_init. A
 * family with a tier of its own writes that function: CR_TIER_DECLARE, cr_tier_accepts, CR_TIER_CLIMB, then its rungs.
 */
#ifndef CR_COMMON_TIERS_H
#define CR_COMMON_TIERS_H

#include <stdbool.h>
#include <stddef.h>

#include "credence/cpu.h"

/* The contract of every cr_<op>_ops_init: a table, and a tier of either architecture. One that this build does not
 * serve gets the reference. */
static inline bool cr_tier_accepts(const void *ops, enum cr_tier tier)
{
    unsigned value = (unsigned)tier;
    return ops != NULL && (value <= CR_TIER_AMX || (value >= CR_TIER_NEON && value <= CR_TIER_NEON_BF16));
}

/* The table of one tier as an external function. */
#define CR_TIER_VARIANT(op, name)                                                                                      \
    void cr_##op##_fill_##name(struct cr_##op##_ops *ops);                                                             \
    void cr_##op##_fill_##name(struct cr_##op##_ops *ops)                                                              \
    {                                                                                                                  \
        fill(ops);                                                                                                     \
    }

#if CR_HAVE_X86
#define CR_TIER_DECLARE(op)                                                                                            \
    void cr_##op##_fill_ref(struct cr_##op##_ops *ops);                                                                \
    void cr_##op##_fill_avx2(struct cr_##op##_ops *ops);                                                               \
    void cr_##op##_fill_avx512(struct cr_##op##_ops *ops);
#define CR_TIER_CLIMB(op, ops, tier)                                                                                   \
    do {                                                                                                               \
        cr_##op##_fill_ref(ops);                                                                                       \
        if ((tier) >= CR_TIER_AVX512 && (tier) <= CR_TIER_AMX) {                                                       \
            cr_##op##_fill_avx512(ops);                                                                                \
        } else if ((tier) == CR_TIER_AVX2) {                                                                           \
            cr_##op##_fill_avx2(ops);                                                                                  \
        }                                                                                                              \
    } while (0)
#elif CR_HAVE_NEON
#define CR_TIER_DECLARE(op)                                                                                            \
    void cr_##op##_fill_ref(struct cr_##op##_ops *ops);                                                                \
    void cr_##op##_fill_neon(struct cr_##op##_ops *ops);
#define CR_TIER_CLIMB(op, ops, tier)                                                                                   \
    do {                                                                                                               \
        cr_##op##_fill_ref(ops);                                                                                       \
        if ((tier) >= CR_TIER_NEON) {                                                                                  \
            cr_##op##_fill_neon(ops);                                                                                  \
        }                                                                                                              \
    } while (0)
#else
#define CR_TIER_DECLARE(op) void cr_##op##_fill_ref(struct cr_##op##_ops *ops);
#define CR_TIER_CLIMB(op, ops, tier)                                                                                   \
    do {                                                                                                               \
        (void)(tier);                                                                                                  \
        cr_##op##_fill_ref(ops);                                                                                       \
    } while (0)
#endif

/* cr_<op>_ops_init for the tiers that CR_TIER_CLIMB knows. */
#define CR_TIER_OPS_INIT(op)                                                                                           \
    CR_TIER_DECLARE(op)                                                                                                \
    cr_status cr_##op##_ops_init(struct cr_##op##_ops *ops, enum cr_tier tier)                                         \
    {                                                                                                                  \
        if (!cr_tier_accepts(ops, tier)) {                                                                             \
            return CR_E_USAGE;                                                                                         \
        }                                                                                                              \
        CR_TIER_CLIMB(op, ops, tier);                                                                                  \
        return CR_OK;                                                                                                  \
    }

#endif
