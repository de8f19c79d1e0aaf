/* result: the figures of an evaluation as the JSON file that other programs read. Private to runtime/eval. */
#ifndef CR_EVAL_RESULT_H
#define CR_EVAL_RESULT_H

#include <jansson.h>

#include "credence/credence.h"
#include "runtime/core/error.h"

/* {"model","method","samples","tokens","seconds","tok_s","groups":[{"task","n","accuracy","nll","ece","brier",
 * "auroc_error"}...],"all":{...}}; text data also "perplexity". Several members: "members", and in each group "running"
 * (the figures after the first 1, 2, ...) and for choices "entropy", "expected_entropy", "mutual_information",
 * "disagreement"; over all pairs of members "pair_disagreement" and "pair_distance". With a fitted temperature
 * "calibration" says it, and each group has "calibrated": its figures at that temperature, the others staying raw.
 * "ood" when it was asked for. What does not apply is null. Written atomically. Errors: CR_E_IO, CR_E_MEMORY. */
cr_status cr_result_write(const struct cr_eval_result *result, const char *model, const char *path,
                          struct cr_error *err);

/* A number, or null when it is none. */
json_t *cr_json_finite(double value);

/* A string; bytes that are not UTF-8 are written as escapes. */
json_t *cr_json_text(const char *text);

#endif
