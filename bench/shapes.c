/* Sizes as the models' own configuration files give them. */
#include "bench/shapes.h"

const struct cr_bench_model cr_bench_models[CR_BENCH_MODELS] = {
    {"SmolLM2-135M", 576, 9, 3, 64, 1536, 49152, 30, false},
    {"Qwen2.5-0.5B", 896, 14, 2, 64, 4864, 151936, 24, true},
    {"Llama-3.2-1B", 2048, 32, 8, 64, 8192, 128256, 16, false},
    {"Llama-2-7B", 4096, 32, 32, 128, 11008, 32000, 32, false},
};

/* 48: one short question; 128 and 256: small batches; 512 and 1024: the micro-batches of training. */
const size_t cr_bench_tokens[CR_BENCH_TOKENS] = {48, 128, 256, 512, 1024};

const struct cr_bench_matrix cr_bench_matrices[CR_BENCH_MATRICES] = {
    {576, 576, true},    /* SmolLM2-135M: q, o */
    {192, 576, true},    /* k, v */
    {1536, 576, true},   /* gate, up */
    {576, 1536, true},   /* down */
    {896, 896, false},   /* Qwen2.5-0.5B */
    {128, 896, false},   /* k, v */
    {4864, 896, true},   /* gate, up */
    {896, 4864, true},   /* down */
    {2048, 2048, true},  /* Llama-3.2-1B */
    {512, 2048, false},  /* k, v */
    {8192, 2048, false}, /* gate, up */
    {2048, 8192, true},  /* down */
    {4096, 4096, true},  /* Llama-2-7B: q, k, v, o */
    {11008, 4096, false}, {4096, 11008, false},
};

size_t cr_bench_lora_parameters(const struct cr_bench_model *m, size_t rank)
{
    size_t q = m->heads * m->head_dim, kv = m->kv_heads * m->head_dim;
    size_t sides = 2 * (q + m->width) + 2 * (kv + m->width) + 3 * (m->ffn + m->width);
    return sides * rank * m->layers;
}
