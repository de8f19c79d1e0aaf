/* fake_cpu: x86 processors that this machine is not, as cr_cpu_detect would describe them. */
#ifndef CR_TESTS_FAKE_CPU_H
#define CR_TESTS_FAKE_CPU_H

#include <stdbool.h>

#include "credence/cpu.h"

struct cr_fake_cpu {
    const char *vendor; /* twelve characters */
    const char *name;   /* brand, at most 47 characters */
    uint32_t signature; /* CPUID leaf 1, EAX */
    bool avx2, avx512, bf16, amx;
    uint64_t saved;      /* XCR0; 0: it cannot be read */
    bool permission;     /* to use tiles */
    unsigned n_requests; /* for the permission, so far */
};

/* XCR0 of a system that saves vectors of 256 and of 512 bits, and one that saves tiles too. */
enum { CR_SAVED_YMM = 0x7, CR_SAVED_ZMM = 0xe7, CR_SAVED_TILES = 0x600e7 };

/* Sapphire Rapids (family 6, model 143) and Zen 4 (family 25, model 17) with everything allowed. */
struct cr_fake_cpu cr_fake_sapphire_rapids(void);
struct cr_fake_cpu cr_fake_zen4(void);

void cr_fake_cpu_describe(struct cr_cpu *cpu, struct cr_fake_cpu *fake);

#endif
