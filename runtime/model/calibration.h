/* calibration: what this machine's units and memory reach right now on all workers together. For reports and estimates;
 * nothing is chosen by it. Takes about 0.2 seconds, longer on a busy machine. */
#ifndef CR_MODEL_CALIBRATION_H
#define CR_MODEL_CALIBRATION_H

#include "credence/cpu.h"
#include "credence/parallel.h"

struct cr_calibration {
    double f32;    /* multiply-adds in single precision, FLOP/s */
    double dot;    /* bf16 dot product, FLOP/s; 0 = the tier has none */
    double tile;   /* bf16 tile product, FLOP/s; 0 = the tier has none */
    double memory; /* y = a y + x over arrays beyond the last cache: two reads and a write, bytes/s; 0 = no room for
                      them */
};

/* The best burst of each, by the loops of `tier`. */
void cr_calibration_measure(const struct cr_cpu *cpu, enum cr_tier tier, const struct cr_parallel *parallel,
                            struct cr_calibration *out);

#endif
