/* The floating-point control state of a thread: results must not depend on what a caller left in it. */
#ifndef CR_THREAD_FLOAT_ENV_H
#define CR_THREAD_FLOAT_ENV_H

#include <stdint.h>

/* Sets round to nearest, no flushing of denormals, all traps masked; returns the state to give back. */
static inline uint64_t cr_float_env_enter(void)
{
#if defined(__x86_64__)
    unsigned saved = __builtin_ia32_stmxcsr();
    __builtin_ia32_ldmxcsr(0x1f80); /* the processor's own state after reset */
    return saved;
#elif defined(__aarch64__)
    uint64_t saved;
    __asm__ volatile("mrs %0, fpcr" : "=r"(saved));
    __asm__ volatile("msr fpcr, %0" : : "r"((uint64_t)0));
    return saved;
#else
    return 0;
#endif
}

static inline void cr_float_env_leave(uint64_t saved)
{
#if defined(__x86_64__)
    __builtin_ia32_ldmxcsr((unsigned)saved);
#elif defined(__aarch64__)
    __asm__ volatile("msr fpcr, %0" : : "r"(saved));
#else
    (void)saved;
#endif
}

#endif
