#include "runtime/model/ffn.h"

#include <stdint.h>
#include <string.h>

/* Token blocks of a tile at most, a constant: gradients are added once a chunk. Up to 96 KiB a tile (Zen 4: 1 MiB of
 * cache beside the operand and the panel), and the panel of weights is made once for as many tokens. */
enum { CHUNK = 48, N_TILES = 4 };

static size_t tile_floats(const struct cr_engine *e)
{
    return e->qgemm.step * CR_LANES; /* of one token block */
}

static float *tile(const struct cr_engine *e, void *scratch, size_t i)
{
    return (float *)(void *)((char *)scratch + e->tiles_at) + i * CHUNK * tile_floats(e);
}

size_t cr_ffn_tiles_bytes(const struct cr_engine *e)
{
    return N_TILES * CHUNK * tile_floats(e) * sizeof(float);
}

/* Where a buffer of all features would begin whose features from `begin` on are this tile; kernels that take a range of
 * features touch nothing before it. */
static void *whole(void *from, size_t bytes_before)
{
    return (void *)((uintptr_t)from - bytes_before);
}

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* End of the tile that begins at `block`. A part is cut after every CHUNK blocks of its own, wherever it lies, so that
 * its gradients are summed as if it were alone; as many whole pieces as fit share a tile. */
static size_t tile_end(const struct token_set *set, size_t block)
{
    size_t end = block;
    for (size_t i = 0; i < set->n_parts; i++) {
        const struct token_part *part = &set->parts[i];
        while (end < part->end) {
            size_t next = least(end + CHUNK, part->end);
            if (next - block > CHUNK) {
                return end;
            }
            end = next;
        }
    }
    return end;
}

/* The low-rank terms of token blocks [block, block + n_blocks), counted from there: at most CHUNK. */
static size_t terms_of_tile(const struct cr_qgemm_args *all, size_t block, size_t n_blocks,
                            struct cr_qgemm_member *terms)
{
    size_t n = 0;
    for (size_t i = 0; i < all->n_members; i++) {
        struct cr_qgemm_member term = all->members[i];
        term.begin = term.begin > block ? term.begin - block : 0;
        term.end = term.end > block ? least(term.end - block, n_blocks) : 0;
        if (term.begin < term.end) {
            terms[n++] = term;
        }
    }
    return n;
}

static void product(struct cr_engine *e, cr_qgemm_fn *fn, const struct cr_qgemm_args *all, size_t block,
                    size_t n_blocks, size_t begin, size_t end, float *out, void *scratch)
{
    struct cr_qgemm_member terms[CHUNK];
    struct cr_qgemm_args args = *all;
    args.x = (const char *)args.x + block * args.x_stride;
    args.u = args.u != NULL ? args.u + block * args.u_stride : NULL;
    args.y = whole(out, begin * CR_LANES * sizeof(float));
    args.y_stride = tile_floats(e);
    args.n_blocks = n_blocks;
    args.n_members = terms_of_tile(all, block, n_blocks, terms);
    args.members = terms;
    fn(&args, begin, end, scratch);
}

static char *operand_at(const struct cr_engine *e, void *op, size_t block, size_t feature)
{
    return (char *)op + block * cr_engine_operand_bytes(e, e->ff) + cr_engine_operand_bytes(e, feature);
}

/* Features [begin, end) of token blocks from `block` on as operand. */
static void keep_tile(struct cr_engine *e, float *from, void *op, size_t block, size_t n_blocks, size_t begin,
                      size_t end)
{
    struct cr_cast_args cast = {from, tile_floats(e), (void *)operand_at(e, op, block, begin),
                                cr_engine_operand_bytes(e, e->ff), end - begin};
    if (e->xt == CR_X_BF16) {
        e->cast.to_bf16(&cast, 0, n_blocks);
        return;
    }
    for (size_t i = 0; i < n_blocks; i++) {
        memcpy(operand_at(e, op, block + i, begin), from + i * cast.f32_stride, (end - begin) * 64);
    }
}

void cr_job_gate_up(struct cr_engine *e, const void *arg, size_t begin, size_t end, void *scratch)
{
    const struct gate_up_job *job = arg;
    float *g = tile(e, scratch, 0), *u = tile(e, scratch, 1);
    for (size_t block = 0, next; block < job->set->n_blocks; block = next) {
        next = tile_end(job->set, block);
        size_t n = next - block;
        product(e, e->qgemm.fwd, &job->gate, block, n, begin, end, g, scratch);
        product(e, e->qgemm.fwd, &job->up, block, n, begin, end, u, scratch);
        struct cr_act_args act = {.g = g,
                                  .u = u,
                                  .gu_stride = tile_floats(e) * sizeof(float),
                                  .g_type = CR_X_F32,
                                  .h = operand_at(e, e->h, block, begin),
                                  .h_stride = cr_engine_operand_bytes(e, e->ff),
                                  .h_type = e->xt,
                                  .n_features = end - begin};
        e->act.swiglu_fwd(&act, 0, n);
        if (e->keep) {
            keep_tile(e, g, job->state->g, block, n, begin, end);
            keep_tile(e, u, job->state->u, block, n, begin, end);
        }
    }
}

/* Gradient of an adapter matrix over token blocks [block, block + n_blocks), whose x is a tile. */
static void add_grad(struct cr_engine *e, const struct grad_job *job, void *x, enum cr_xtype x_type, size_t block,
                     size_t n_blocks, size_t begin, size_t end, void *scratch)
{
    for (size_t i = 0; i < job->in->set->n_parts; i++) {
        struct token_part part = job->in->set->parts[i];
        part.begin = part.begin > block ? part.begin : block;
        part.end = least(part.end, block + n_blocks);
        struct cr_lowrank_args args;
        if (part.begin >= part.end || !cr_projection_grad(e, job, &part, &args)) {
            continue;
        }
        args.x_type = x_type;
        args.x_stride = tile_floats(e) * sizeof(float);
        args.x = whole((char *)x + (part.begin - block) * args.x_stride, cr_tl16_bytes(x_type, begin));
        cr_projection_run_grad(e, job, &part, &args, begin, end, scratch);
    }
}

void cr_job_down_dx(struct cr_engine *e, const void *arg, size_t begin, size_t end, void *scratch)
{
    const struct down_dx_job *job = arg;
    float *dh = tile(e, scratch, 0), *dg = tile(e, scratch, 1), *du = tile(e, scratch, 2), *h = tile(e, scratch, 3);
    size_t stride = tile_floats(e);
    for (size_t block = 0, next; block < job->set->n_blocks; block = next) {
        next = tile_end(job->set, block);
        size_t n = next - block;
        struct cr_act_args act = {.g = operand_at(e, job->state->g, block, begin),
                                  .u = operand_at(e, job->state->u, block, begin),
                                  .gu_stride = cr_engine_operand_bytes(e, e->ff),
                                  .g_type = e->xt,
                                  .h = h,
                                  .h_stride = stride * sizeof(float),
                                  .h_type = e->xt,
                                  .dh = dh,
                                  .dh_stride = stride,
                                  .dg = dg,
                                  .du = du,
                                  .dgu_stride = stride,
                                  .n_features = end - begin};
        if (job->ready) {
            act.dh_stride = e->ff * CR_LANES;
            act.dh = e->dh + block * act.dh_stride + begin * CR_LANES;
        } else {
            product(e, e->qgemm.dx, &job->dh.gemm[0], block, n, begin, end, dh, scratch);
        }
        if (job->adapts) {
            e->act.swiglu_fwd(&act, 0, n);
            add_grad(e, &job->down_a, h, e->xt, block, n, begin, end, scratch);
        }
        e->act.swiglu_bwd(&act, 0, n);
        keep_tile(e, dg, e->dg_op, block, n, begin, end);
        keep_tile(e, du, e->du_op, block, n, begin, end);
        add_grad(e, &job->gate_b, dg, CR_X_F32, block, n, begin, end, scratch);
        add_grad(e, &job->up_b, du, CR_X_F32, block, n, begin, end, scratch);
    }
}
