#define _GNU_SOURCE /* names of the registers in ucontext.h */

#include "tests/support/amx_trap.h"

#if defined(__x86_64__) && defined(__linux__)

#include <signal.h>
#include <ucontext.h>

static struct amx_model model;
static uint64_t count;

/* Integer registers by their number in the encoding: Intel SDM volume 2, table 3-1. */
static const int registers[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                  REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};

/* One instruction with a three-byte VEX prefix, map 0F38, W0, 128 bits: Intel SDM volume 2, 2.3. */
struct instruction {
    unsigned prefix; /* 0 none, 1 66, 2 F3, 3 F2 */
    unsigned opcode, reg, rm, vvvv;
    bool memory;
    uintptr_t base, stride; /* of the memory operand: everything but the index, and the scaled index */
    unsigned n_bytes;
};

static int64_t displacement(const uint8_t *at, unsigned n_bytes)
{
    int32_t wide;
    memcpy(&wide, at, 4);
    return n_bytes == 1 ? (int8_t)at[0] : n_bytes == 4 ? wide : 0;
}

static bool decode(const uint8_t *code, const greg_t *gregs, struct instruction *in)
{
    if (code[0] != 0xc4 || (code[1] & 0x1f) != 2 || (code[2] & 0x84) != 0) {
        return false;
    }
    unsigned r = ~code[1] >> 7 & 1u, x = ~code[1] >> 6 & 1u, b = ~code[1] >> 5 & 1u, modrm = code[4], mod = modrm >> 6;
    *in = (struct instruction){.prefix = code[2] & 3u,
                               .opcode = code[3],
                               .reg = (modrm >> 3 & 7u) | r << 3,
                               .rm = modrm & 7u,
                               .vvvv = ~code[2] >> 3 & 15u,
                               .memory = mod != 3,
                               .n_bytes = 5};
    if (!in->memory) {
        return true;
    }
    unsigned n = mod == 1 ? 1 : mod == 2 ? 4 : 0, base = in->rm;
    if (in->rm == 4) {
        unsigned index = (code[5] >> 3 & 7u) | x << 3;
        in->n_bytes = 6;
        base = code[5] & 7u;
        in->stride = index == 4 ? 0 : (uintptr_t)gregs[registers[index]] << (code[5] >> 6);
    }
    bool absent = base == 5 && mod == 0;
    n = absent ? 4 : n;
    in->base = (uintptr_t)displacement(code + in->n_bytes, n);
    in->n_bytes += n;
    if (!absent) {
        in->base += (uintptr_t)gregs[registers[base | b << 3]];
    } else if (in->rm == 5) {
        in->base += (uintptr_t)gregs[REG_RIP] + in->n_bytes;
    }
    return true;
}

static bool execute(const struct instruction *in)
{
    unsigned which = in->opcode << 4 | in->prefix << 1 | in->memory;
    int reg = (int)in->reg;
    void *base = (void *)in->base;
    switch (which) {
    case 0x491: /* LDTILECFG */
        amx_model_config(&model, base);
        return true;
    case 0x490: /* TILERELEASE */
        amx_model_release(&model);
        return true;
    case 0x496: /* TILEZERO */
        amx_model_zero(&model, reg);
        return true;
    case 0x4b7: /* TILELOADD */
    case 0x4b3: /* TILELOADDT1 */
        amx_model_load(&model, reg, base, in->stride);
        return true;
    case 0x4b5: /* TILESTORED */
        amx_model_store(&model, reg, base, in->stride);
        return true;
    case 0x5c4: /* TDPBF16PS */
        amx_model_dp(&model, reg, (int)in->rm, (int)in->vvvv);
        return true;
    default:
        return false;
    }
}

static void handle(int signal_number, siginfo_t *info, void *context)
{
    (void)info;
    greg_t *gregs = ((ucontext_t *)context)->uc_mcontext.gregs;
    struct instruction in;
    if (!decode((const uint8_t *)gregs[REG_RIP], gregs, &in) || !execute(&in)) {
        signal(signal_number, SIG_DFL); /* the instruction faults again, for good */
        return;
    }
    count++;
    gregs[REG_RIP] += in.n_bytes;
}

bool cr_amx_trap_install(void)
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = handle;
    action.sa_flags = SA_SIGINFO;
    return sigaction(SIGILL, &action, NULL) == 0;
}

#else

static const struct amx_model model;
static const uint64_t count;

bool cr_amx_trap_install(void)
{
    return false;
}

#endif

uint64_t cr_amx_trap_count(void)
{
    return count;
}

bool cr_amx_trap_released(void)
{
    return !model.configured;
}
