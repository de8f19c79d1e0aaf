/* qgemm_tables: the tables of qgemm that a test walks: those of the tiers, and the amx tier on models of the tiles. */
#ifndef CR_TESTS_QGEMM_TABLES_H
#define CR_TESTS_QGEMM_TABLES_H

#include "credence/kernels/qgemm.h"
#include "tests/support/kernel_test.h"

/* Beside the values of enum cr_tier: */
enum {
    CR_AMX_MODEL_PLAIN = 40, /* source of the amx tier with portable dequantisation: every machine */
    CR_AMX_MODEL_WORDS,      /* the same with the dequantisation of the library */
    CR_AMX_MODEL_TRAPPED,    /* objects of the library, tile instructions emulated one by one: slow */
    CR_QGEMM_TABLES = CR_TEST_TIERS + 3
};

/* What this CPU and the cap allow. Returns their number. */
size_t cr_qgemm_tables(unsigned tables[CR_QGEMM_TABLES]);
void cr_qgemm_table(struct cr_qgemm_ops *ops, unsigned table);
const char *cr_qgemm_table_name(unsigned table);

#endif
