/* qgemm entries: types and shapes of real models, both directions, every tier. Shape: M, N, K. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/cr_bench.h"
#include "kernels/common/half.h"
#include "credence/kernels/dequant.h"
#include "credence/kernels/qgemm.h"

struct state {
    struct cr_qgemm_ops ops;
    struct cr_qgemm_args args;
    bool dx;
    size_t n_out, n_reduce;
    void *weights, *x, *y, *scratch, *lowrank, *u;
    struct cr_onednn *peer;
};

static uint64_t random_state;

static uint32_t random_bits(void)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(random_state >> 32);
}

static float random_float(void)
{
    return (float)(int32_t)random_bits() * 0x1p-31f;
}

/* Random codes; every half that is a scale or a minimum is moderate. */
static void fill(unsigned char *data, int type, size_t n_values)
{
    const struct cr_qtype_info *info = cr_qtype_info(type);
    for (size_t b = 0; b < n_values / info->block_values; b++) {
        unsigned char *block = data + b * info->block_bytes;
        for (size_t i = 0; i < info->block_bytes; i++) {
            block[i] = (unsigned char)random_bits();
        }
        uint16_t halves[2] = {cr_f32_to_f16(random_float() * 0x1p-6f), cr_f32_to_f16(random_float() * 0x1p-6f)};
        float value = random_float();
        uint16_t half = type == CR_Q_F16 ? cr_f32_to_f16(value) : cr_f32_to_bf16(value);
        bool at_end = type == CR_Q_Q2_K || type == CR_Q_Q3_K || type == CR_Q_Q6_K;
        bool two =
            type == CR_Q_Q4_1 || type == CR_Q_Q5_1 || type == CR_Q_Q4_K || type == CR_Q_Q5_K || type == CR_Q_Q2_K;
        size_t n_bytes = two ? 4 : 2;
        if (type == CR_Q_F32) {
            memcpy(block, &value, 4);
        } else if (info->block_values == 1) {
            memcpy(block, &half, 2);
        } else {
            memcpy(at_end ? block + info->block_bytes - n_bytes : block, halves, n_bytes);
        }
    }
}

static void *memory(size_t n_bytes)
{
    return aligned_alloc(64, (n_bytes + 63) / 64 * 64);
}

static void close_state(void *state)
{
    struct state *s = state;
    free(s->weights);
    free(s->x);
    free(s->y);
    free(s->scratch);
    free(s->lowrank);
    free(s->u);
    cr_onednn_close(s->peer);
    free(s);
}

static void fill_operand(struct state *s)
{
    size_t n = s->args.x_stride / 4 * s->args.n_blocks;
    for (size_t i = 0; i < n; i++) {
        if (s->ops.x_type == CR_X_F32) {
            ((float *)s->x)[i] = random_float();
        } else {
            ((uint16_t *)s->x)[2 * i] = cr_f32_to_bf16(random_float());
            ((uint16_t *)s->x)[2 * i + 1] = cr_f32_to_bf16(random_float());
        }
    }
}

static void *open_state(const struct cr_bench_entry *entry)
{
    size_t m = entry->shape[0], n = entry->shape[1], k = entry->shape[2], rank = entry->shape[3];
    const struct cr_qtype_info *info = cr_qtype_info(entry->type);
    struct state *s = calloc(1, sizeof *s);
    if (s == NULL) {
        return NULL;
    }
    random_state = 1;
    cr_qgemm_ops_init(&s->ops, entry->tier);
    s->dx = entry->flag;
    s->n_out = s->dx ? k : n;
    s->n_reduce = s->dx ? n : k;
    size_t row_bytes = k / info->block_values * info->block_bytes;
    s->args.n_blocks = cr_tl16_blocks(m);
    s->args.x_stride = cr_tl16_bytes(s->ops.x_type, s->n_reduce);
    s->args.y_stride = s->n_out * CR_LANES;
    s->weights = memory(row_bytes * n);
    s->x = memory(s->args.x_stride * s->args.n_blocks);
    s->y = memory(s->args.y_stride * s->args.n_blocks * 4);
    s->scratch = memory(cr_qgemm_scratch_bytes(&s->ops, s->n_reduce, rank));
    s->lowrank = memory(s->n_out * rank * 4 + 64);
    s->u = memory(rank * 64 * s->args.n_blocks + 64);
    if (!s->weights || !s->x || !s->y || !s->scratch || !s->lowrank || !s->u) {
        close_state(s);
        return NULL;
    }
    fill(s->weights, entry->type, n * k);
    fill_operand(s);
    s->args.w = (struct cr_qmat){s->weights, row_bytes, n, k, entry->type};
    s->args.x = s->x;
    s->args.y = s->y;
    if (rank > 0) {
        for (size_t i = 0; i < s->n_out * rank; i++) {
            ((float *)s->lowrank)[i] = random_float();
        }
        for (size_t i = 0; i < rank * CR_LANES * s->args.n_blocks; i++) {
            ((float *)s->u)[i] = random_float();
        }
        s->args.p = s->lowrank;
        s->args.p_os = rank;
        s->args.p_rs = 1;
        s->args.u = s->u;
        s->args.u_stride = rank * CR_LANES;
        s->args.rank = rank;
    }
    s->peer = cr_onednn_open(m, s->n_out, s->n_reduce, s->ops.x_type == CR_X_BF16);
    return s;
}

static void run(void *state)
{
    struct state *s = state;
    (s->dx ? s->ops.dx : s->ops.fwd)(&s->args, 0, s->n_out, s->scratch);
}

static bool peer(void *state)
{
    struct state *s = state;
    if (s->peer == NULL) {
        return false;
    }
    cr_onednn_run(s->peer);
    return true;
}

static double operand(const struct state *s, size_t block, size_t k, size_t lane)
{
    const char *base = (const char *)s->x + block * s->args.x_stride;
    if (s->ops.x_type == CR_X_BF16) {
        return (double)cr_bf16_to_f32(((const uint16_t *)(const void *)base)[cr_tl16_bf16(k, lane)]);
    }
    return (double)((const float *)(const void *)base)[cr_tl16_f32(k, lane)];
}

/* Sixty-four random outputs against a double product; the bound of qgemm.h. */
static bool verify(void *state, char *message, size_t message_bytes)
{
    struct state *s = state;
    const struct cr_qmat *w = &s->args.w;
    cr_dequant_fn *dequant = cr_dequant_fn_for(w->type, CR_TIER_SCALAR);
    memset(s->y, 0xff, s->args.y_stride * s->args.n_blocks * 4);
    run(s);
    for (int i = 0; i < 64; i++) {
        size_t o = random_bits() % s->n_out, block = random_bits() % s->args.n_blocks, lane = random_bits() % CR_LANES;
        double sum = 0, total = 0;
        for (size_t k = 0; k < s->n_reduce; k++) {
            size_t row = s->dx ? k : o, column = s->dx ? o : k;
            float values[32];
            dequant((const char *)w->data + row * w->row_bytes, column / 32 * 32, 32, values);
            float value = values[column % 32];
            value = s->ops.x_type == CR_X_BF16 ? cr_bf16_to_f32(cr_f32_to_bf16(value)) : value;
            double term = (double)value * operand(s, block, k, lane);
            sum += term;
            total += fabs(term);
        }
        for (size_t k = 0; k < s->args.rank; k++) {
            double term = (double)s->args.p[o * s->args.p_os + k] * s->args.u[block * s->args.u_stride + k * 16 + lane];
            sum += term;
            total += fabs(term);
        }
        double got = s->args.y[block * s->args.y_stride + o * CR_LANES + lane];
        double bound = (double)(s->n_reduce + s->args.rank + 2) * 0x1p-24 * total;
        if (!(fabs(got - sum) <= bound)) {
            snprintf(message, message_bytes, "feature %zu, token %zu: %.9g, expected %.9g, bound %.3g", o,
                     block * CR_LANES + lane, got, sum, bound);
            return false;
        }
    }
    return true;
}

static void entry(enum cr_tier tier, int type, bool dx, size_t m, size_t n, size_t k, size_t rank)
{
    struct cr_qgemm_ops ops;
    cr_qgemm_ops_init(&ops, tier);
    const struct cr_qtype_info *info = cr_qtype_info(type);
    bool slow = tier == CR_TIER_SCALAR && (m > 48 || n * k > 576 * 576);
    if (ops.tier != tier || k % info->block_values != 0 || slow) {
        return;
    }
    struct cr_bench_entry e = {.open = open_state,
                               .verify = verify,
                               .run = run,
                               .peer = peer,
                               .close = close_state,
                               .tier = tier,
                               .type = type,
                               .flag = dx,
                               .shape = {m, n, k, rank}};
    e.unit = tier == CR_TIER_AVX2          ? CR_UNIT_FMA_AVX2
             : tier == CR_TIER_AVX512      ? CR_UNIT_FMA_AVX512
             : tier == CR_TIER_AVX512_BF16 ? CR_UNIT_BF16
                                           : CR_UNIT_NONE;
    size_t n_out = dx ? k : n, n_reduce = dx ? n : k, padded = cr_tl16_blocks(m) * CR_LANES;
    e.flops = 2.0 * (double)padded * ((double)n * (double)k + (double)rank * (double)n_out);
    e.bytes = (double)(k / info->block_values * info->block_bytes * n) +
              (double)(cr_tl16_blocks(m) * (cr_tl16_bytes(ops.x_type, n_reduce) + n_out * 64));
    char name[16];
    size_t length = strlen(info->name);
    for (size_t i = 0; i <= length; i++) {
        name[i] = info->name[i] >= 'A' && info->name[i] <= 'Z' ? (char)(info->name[i] + 32) : info->name[i];
    }
    char lowrank[24] = "";
    if (rank > 0) {
        snprintf(lowrank, sizeof lowrank, "_r%zu", rank);
    }
    snprintf(e.name, sizeof e.name, "qgemm/%s/%s/M%zu_N%zu_K%zu%s/%s", dx ? "dx" : "fwd", name, m, n, k, lowrank,
             cr_tier_name(tier));
    cr_bench_register(&e);
}

void cr_bench_qgemm(const enum cr_tier *tiers, size_t n_tiers)
{
    /* SmolLM2-135M: 576 wide, 192 key/value, 1536 feed-forward. Qwen2.5-0.5B: 896, 4864. 1B and 8B class. */
    static const size_t shapes[][2] = {{576, 576},   {192, 576},  {1536, 576}, {576, 1536},
                                       {2048, 2048}, {4864, 896}, {896, 4864}, {2048, 8192}};
    static const size_t tokens[] = {48, 256, 512, 1024};
    static const int types[] = {CR_Q_Q4_0, CR_Q_Q5_0,   CR_Q_Q5_1,   CR_Q_Q2_K, CR_Q_Q3_K, CR_Q_Q4_K, CR_Q_Q5_K,
                                CR_Q_Q6_K, CR_Q_IQ4_NL, CR_Q_IQ4_XS, CR_Q_F16,  CR_Q_BF16, CR_Q_F32};
    for (size_t t = 0; t < n_tiers; t++) {
        for (int dx = 0; dx < 2; dx++) {
            for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
                for (size_t j = 0; j < sizeof tokens / sizeof tokens[0]; j++) {
                    entry(tiers[t], CR_Q_Q4_1, dx, tokens[j], shapes[i][0], shapes[i][1], 0);
                }
                entry(tiers[t], CR_Q_Q8_0, dx, 1024, shapes[i][0], shapes[i][1], 0);
            }
            for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
                entry(tiers[t], types[i], dx, 1024, 2048, 2048, 0);
            }
            entry(tiers[t], CR_Q_Q4_1, dx, 1024, 576, 576, 16);
            entry(tiers[t], CR_Q_Q4_1, dx, 1024, 2048, 2048, 16);
        }
    }
}
