/* dplr: the template of the vector tiers. bf16 rows are read as words: even elements are the low halves, odd ones the
 * high halves, so a row vector of 2 LANES_N elements costs two operations and the sums are woven together once at the
 * end. Elements after the last whole block go one by one. */
#ifndef CR_DPLR_LANES_H
#define CR_DPLR_LANES_H

#include <string.h>

#include "kernels/common/tiers.h"
#include "kernels/dplr/dplr_element.h"
#include "kernels/rng/normal_lanes.h"

/* GROUP samples share the unpacked rows: 2 GROUP accumulators. */
enum { BLOCK = CR_RNG_BLOCK, VECTORS = NORMAL_VECTORS, GROUP = LANES_N == 16 ? 8 : 4, STREAMS = 64 };
/* Elements whose memory is fetched ahead: long runs of each row, all of them in the second-level cache (Zen 4, 2026-11,
 * K 20 from memory: 512 to 1024 best, 1.8 times as fast as without). */
enum { TILE_ELEMENTS = 1024 };

/* First and second half of a0 b0 a1 b1 ... */
CR_INLINE lanes weave_low(lanes a, lanes b)
{
#if LANES_N == 16
    return __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
#elif LANES_N == 8
    return __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
#else
    return __builtin_shufflevector(a, b, 0, 4, 1, 5);
#endif
}

CR_INLINE lanes weave_high(lanes a, lanes b)
{
#if LANES_N == 16
    return __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
#elif LANES_N == 8
    return __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
#else
    return __builtin_shufflevector(a, b, 2, 6, 3, 7);
#endif
}

CR_INLINE lanes_u row_words(const uint16_t *p)
{
    lanes_u words;
    memcpy(&words, p, sizeof words);
    return words;
}

/* sum[s][...]: the low-rank part of elements e ... e + BLOCK of n samples from `first`; `parts` vectors of words at
 * once, so that few samples too make enough chains. */
CR_INLINE void low_rank(const struct cr_dplr_args *a, size_t e, size_t first, int n, int parts, float sum[][BLOCK])
{
    enum { PART = 2 * LANES_N };
    for (size_t begin = 0; begin < BLOCK; begin += (size_t)parts * PART) {
        lanes even[GROUP], odd[GROUP];
        const uint16_t *row = a->rows + e + begin;
        const float *coef = a->coef + first;
        for (int i = 0; i < n * parts; i++) {
            even[i] = odd[i] = lanes_zero();
        }
        for (size_t k = 0; k < a->n_rows; k++, row += a->row_stride, coef += a->n_samples) {
            for (int p = 0; p < parts; p++) {
                lanes_u words = row_words(row + p * PART);
                for (int s = 0; s < n; s++) {
                    int i = p * n + s;
                    even[i] = lanes_fused(lanes_splat(coef[s]), lanes_bf16_even(words), even[i]);
                    odd[i] = lanes_fused(lanes_splat(coef[s]), lanes_bf16_odd(words), odd[i]);
                }
            }
        }
        for (int i = 0; i < n * parts; i++) {
            float *to = sum[i % n] + begin + i / n * PART;
            lanes_storeu(to, weave_low(even[i], odd[i]));
            lanes_storeu(to + LANES_N, weave_high(even[i], odd[i]));
        }
    }
}

struct base {
    lanes mean[VECTORS], deviation[VECTORS];
};

CR_INLINE void base_of(const struct cr_dplr_args *a, size_t e, struct base *base)
{
    for (size_t v = 0; v < VECTORS; v++) {
        lanes var = lanes_max(lanes_loadu(a->var + e + v * LANES_N), lanes_splat((float)a->var_floor));
        base->mean[v] = lanes_loadu(a->mean + e + v * LANES_N);
        base->deviation[v] = lanes_sqrt(var * (float)a->var_scale);
    }
}

/* n samples from `first` of one block. */
CR_INLINE void sample_group(const struct cr_dplr_args *a, struct normal_stream *streams, const struct base *base,
                            size_t e, size_t first, int n)
{
    float sum[GROUP][BLOCK];
    low_rank(a, e, first, n, n <= 2 ? 2 : 1, sum);
    for (int s = 0; s < n; s++) {
        size_t which = first + (size_t)s;
        float *out = a->out + which * a->out_stride + e;
        lanes eps[VECTORS];
        if (a->eps == NULL) {
            struct cr_noise noise = a->noise;
            noise.sample += (uint32_t)which;
            normal_stream_next(&streams[s], &noise, (uint32_t)(e / BLOCK), eps);
        } else {
            for (size_t v = 0; v < VECTORS; v++) {
                eps[v] = lanes_loadu(a->eps + which * a->eps_stride + e + v * LANES_N);
            }
        }
        for (size_t v = 0; v < VECTORS; v++) {
            lanes noise = lanes_fused(base->deviation[v], eps[v], lanes_loadu(sum[s] + v * LANES_N));
            lanes_storeu(out + v * LANES_N, base->mean[v] + noise);
        }
    }
}

/* What a tile reads and writes comes from memory array by array, a page at a time, while the tile before is at work:
 * hardware does not follow two dozen streams, and memory likes long runs. */
struct fetcher {
    const struct cr_dplr_args *args;
    size_t first, n, e, end; /* samples; elements of the tile */
    size_t row, at;          /* next: array (rows, then samples) and byte */
};

static void fetch_tile(struct fetcher *f, size_t e, size_t end)
{
    f->e = e;
    f->end = end - e < TILE_ELEMENTS ? end : e + TILE_ELEMENTS;
    f->row = f->at = 0;
}

/* The next lines, at most `n`. */
CR_INLINE void fetch(struct fetcher *f, size_t n)
{
    const struct cr_dplr_args *a = f->args;
    while (n > 0 && f->row < a->n_rows + f->n) {
        bool reads = f->row < a->n_rows;
        size_t bytes = (f->end - f->e) * (reads ? sizeof *a->rows : sizeof *a->out);
        const char *base = reads ? (const char *)(a->rows + f->row * a->row_stride + f->e)
                                 : (const char *)(a->out + (f->first + f->row - a->n_rows) * a->out_stride + f->e);
        for (; n > 0 && f->at < bytes; n--, f->at += 64) {
            __builtin_prefetch(base + f->at, 0, 2);
        }
        if (f->at >= bytes) {
            f->row++;
            f->at = 0;
        }
    }
}

/* At most STREAMS samples from `first`. */
static void sample_streams(const struct cr_dplr_args *a, size_t first, size_t n, size_t begin, size_t end)
{
    struct normal_stream streams[STREAMS];
    size_t e = begin;
    for (size_t s = 0; s < n && a->eps == NULL; s++) {
        struct cr_noise noise = a->noise;
        noise.sample += (uint32_t)(first + s);
        normal_stream_start(&streams[s], &noise, (uint32_t)(begin / BLOCK));
    }
    struct fetcher fetcher = {.args = a, .first = first, .n = n};
    size_t lines = 2 * a->n_rows + 4 * n; /* of a block */
    fetch_tile(&fetcher, begin, end);
    fetch(&fetcher, SIZE_MAX);
    for (; end - e >= BLOCK; e += BLOCK) {
        struct base base;
        size_t s = 0;
        if ((e - begin) % TILE_ELEMENTS == 0) {
            fetch(&fetcher, SIZE_MAX);
            fetch_tile(&fetcher, fetcher.end, end);
        }
        fetch(&fetcher, lines);
        base_of(a, e, &base);
        for (; n - s >= GROUP; s += GROUP) {
            sample_group(a, streams + s, &base, e, first + s, GROUP);
        }
        for (; GROUP == 8 && n - s >= 4; s += 4) {
            sample_group(a, streams + s, &base, e, first + s, 4);
        }
        for (; n - s >= 2; s += 2) {
            sample_group(a, streams + s, &base, e, first + s, 2);
        }
        if (s < n) {
            sample_group(a, streams + s, &base, e, first + s, 1);
        }
    }
    for (; e < end; e++) {
        for (size_t s = first; s < first + n; s++) {
            a->out[s * a->out_stride + e] = dplr_draw(a, s, e);
        }
    }
}

static void sample(const struct cr_dplr_args *args, size_t begin, size_t end)
{
    for (size_t first = 0; first < args->n_samples; first += STREAMS) {
        size_t n = args->n_samples - first < STREAMS ? args->n_samples - first : STREAMS;
        sample_streams(args, first, n, begin, end);
    }
}

static void collect(const struct cr_dplr_collect_args *a, size_t begin, size_t end)
{
    struct dplr_weights c = dplr_weights_of(a->n);
    size_t e = begin;
    for (; end - e >= LANES_N; e += LANES_N) {
        lanes mean = lanes_loadu(a->mean + e), low = lanes_loadu(a->mean_low + e);
        lanes delta = (lanes_loadu(a->w + e) - mean) - low;
        lanes step = delta * c.step, sum = mean + step, part = sum - mean;
        low = low + ((mean - (sum - part)) + (step - part));
        lanes dev = delta * c.keep, high = sum + low;
        lanes_storeu(a->mean + e, high);
        lanes_storeu(a->mean_low + e, low - (high - sum));
        lanes_storeu(a->m2 + e, lanes_fused(delta, dev, lanes_loadu(a->m2 + e)));
        lanes_store_low(a->row + e, lanes_to_bf16(dev));
    }
    for (; e < end; e++) {
        dplr_collect(a, c, e);
    }
}

/* ---- sums of the log-density ---- */

enum { PAIRS = 2 * DPLR_CHAINS, TILE = LANES_N == 16 ? 4 : 2 };

/* A chunk of n elements: weights 1 / v and p = d / v, each PAIRS elements as the even ones and then the odd ones, as
 * far as they are whole; the rest in order. */
struct chunk {
    const struct cr_dplr_args *args;
    size_t at, n, whole;
    float *weight, *p;
};

CR_INLINE void weigh(const struct chunk *c, size_t i, lanes *square, lanes_d *mantissa, lanes_i *exponents)
{
    const struct cr_dplr_args *a = c->args;
    lanes v[2], d[2], w[2], p[2];
    for (size_t half = 0; half < 2; half++) {
        size_t e = c->at + i + half * LANES_N;
        v[half] = lanes_max(lanes_loadu(a->var + e), lanes_splat((float)a->var_floor));
        d[half] = lanes_loadu(a->x + e) - lanes_loadu(a->mean + e);
        w[half] = 1.0f / v[half];
        p[half] = w[half] * d[half];
        lanes m = (lanes)(((lanes_u)v[half] & 0x7fffffu) | 0x3f800000u);
        size_t chains = (i + half * LANES_N) % DPLR_CHAINS / LANES_N;
        mantissa[2 * chains] *= lanes_low_d(m);
        mantissa[2 * chains + 1] *= lanes_high_d(m);
        *exponents += (lanes_i)((lanes_u)v[half] >> 23) - 127;
    }
    size_t even = i / PAIRS * PAIRS + i % PAIRS / 2, odd = even + DPLR_CHAINS;
    lanes *chain = &square[i % PAIRS / 2 / LANES_N];
    *chain = lanes_fused(lanes_even(d[0], d[1]), lanes_even(p[0], p[1]), *chain);
    *chain = lanes_fused(lanes_odd(d[0], d[1]), lanes_odd(p[0], p[1]), *chain);
    lanes_store(c->weight + even, lanes_even(w[0], w[1]));
    lanes_store(c->weight + odd, lanes_odd(w[0], w[1]));
    lanes_store(c->p + even, lanes_even(p[0], p[1]));
    lanes_store(c->p + odd, lanes_odd(p[0], p[1]));
}

static void square_and_logs(const struct chunk *c, double *sums)
{
    lanes square[DPLR_CHAINS / LANES_N] = {{0}};
    lanes_d product[2 * DPLR_CHAINS / LANES_N];
    lanes_i exponent = {0};
    float chain[DPLR_CHAINS];
    double mantissa[DPLR_CHAINS];
    int64_t exponents = 0;
    for (size_t i = 0; i < 2 * DPLR_CHAINS / LANES_N; i++) {
        product[i] = 1.0 - (lanes_d){0};
    }
    for (size_t i = 0; i < c->whole; i += PAIRS) {
        for (size_t part = 0; part < PAIRS; part += (size_t)2 * LANES_N) {
            weigh(c, i + part, square, product, &exponent);
        }
    }
    memcpy(chain, square, sizeof chain);
    memcpy(mantissa, product, sizeof mantissa);
    for (int i = 0; i < LANES_N; i++) {
        exponents += exponent[i];
    }
    for (size_t i = c->whole; i < c->n; i++) {
        size_t e = c->at + i;
        float v = dplr_var(c->args, e), d = c->args->x[e] - c->args->mean[e];
        mantissa[e % DPLR_CHAINS] *= dplr_mantissa(v, &exponents);
        c->weight[i] = 1.0f / v;
        c->p[i] = c->weight[i] * d;
        chain[dplr_chain(e)] = dplr_fused(d, c->p[i], chain[dplr_chain(e)]);
    }
    sums[0] = dplr_join(chain);
    sums[1] = dplr_join_logs(mantissa, exponents);
}

/* Finishes a sum: the chains so far, then the elements beyond the whole ones. */
CR_INLINE double finish(const struct chunk *c, const float *so_far, const float *weight, size_t k, size_t j,
                        bool linear)
{
    float chain[DPLR_CHAINS];
    memcpy(chain, so_far, sizeof chain);
    for (size_t i = c->whole; i < c->n; i++) {
        size_t e = c->at + i;
        float left = linear ? weight[i] : weight[i] * dplr_row(c->args, k, e);
        chain[dplr_chain(e)] = dplr_fused(left, dplr_row(c->args, j, e), chain[dplr_chain(e)]);
    }
    return dplr_join(chain);
}

/* The sums of rows k0 ... and j0 ..., TILE of each; beyond the last row the last one again. */
CR_INLINE void gram_tile(const struct chunk *c, size_t k0, size_t j0, float chain[TILE][TILE][DPLR_CHAINS])
{
    const struct cr_dplr_args *a = c->args;
    const uint16_t *left[TILE], *right[TILE];
    for (size_t t = 0; t < TILE; t++) {
        size_t k = k0 + t < a->n_rows ? k0 + t : a->n_rows - 1, j = j0 + t < a->n_rows ? j0 + t : a->n_rows - 1;
        left[t] = a->rows + k * a->row_stride + c->at;
        right[t] = a->rows + j * a->row_stride + c->at;
    }
    for (size_t col = 0; col < DPLR_CHAINS; col += LANES_N) {
        lanes acc[TILE][TILE] = {{{0}}};
        for (size_t i = 0; i < c->whole; i += PAIRS) {
            lanes even = lanes_load(c->weight + i + col), odd = lanes_load(c->weight + i + DPLR_CHAINS + col);
            lanes_u words[TILE];
            for (size_t t = 0; t < TILE; t++) {
                words[t] = row_words(right[t] + i + 2 * col);
            }
            for (size_t t = 0; t < TILE; t++) {
                lanes_u own = row_words(left[t] + i + 2 * col);
                lanes own_even = even * lanes_bf16_even(own), own_odd = odd * lanes_bf16_odd(own);
                for (size_t j = 0; j < TILE; j++) {
                    acc[t][j] = lanes_fused(own_even, lanes_bf16_even(words[j]), acc[t][j]);
                    acc[t][j] = lanes_fused(own_odd, lanes_bf16_odd(words[j]), acc[t][j]);
                }
            }
        }
        for (size_t t = 0; t < TILE; t++) {
            for (size_t j = 0; j < TILE; j++) {
                lanes_storeu(chain[t][j] + col, acc[t][j]);
            }
        }
    }
}

CR_INLINE double linear_sum(const struct chunk *c, size_t k)
{
    float chain[DPLR_CHAINS];
    const uint16_t *row = c->args->rows + k * c->args->row_stride + c->at;
    for (size_t col = 0; col < DPLR_CHAINS; col += LANES_N) {
        lanes acc = lanes_zero();
        for (size_t i = 0; i < c->whole; i += PAIRS) {
            lanes_u words = row_words(row + i + 2 * col);
            acc = lanes_fused(lanes_load(c->p + i + col), lanes_bf16_even(words), acc);
            acc = lanes_fused(lanes_load(c->p + i + DPLR_CHAINS + col), lanes_bf16_odd(words), acc);
        }
        lanes_storeu(chain + col, acc);
    }
    return finish(c, chain, c->p, k, k, true);
}

static void chunk_sums(const struct chunk *c, double *sums)
{
    size_t n_rows = c->args->n_rows;
    square_and_logs(c, sums);
    for (size_t k0 = 0; k0 < n_rows; k0 += TILE) {
        for (size_t k = k0; k < k0 + TILE && k < n_rows; k++) {
            sums[dplr_u(k)] = linear_sum(c, k);
        }
        for (size_t j0 = 0; j0 <= k0; j0 += TILE) {
            float chain[TILE][TILE][DPLR_CHAINS];
            gram_tile(c, k0, j0, chain);
            for (size_t k = k0; k < k0 + TILE && k < n_rows; k++) {
                for (size_t j = j0; j < j0 + TILE && j <= k; j++) {
                    sums[dplr_g(n_rows, k, j)] = finish(c, chain[k - k0][j - j0], c->weight, k, j, false);
                }
            }
        }
    }
}

static void density(const struct cr_dplr_args *args, size_t begin, size_t end, void *scratch)
{
    struct chunk c = {.args = args, .weight = scratch, .p = (float *)scratch + CR_DPLR_CHUNK};
    for (c.at = begin; c.at < end; c.at += c.n) {
        c.n = end - c.at < CR_DPLR_CHUNK ? end - c.at : CR_DPLR_CHUNK;
        c.whole = c.n / PAIRS * PAIRS;
        chunk_sums(&c, args->sums + c.at / CR_DPLR_CHUNK * cr_dplr_n_sums(args->n_rows));
    }
}

static void fill(struct cr_dplr_ops *ops)
{
    static const struct cr_dplr_ops table = {.sample = sample, .density = density, .collect = collect};
    *ops = table;
}

#endif
