/* credence_kernels: numerics of transformer layers on quantised weights, of their low-rank adapters and optimisers, for
 * any runtime. One header a family under credence/kernels/: each is the family's whole contract.
 *
 * How a host calls a family
 *   tables    cr_<op>_ops_init(&ops, tier) fills a table of functions, once, for the tier of cr_cpu_detect or below.
 *             It is a pure function; CR_E_USAGE for ops NULL or a tier outside the enum, ops untouched then. A tier
 *             that this build does not serve gets the portable reference. A tier that the CPU lacks is the caller's
 *             fault: cr_cpu_cap checks names against a CPU.
 *   work      ops.fn(&args, begin, end[, scratch]) computes the items [begin, end). The contract says what an item is
 *             and of what grain the bounds are multiples. Disjoint ranges may run at the same time on any threads, in
 *             any order: the bits do not depend on it.
 *   memory    the caller's: operands, results and scratch, each 64-byte aligned where the contract speaks of lines.
 *             cr_<op>_scratch_bytes gives what one call on one thread needs; scratch holds nothing between calls.
 *   checks    table functions trust their arguments. cr_<op>_<fn>_checked(&ops, &args, ..., &err) first checks what
 *             can be seen without reading the operands, then runs; it returns CR_E_USAGE, names the argument in err
 *             and touches nothing else when a check fails. A host may check one call of a kind and run the rest.
 *             The loops of peak have none: they are for reports.
 *   sizes     cr_<op>_scratch_bytes takes any numbers: SIZE_MAX for what no call computes because it is too large.
 *
 * Helpers beside the tables trust their arguments too, and have no checked form but where one is named:
 *   cr_qtype_info          any type
 *   cr_dequant_fn_for      any type; a tier that this CPU has. cr_dequant_checked finds the function and calls it
 *   cr_philox4x32          counter, key and out not NULL
 *   cr_normal_at           noise not NULL, e < 2^34
 *   cr_uniform_f32         key not NULL, out [n], n <= 2^34
 *   cr_permutation         key not NULL, out [n], n < 2^32
 *   cr_rope_table          table [max_pos][n_rot / 2][2], n_rot even, base > 0, no factor 0; angles up to 1e8
 *   cr_xent_merge          six arrays [n], no aliasing; no m is NaN or +inf
 *   cr_ivon_merge          cr_ivon_merge_checked
 *   cr_dplr_n_sums         any number
 *   cr_dplr_log_density    totals [cr_dplr_n_sums(n_rows)], scratch [n_rows (n_rows + 1)] doubles, a > 0, b >= 0
 *   cr_exp, cr_ln, ...     any number (credence/kernels/math.h)
 *   cr_tl16_...            sizes that do not overflow: below 2^58 features
 *
 * The library holds no state, starts no thread, allocates nothing and neither reads nor prints. Argument structs are
 * zero-initialised, then filled, and 0 is a value: where there is nothing to scale or drop, clip and grad_scale are 1 and
 * dropout.keep16 is 65536. Fields are added at the end only.
 */
#ifndef CREDENCE_KERNELS_H
#define CREDENCE_KERNELS_H

#include "credence/cpu.h"
#include "credence/status.h"
#include "credence/version.h"

#include "credence/kernels/act.h"
#include "credence/kernels/adamw.h"
#include "credence/kernels/attention.h"
#include "credence/kernels/cast.h"
#include "credence/kernels/dequant.h"
#include "credence/kernels/dplr.h"
#include "credence/kernels/embed.h"
#include "credence/kernels/ivon.h"
#include "credence/kernels/lowrank.h"
#include "credence/kernels/math.h"
#include "credence/kernels/norm.h"
#include "credence/kernels/peak.h"
#include "credence/kernels/qgemm.h"
#include "credence/kernels/rng.h"
#include "credence/kernels/rope.h"
#include "credence/kernels/tl16.h"
#include "credence/kernels/xent.h"

#ifdef __cplusplus
extern "C" {
#endif

/* CREDENCE_VERSION of the library that is linked. Static storage. */
CR_API const char *cr_kernels_version(void);

#ifdef __cplusplus
}
#endif
#endif
