/* roofline: one drawing of all results. Operations a second over operations a byte, both axes logarithmic; slanted
 * lines are the levels of memory, level ones the arithmetic units (Williams et al. 2009). Every entry is a mark whose
 * title gives its numbers; the peer's are rings. Private to the report.
 */
#ifndef CR_BENCH_ROOFLINE_H
#define CR_BENCH_ROOFLINE_H

#include "bench/measure.h"
#include "runtime/core/buf.h"

/* Style sheet of marks and lines; colours for light and dark. */
extern const char cr_bench_roofline_style[];

/* The drawing and its legend; results without a time are left out. */
void cr_bench_roofline(struct cr_buf *out, const struct cr_bench_result *results, size_t n_results);

/* A rate or a time in three figures: "12.3 G", "4.56 ms". */
void cr_bench_put_rate(struct cr_buf *out, double value);
void cr_bench_put_time(struct cr_buf *out, double seconds);

#endif
