/* shapes: the models that the entries take their sizes from, and the numbers of tokens. */
#ifndef CR_BENCH_SHAPES_H
#define CR_BENCH_SHAPES_H

#include <stdbool.h>
#include <stddef.h>

struct cr_bench_model {
    const char *name;
    size_t width, heads, kv_heads, head_dim, ffn, vocab, layers;
    bool neox; /* which features rotary embedding pairs, in the model's GGUF file */
};

enum { CR_BENCH_MODELS = 4, CR_BENCH_SMOLLM2 = 0, CR_BENCH_QWEN = 1, CR_BENCH_LLAMA_1B = 2, CR_BENCH_LLAMA_7B = 3 };
extern const struct cr_bench_model cr_bench_models[CR_BENCH_MODELS];

/* Tokens of a micro-batch, ascending. */
enum { CR_BENCH_TOKENS = 5 };
extern const size_t cr_bench_tokens[CR_BENCH_TOKENS];

/* The matrices of all models, N outputs and K inputs, each pair once. */
struct cr_bench_matrix {
    size_t n, k;
    bool tour; /* stands for its model in the short selection */
};
enum { CR_BENCH_MATRICES = 15 };
extern const struct cr_bench_matrix cr_bench_matrices[CR_BENCH_MATRICES];

/* Parameters of adapters of a rank on all seven projections. */
size_t cr_bench_lora_parameters(const struct cr_bench_model *model, size_t rank);

#endif
