#include "credence/kernels/dequant.h"

#include "kernels/dequant/variants.h"

/* Names, ids and sizes: the tensor type table of the GGUF specification (ggml/docs/gguf.md) and ggml's type list. */
#define SERVED(name, id, values, bytes) [id] = {name, id, values, bytes, true, false}
#define KNOWN(name, id, values, bytes) [id] = {name, id, values, bytes, false, false}
#define REMOVED(name, id) [id] = {name, id, 0, 0, false, true}

static const struct cr_qtype_info types[] = {
    SERVED("F32", 0, 1, 4),
    SERVED("F16", 1, 1, 2),
    SERVED("Q4_0", 2, 32, 18),
    SERVED("Q4_1", 3, 32, 20),
    REMOVED("Q4_2", 4),
    REMOVED("Q4_3", 5),
    SERVED("Q5_0", 6, 32, 22),
    SERVED("Q5_1", 7, 32, 24),
    SERVED("Q8_0", 8, 32, 34),
    KNOWN("Q8_1", 9, 32, 36),
    SERVED("Q2_K", 10, 256, 84),
    SERVED("Q3_K", 11, 256, 110),
    SERVED("Q4_K", 12, 256, 144),
    SERVED("Q5_K", 13, 256, 176),
    SERVED("Q6_K", 14, 256, 210),
    KNOWN("Q8_K", 15, 256, 292),
    KNOWN("IQ2_XXS", 16, 256, 66),
    KNOWN("IQ2_XS", 17, 256, 74),
    KNOWN("IQ3_XXS", 18, 256, 98),
    KNOWN("IQ1_S", 19, 256, 50),
    SERVED("IQ4_NL", 20, 32, 18),
    KNOWN("IQ3_S", 21, 256, 110),
    KNOWN("IQ2_S", 22, 256, 82),
    SERVED("IQ4_XS", 23, 256, 136),
    KNOWN("I8", 24, 1, 1),
    KNOWN("I16", 25, 1, 2),
    KNOWN("I32", 26, 1, 4),
    KNOWN("I64", 27, 1, 8),
    KNOWN("F64", 28, 1, 8),
    KNOWN("IQ1_M", 29, 256, 56),
    SERVED("BF16", 30, 1, 2),
    REMOVED("Q4_0_4_4", 31),
    REMOVED("Q4_0_4_8", 32),
    REMOVED("Q4_0_8_8", 33),
    KNOWN("TQ1_0", 34, 256, 54),
    KNOWN("TQ2_0", 35, 256, 66),
    REMOVED("IQ4_NL_4_4", 36),
    REMOVED("IQ4_NL_4_8", 37),
    REMOVED("IQ4_NL_8_8", 38),
    KNOWN("MXFP4", 39, 32, 17),
    KNOWN("NVFP4", 40, 64, 36),
    KNOWN("Q1_0", 41, 128, 18),
    KNOWN("Q2_0", 42, 64, 18),
};

const struct cr_qtype_info *cr_qtype_info(int type)
{
    if (type < 0 || (size_t)type >= sizeof types / sizeof types[0]) {
        return NULL;
    }
    return &types[type];
}

cr_dequant_fn *cr_dequant_fn_for(int type, enum cr_tier tier)
{
    if (type < 0 || type >= CR_DEQUANT_TYPES) {
        return NULL;
    }
    cr_dequant_fn *best = cr_dequant_ref[type];
#if CR_HAVE_X86
    if (tier < CR_TIER_NEON) {
        cr_dequant_fn *avx2 = tier >= CR_TIER_AVX2 ? cr_dequant_avx2[type] : NULL;
        cr_dequant_fn *avx512 = tier >= CR_TIER_AVX512 ? cr_dequant_avx512[type] : NULL;
        best = avx512 != NULL ? avx512 : avx2 != NULL ? avx2 : best;
    }
#elif CR_HAVE_NEON
    cr_dequant_fn *neon = tier >= CR_TIER_NEON ? cr_dequant_neon[type] : NULL;
    best = neon != NULL ? neon : best;
#else
    (void)tier;
#endif
    return best;
}
