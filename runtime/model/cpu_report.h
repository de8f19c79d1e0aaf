/* cpu_report: what a processor offers, and which variant of each kernel family computes on it, as text. */
#ifndef CR_MODEL_CPU_REPORT_H
#define CR_MODEL_CPU_REPORT_H

#include "credence/credence.h"
#include "runtime/model/calibration.h"

/* cr_cpu_report for a processor that has been detected. `measured` and `host` may be NULL. Errors: CR_E_USAGE for a cap
 * that it cannot serve, CR_E_IO when `emit` refuses, CR_E_MEMORY. */
cr_status cr_cpu_report_of(const struct cr_cpu *cpu, const struct cr_calibration *measured, const struct cr_host *host,
                           cr_emit_fn *emit, void *ctx, struct cr_error *err);

#endif
