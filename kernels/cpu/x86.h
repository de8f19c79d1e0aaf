/* cpu, private: what an x86 processor and its operating system answer, and what is made of the answers. Apart from the
 * instructions that ask, so that tests can put any processor in the place of this one.
 */
#ifndef CR_CPU_X86_H
#define CR_CPU_X86_H

#include <stdbool.h>
#include <stdint.h>

#include "credence/cpu.h"

struct cr_x86_regs {
    uint32_t a, b, c, d;
};

struct cr_x86_source {
    struct cr_x86_regs (*cpuid)(void *ctx, uint32_t leaf, uint32_t subleaf);
    uint64_t (*saved_state)(void *ctx); /* XCR0; called only where CPUID says that it can be read */
    bool (*may_use_tiles)(void *ctx);   /* the permission; called only where the processor and XCR0 have tiles */
    void *ctx;
};

/* Fills a zeroed *cpu. Which tier is the best is a table of families, never a measurement, so that results do not
 * change from run to run. */
void cr_x86_describe(struct cr_cpu *cpu, const struct cr_x86_source *source);

#endif
