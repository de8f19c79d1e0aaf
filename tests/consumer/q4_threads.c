/* A host with its own thread pool, its own Q4_0 rows as ggml lays them out and its own row-major activations multiplies
 * them in both directions: Y = X W^T and dX = dY W. Every tier of this CPU is checked against plain C, and the numbers
 * of one thread against those of four. Written in the common part of C11 and C++17. */
#include <math.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <credence/kernels.h>

enum { M = 50, N = 328, K = 256, N_THREADS = 4 };

/* ---- the host's own types: ggml's block of 32 values, v = d * (nibble - 8) ---- */

struct host_block_q4_0 {
    uint16_t d; /* half */
    uint8_t qs[16];
};

static struct host_block_q4_0 weights[N][K / 32];
static float activations[M][K], gradients[M][N];

static uint32_t random_state = 1;

static uint32_t random_bits(void)
{
    random_state = random_state * 1664525u + 1013904223u;
    return random_state >> 8;
}

static void fill(void)
{
    for (int n = 0; n < N; n++) {
        for (int b = 0; b < K / 32; b++) {
            weights[n][b].d = (uint16_t)(0x2000u + random_bits() % 0x0800u); /* 2^-7 to 2^-5 */
            for (int i = 0; i < 16; i++) {
                weights[n][b].qs[i] = (uint8_t)random_bits();
            }
        }
    }
    for (int t = 0; t < M; t++) {
        for (int k = 0; k < K; k++) {
            activations[t][k] = (float)((int)(random_bits() % 2001u) - 1000) / 500.0f;
        }
        for (int n = 0; n < N; n++) {
            gradients[t][n] = (float)((int)(random_bits() % 2001u) - 1000) / 5000.0f;
        }
    }
}

/* ---- plain C: what the products should be ---- */

static float to_bf16(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    bits = (bits + 0x7fffu + (bits >> 16 & 1u)) & 0xffff0000u;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static double operand(float value, enum cr_xtype type)
{
    return type == CR_X_BF16 ? to_bf16(value) : value;
}

static double weight(int n, int k, enum cr_xtype type)
{
    const struct host_block_q4_0 *b = &weights[n][k / 32];
    int i = k % 32;
    int q = i < 16 ? b->qs[i] & 15 : b->qs[i - 16] >> 4;
    double d = ldexp(1.0 + (b->d & 0x3ffu) / 1024.0, (b->d >> 10) - 15); /* a normal half */
    return operand((float)(d * (q - 8)), type);
}

/* ---- the host's pool: threads take chunks of a job until none is left ---- */

typedef void chunk_fn(void *arg, size_t begin, size_t end, int thread);

struct pool {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    pthread_t threads[N_THREADS];
    chunk_fn *fn;
    void *arg;
    size_t next, n_items, grain, n_open; /* n_open: chunks not yet finished */
    int n_started, stop;
};

static void *thread_main(void *opaque)
{
    struct pool *pool = (struct pool *)opaque;
    pthread_mutex_lock(&pool->lock);
    int self = pool->n_started++;
    while (!pool->stop) {
        if (pool->next >= pool->n_items) {
            pthread_cond_wait(&pool->changed, &pool->lock);
            continue;
        }
        size_t begin = pool->next;
        size_t end = begin + pool->grain < pool->n_items ? begin + pool->grain : pool->n_items;
        pool->next = end;
        pthread_mutex_unlock(&pool->lock);
        pool->fn(pool->arg, begin, end, self);
        pthread_mutex_lock(&pool->lock);
        if (--pool->n_open == 0) {
            pthread_cond_broadcast(&pool->changed);
        }
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

static void pool_start(struct pool *pool)
{
    memset(pool, 0, sizeof *pool);
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->changed, NULL);
    for (int i = 0; i < N_THREADS; i++) {
        if (pthread_create(&pool->threads[i], NULL, thread_main, pool) != 0) {
            perror("pthread_create");
            exit(1);
        }
    }
}

static void pool_run(struct pool *pool, chunk_fn *fn, void *arg, size_t n_items, size_t grain)
{
    pthread_mutex_lock(&pool->lock);
    pool->fn = fn;
    pool->arg = arg;
    pool->grain = grain;
    pool->n_open = (n_items + grain - 1) / grain;
    pool->next = 0;
    pool->n_items = n_items;
    pthread_cond_broadcast(&pool->changed);
    while (pool->n_open > 0) {
        pthread_cond_wait(&pool->changed, &pool->lock);
    }
    pool->n_items = 0;
    pthread_mutex_unlock(&pool->lock);
}

static void pool_stop(struct pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    pool->stop = 1;
    pthread_cond_broadcast(&pool->changed);
    pthread_mutex_unlock(&pool->lock);
    for (int i = 0; i < N_THREADS; i++) {
        pthread_join(pool->threads[i], NULL);
    }
}

/* ---- one product through the library ---- */

struct product {
    struct cr_qgemm_args args;
    cr_qgemm_fn *fn;
    void *scratch[N_THREADS]; /* one a thread */
};

static void chunk(void *arg, size_t begin, size_t end, int thread)
{
    struct product *p = (struct product *)arg;
    p->fn(&p->args, begin, end, p->scratch[thread]);
}

static void *lines(size_t n_bytes)
{
    void *memory = aligned_alloc(64, (n_bytes + 63) / 64 * 64);
    if (memory == NULL) {
        exit(1);
    }
    memset(memory, 0, (n_bytes + 63) / 64 * 64);
    return memory;
}

/* Row-major [M][n_features] into token blocks of the operand type; lanes past the last token stay 0. */
static void *pack(const float *rows, size_t n_features, enum cr_xtype type, enum cr_tier tier)
{
    size_t n_blocks = cr_tl16_blocks(M);
    float *f32 = (float *)lines(n_blocks * cr_tl16_bytes(CR_X_F32, n_features));
    for (size_t t = 0; t < M; t++) {
        float *block = f32 + t / CR_LANES * n_features * CR_LANES;
        for (size_t k = 0; k < n_features; k++) {
            block[cr_tl16_f32(k, t % CR_LANES)] = rows[t * n_features + k];
        }
    }
    if (type == CR_X_F32) {
        return f32;
    }
    struct cr_cast_ops ops;
    cr_cast_ops_init(&ops, tier);
    struct cr_cast_args args;
    memset(&args, 0, sizeof args);
    args.f32 = f32;
    args.f32_stride = n_features * CR_LANES;
    args.bf16_stride = cr_tl16_bytes(CR_X_BF16, n_features);
    args.bf16 = (uint16_t *)lines(n_blocks * args.bf16_stride);
    args.n_features = n_features;
    ops.to_bf16(&args, 0, n_blocks);
    free(f32);
    return args.bf16;
}

/* out: token blocks of N (forward) or K (backward) features. */
static float *multiply(struct pool *pool, const struct cr_qgemm_ops *ops, int backward)
{
    size_t n_in = backward ? N : K, n_out = backward ? K : N, n_blocks = cr_tl16_blocks(M);
    struct product p;
    memset(&p, 0, sizeof p);
    p.fn = backward ? ops->dx : ops->fwd;
    p.args.w.data = weights;
    p.args.w.row_bytes = sizeof weights[0];
    p.args.w.n_rows = N;
    p.args.w.n_cols = K;
    p.args.w.type = CR_Q_Q4_0;
    p.args.x = pack(backward ? &gradients[0][0] : &activations[0][0], n_in, ops->x_type, ops->tier);
    p.args.x_stride = cr_tl16_bytes(ops->x_type, n_in);
    p.args.y_stride = n_out * CR_LANES;
    float *y = (float *)lines(n_blocks * cr_tl16_bytes(CR_X_F32, n_out));
    p.args.y = y;
    p.args.n_blocks = n_blocks;
    size_t scratch_bytes = cr_qgemm_scratch_bytes(ops, n_in, 0);
    for (int i = 0; i < N_THREADS; i++) {
        p.scratch[i] = lines(scratch_bytes);
    }
    if (pool != NULL) {
        pool_run(pool, chunk, &p, n_out, 3 * ops->step);
    } else { /* the checked entry, in one piece */
        struct cr_error err;
        cr_status status = backward ? cr_qgemm_dx_checked(ops, &p.args, 0, n_out, p.scratch[0], scratch_bytes, &err)
                                    : cr_qgemm_fwd_checked(ops, &p.args, 0, n_out, p.scratch[0], scratch_bytes, &err);
        if (status != CR_OK) {
            printf("%s\n", err.message);
            exit(1);
        }
    }
    for (int i = 0; i < N_THREADS; i++) {
        free(p.scratch[i]);
    }
    free((void *)(uintptr_t)p.args.x);
    return y;
}

/* Every output against a sum in double of the same weights and operands, within the bound of the contract. */
static int compare(const float *y, enum cr_xtype type, int backward)
{
    size_t n_in = backward ? N : K, n_out = backward ? K : N;
    double worst = 0;
    for (size_t t = 0; t < M; t++) {
        for (size_t o = 0; o < n_out; o++) {
            double sum = 0, size = 0;
            for (size_t i = 0; i < n_in; i++) {
                double term = backward ? weight((int)i, (int)o, type) * operand(gradients[t][i], type)
                                       : weight((int)o, (int)i, type) * operand(activations[t][i], type);
                sum += term;
                size += fabs(term);
            }
            double found = y[t / CR_LANES * n_out * CR_LANES + cr_tl16_f32(o, t % CR_LANES)];
            double share = fabs(found - sum) / ((double)(n_in + 2) * ldexp(1, -24) * size + 1e-30);
            if (!(share <= worst)) {
                worst = share;
            }
        }
    }
    printf("  %s: worst error %.3f of the bound\n", backward ? "dX" : "Y ", worst);
    return worst <= 1;
}

int main(void)
{
    struct cr_cpu cpu;
    struct pool pool;
    int good = 1;
    fill();
    cr_cpu_detect(&cpu);
    pool_start(&pool);
    for (int tier = CR_TIER_SCALAR; tier <= CR_TIER_NEON_BF16; tier++) {
        struct cr_qgemm_ops ops;
        bool have = tier == CR_TIER_SCALAR || (cpu.features >> tier & 1u) != 0;
        if (!have || cr_qgemm_ops_init(&ops, (enum cr_tier)tier) != CR_OK) {
            continue;
        }
        printf("%s, step %zu\n", cr_tier_name((enum cr_tier)tier), ops.step);
        for (int backward = 0; backward < 2; backward++) {
            float *alone = multiply(NULL, &ops, backward);
            float *shared = multiply(&pool, &ops, backward);
            size_t bytes = cr_tl16_blocks(M) * cr_tl16_bytes(CR_X_F32, backward ? K : N);
            good = compare(alone, ops.x_type, backward) && good;
            if (memcmp(alone, shared, bytes) != 0) {
                printf("  other bits on %d threads\n", N_THREADS);
                good = 0;
            }
            free(alone);
            free(shared);
        }
    }
    pool_stop(&pool);
    return good ? 0 : 1;
}
