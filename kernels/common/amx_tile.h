/* amx_tile: the tile instructions in use, by one set of names for the hardware and for the model.
 *
 *   amx_config(&config)            LDTILECFG: tiles are zero afterwards
 *   amx_release()                  TILERELEASE
 *   amx_zero(t)                    TILEZERO
 *   amx_load(t, p, stride)         TILELOADD: row r of tile t from p + r * stride, all rows of its configuration
 *   amx_load_once(t, p, stride)    TILELOADDT1: the same for data that is not to stay in the first-level cache
 *   amx_store(t, p, stride)        TILESTORED
 *   amx_dp(c, a, b)                TDPBF16PS: tile c += a b, a in rows of bf16, b in lines of bf16 pairs (TL16)
 *
 * Tile numbers are literals 0 to 7. With CR_AMX_MODEL defined the names act on a model in memory, one a thread
 * (kernels/common/amx_model.h); a source file is the same in both builds. The library is never built that way.
 *
 * Hardware: plain inline assembly, because the intrinsics of gcc 12 say nothing about memory: a compiler may then move
 * the stores that fill a panel below the tile loads that read it. Volatile assembly keeps its order, the clobber keeps
 * loads and stores around it.
 */
#ifndef CR_COMMON_AMX_TILE_H
#define CR_COMMON_AMX_TILE_H

#include <stddef.h>
#include <stdint.h>

enum { AMX_ROWS = 16, AMX_ROW_BYTES = 64, AMX_TILE_BYTES = 1024 };

/* Memory operand of LDTILECFG, palette 1: Intel SDM volume 2, LDTILECFG. */
struct amx_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16]; /* tiles 8 to 15: zero */
    uint8_t rows[16];
};

/* Eight tiles of 16 rows by 64 bytes, the only configuration in use: edges are zero padding in memory. */
#define AMX_CONFIG_FULL                                                                                                \
    {                                                                                                                  \
        1, 0, {0}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16},                                 \
    }

#ifdef CR_AMX_MODEL

#include "kernels/common/amx_model.h"

static _Thread_local struct amx_model amx_thread_model;

#define amx_config(config) amx_model_config(&amx_thread_model, config)
#define amx_release() amx_model_release(&amx_thread_model)
#define amx_zero(t) amx_model_zero(&amx_thread_model, t)
#define amx_load(t, p, stride) amx_model_load(&amx_thread_model, t, p, stride)
#define amx_load_once(t, p, stride) amx_model_load(&amx_thread_model, t, p, stride)
#define amx_store(t, p, stride) amx_model_store(&amx_thread_model, t, p, stride)
#define amx_dp(c, a, b) amx_model_dp(&amx_thread_model, c, a, b)

#else

static inline __attribute__((always_inline)) void amx_config(const struct amx_config *config)
{
    __asm__ volatile("ldtilecfg %0" : : "m"(*config) : "memory");
}

static inline __attribute__((always_inline)) void amx_release(void)
{
    __asm__ volatile("tilerelease" : : : "memory");
}

#define amx_zero(t) __asm__ volatile("tilezero %%tmm" #t : :)
#define amx_load(t, p, stride)                                                                                         \
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #t : : "r"((const void *)(p)), "r"((size_t)(stride)) : "memory")
#define amx_load_once(t, p, stride)                                                                                    \
    __asm__ volatile("tileloaddt1 (%0,%1,1), %%tmm" #t : : "r"((const void *)(p)), "r"((size_t)(stride)) : "memory")
#define amx_store(t, p, stride)                                                                                        \
    __asm__ volatile("tilestored %%tmm" #t ", (%0,%1,1)" : : "r"((void *)(p)), "r"((size_t)(stride)) : "memory")
#define amx_dp(c, a, b) __asm__ volatile("tdpbf16ps %%tmm" #b ", %%tmm" #a ", %%tmm" #c : :)

#endif

#endif
