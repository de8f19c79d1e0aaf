/* attention, private: sums of the partials of bwd, over lines of sixteen. Included once by each variant. */
#ifndef CR_ATTENTION_SUM_H
#define CR_ATTENTION_SUM_H

#include "credence/kernels/attention.h"
#include "kernels/common/lanes.h"

/* out = sum of the group's partials in head order, n lines a head. */
static void sum_group(float *out, const float *partial, size_t group, size_t n)
{
    for (size_t i = 0; i < n; i += LANES_N) {
        lanes sum = lanes_load(partial + i);
        for (size_t g = 1; g < group; g++) {
            sum += lanes_load(partial + g * n + i);
        }
        lanes_store(out + i, sum);
    }
}

static void attention_sum_kv(const struct cr_attention_args *args, size_t begin, size_t end, void *scratch)
{
    (void)scratch;
    size_t group = args->n_heads / args->n_kv;
    size_t n = args->head_dim * CR_LANES;
    for (size_t block = begin; block < end; block++) {
        for (size_t kv_head = 0; kv_head < args->n_kv; kv_head++) {
            size_t out = block * args->kv_stride + kv_head * n;
            size_t in = block * args->dkv_stride + kv_head * group * n;
            sum_group(args->dk_sum + out, args->dk + in, group, n);
            sum_group(args->dv_sum + out, args->dv + in, group, n);
        }
    }
}

static void add_lines(float *out, const float *in, size_t n)
{
    for (size_t i = 0; i < n; i += LANES_N) {
        lanes_store(out + i, lanes_load(out + i) + lanes_load(in + i));
    }
}

static void attention_sum_prefix(const struct cr_attention_args *args, size_t begin, size_t end, void *scratch)
{
    (void)scratch;
    const struct cr_attention_prefix *p = args->prefix;
    size_t group = args->n_heads / args->n_kv, n_blocks = cr_tl16_blocks(p->n_rows);
    size_t n = args->head_dim * CR_LANES;
    for (size_t index = begin; index < end; index++) {
        size_t prefix = index / args->n_kv, kv_head = index % args->n_kv;
        for (size_t seg = 0; seg < args->n_seg; seg++) {
            if (p->of_seg[seg] != prefix) {
                continue;
            }
            for (size_t part = 0; part < group * n_blocks; part++) {
                size_t head = kv_head * group + part / n_blocks, block = part % n_blocks;
                size_t in = ((seg * args->n_heads + head) * n_blocks + block) * n;
                size_t out = prefix * p->stride + (block * args->n_kv + kv_head) * n;
                add_lines(p->dk + out, p->dk_part + in, n);
                add_lines(p->dv + out, p->dv_part + in, n);
            }
        }
    }
}

#endif
