#include "tests/support/fake_cpu.h"

#include <string.h>

#include "kernels/cpu/x86.h"

static uint32_t bit(unsigned n, bool set)
{
    return set ? 1u << n : 0;
}

/* L1d 48 KiB, L2 2 MiB: ways, partitions, line and sets, less one each; leaf 4 and leaf 0x8000001d alike. */
static struct cr_x86_regs cache(uint32_t index)
{
    static const struct cr_x86_regs levels[] = {
        {1 | 1 << 5, 11u << 22 | 63, 63, 0}, {2 | 1 << 5, 7u << 22 | 63, 63, 0}, {3 | 2 << 5, 15u << 22 | 63, 2047, 0}};
    return index < 3 ? levels[index] : (struct cr_x86_regs){0, 0, 0, 0};
}

static struct cr_x86_regs cpuid(void *ctx, uint32_t leaf, uint32_t subleaf)
{
    const struct cr_fake_cpu *fake = ctx;
    struct cr_x86_regs r = {0, 0, 0, 0};
    char text[48] = {0};
    switch (leaf) {
    case 0:
        r.a = 0x20;
        memcpy(&r.b, fake->vendor, 4);
        memcpy(&r.d, fake->vendor + 4, 4);
        memcpy(&r.c, fake->vendor + 8, 4);
        return r;
    case 1:
        r.a = fake->signature;
        r.c = bit(12, fake->avx2) | bit(27, fake->saved != 0) | bit(28, fake->avx2) | bit(29, fake->avx2);
        return r;
    case 7:
        if (subleaf == 1) {
            r.a = bit(5, fake->bf16);
            return r;
        }
        r.a = 1;
        r.b = bit(5, fake->avx2) | bit(8, fake->avx2) | bit(16, fake->avx512) | bit(17, fake->avx512) |
              bit(30, fake->avx512) | bit(31, fake->avx512);
        r.c = bit(11, fake->avx512);
        r.d = bit(22, fake->amx) | bit(24, fake->amx) | bit(25, fake->amx);
        return r;
    case 4:
    case 0x8000001d:
        return cache(subleaf);
    case 0x80000000:
        r.a = 0x80000021;
        return r;
    case 0x80000001:
        r.c = bit(22, true);
        return r;
    case 0x80000002:
    case 0x80000003:
    case 0x80000004:
        memcpy(text, fake->name, strlen(fake->name));
        memcpy(&r, text + 16 * (leaf - 0x80000002), 16);
        return r;
    default:
        return r;
    }
}

static uint64_t saved_state(void *ctx)
{
    return ((const struct cr_fake_cpu *)ctx)->saved;
}

static bool may_use_tiles(void *ctx)
{
    struct cr_fake_cpu *fake = ctx;
    fake->n_requests++;
    return fake->permission;
}

struct cr_fake_cpu cr_fake_sapphire_rapids(void)
{
    return (struct cr_fake_cpu){.vendor = "GenuineIntel",
                                .name = "Intel(R) Xeon(R) Platinum 8480+  ",
                                .signature = 0x000806f8,
                                .avx2 = true,
                                .avx512 = true,
                                .bf16 = true,
                                .amx = true,
                                .saved = CR_SAVED_TILES,
                                .permission = true};
}

struct cr_fake_cpu cr_fake_zen4(void)
{
    return (struct cr_fake_cpu){.vendor = "AuthenticAMD",
                                .name = "AMD EPYC 9R14",
                                .signature = 0x00a10f11,
                                .avx2 = true,
                                .avx512 = true,
                                .bf16 = true,
                                .saved = CR_SAVED_ZMM};
}

void cr_fake_cpu_describe(struct cr_cpu *cpu, struct cr_fake_cpu *fake)
{
    const struct cr_x86_source source = {cpuid, saved_state, may_use_tiles, fake};
    memset(cpu, 0, sizeof *cpu);
    cr_x86_describe(cpu, &source);
}
