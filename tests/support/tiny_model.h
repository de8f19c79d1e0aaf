/* tiny_model: valid model files of any served architecture and block type, small enough to train in a test. */
#ifndef CR_TESTS_TINY_MODEL_H
#define CR_TESTS_TINY_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "credence/status.h"

struct cr_tiny_spec {
    const char *architecture; /* NULL = "llama" */
    int type;                 /* block type of all matrices; K types need widths of 256: see cr_tiny_width */
    bool untied;              /* with an output.weight of its own */
    uint32_t n_layers;        /* 0 = 2 */
    uint32_t n_heads, n_kv;   /* 0 = 4, 2; head size = width / n_heads */
    bool rope_factors;        /* with a rope_freqs tensor */
    float linear_scaling;     /* 0 = none, else rope.scaling.factor */
    uint64_t seed;
};

/* Vocabulary of every tiny model: 256 byte tokens, " A" ... " Z", three markers; rows padded to a multiple of 32. */
enum { CR_TINY_VOCAB = 288, CR_TINY_TOKENS = 285 };

/* Width of the residual stream for a type: 64, or 256 where blocks need it. The feed-forward is twice as wide. */
uint32_t cr_tiny_width(int type);

/* Owned bytes of the file (cr_free). */
cr_status cr_tiny_model_bytes(const struct cr_tiny_spec *spec, uint8_t **data, size_t *n, struct cr_error *err);
cr_status cr_tiny_model_file(const struct cr_tiny_spec *spec, const char *path, struct cr_error *err);

#endif
