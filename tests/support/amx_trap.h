/* amx_trap: the tile instructions of compiled code on a processor that has none. Each one raises SIGILL; the handler
 * decodes it and runs it on the model (kernels/common/amx_model.h). So the objects of the library's amx tier run as
 * they are, with the assembly, operands and order that the compiler gave them. Slow: about a microsecond each.
 */
#ifndef CR_TESTS_AMX_TRAP_H
#define CR_TESTS_AMX_TRAP_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/common/amx_model.h"

/* Installs the handler in this process; one thread only may use tiles. False where the architecture is another. */
bool cr_amx_trap_install(void);

/* Instructions emulated so far, and whether tiles are released now. */
uint64_t cr_amx_trap_count(void);
bool cr_amx_trap_released(void);

#endif
