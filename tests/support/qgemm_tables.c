#include "tests/support/qgemm_tables.h"

#include "tests/support/amx_trap.h"
#include "tests/support/qgemm_model.h"

const char *cr_qgemm_table_name(unsigned table)
{
    return table == CR_AMX_MODEL_PLAIN     ? "amx (model)"
           : table == CR_AMX_MODEL_WORDS   ? "amx (model, words)"
           : table == CR_AMX_MODEL_TRAPPED ? "amx (emulated)"
                                           : cr_tier_name((enum cr_tier)table);
}

void cr_qgemm_table(struct cr_qgemm_ops *ops, unsigned table)
{
    enum cr_tier tier = table < CR_AMX_MODEL_PLAIN ? (enum cr_tier)table : CR_TIER_AMX;
    ck_assert_int_eq(cr_qgemm_ops_init(ops, tier), CR_OK);
    if (table == CR_AMX_MODEL_PLAIN) {
        *ops = (struct cr_qgemm_ops){cr_qgemm_fwd_model, cr_qgemm_dx_model, 32, CR_X_BF16, CR_TIER_AMX};
    } else if (table == CR_AMX_MODEL_WORDS) {
        *ops = (struct cr_qgemm_ops){cr_qgemm_fwd_model_words, cr_qgemm_dx_model_words, 32, CR_X_BF16, CR_TIER_AMX};
    }
}

size_t cr_qgemm_tables(unsigned tables[CR_QGEMM_TABLES])
{
    enum cr_tier tiers[CR_TEST_TIERS];
    size_t n = cr_test_tiers(tiers);
    bool words = false, hardware = false;
    for (size_t i = 0; i < n; i++) {
        tables[i] = tiers[i];
        words = words || tiers[i] == CR_TIER_AVX512_BF16;
        hardware = hardware || tiers[i] == CR_TIER_AMX;
    }
    if (cr_test_every(2) > 1) {
        return n; /* a model on an emulator: too slow */
    }
    tables[n++] = CR_AMX_MODEL_PLAIN;
    if (words) {
        struct cr_qgemm_ops ops;
        cr_qgemm_ops_init(&ops, CR_TIER_AMX);
        tables[n++] = CR_AMX_MODEL_WORDS;
        if (!hardware && ops.tier == CR_TIER_AMX && cr_amx_trap_install()) {
            tables[n++] = CR_AMX_MODEL_TRAPPED;
        }
    }
    return n;
}
