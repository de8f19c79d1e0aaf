/* qgemm on AMX tiles: bf16 weights in panels, TL16 bf16 tokens as they lie, 32 x 32 micro-tile.
 *
 * For every panel and slab all tokens pass by in pairs of blocks. A chain of additions is: the steps of a slab in
 * order, each two interleaved chains of 16 fused multiply-adds that are summed and added (TDPBF16PS); low-rank steps
 * last; bias; then the slabs. Nothing in it depends on the range, on the panel or on the tokens.
 *
 * With CR_AMX_MODEL the same source runs on a model of the tiles in memory, on any machine (kernels/common/amx_tile.h).
 */
#if !defined(CR_AMX_MODEL) && !(defined(__AVX512BF16__) && (defined(__AMX_BF16__) || defined(__AMXBF16__)))
#error "compile with the flags of the amx tier"
#endif

#include <assert.h>
#include <string.h>

#include "kernels/qgemm/amx_lowrank.h"
#include "kernels/qgemm/amx_micro.h"
#include "kernels/qgemm/amx_panel.h"
#include "kernels/qgemm/members.h"
#include "kernels/qgemm/variants.h"

/* Up to here (1536 tokens) the next panel is made while this one is in use, in half the room; with more tokens making
 * it takes a few per cent of the time, and large panels save more by reading the tokens less often. */
enum { OVERLAP_BLOCKS = 96, FIRST_BLOCK = 64 };

/* Tokens of a pair of blocks that stay in 48 KiB of L1 from strip to strip. */
enum { KEEP_BYTES = 28 * 1024 };

/* One call. */
struct call {
    const struct cr_qgemm_args *a;
    struct amx_plan plan;
    char *scratch;
    size_t n_reduce, end;
    bool dx, overlap;
};

/* One panel of one slab, and which half of the room it lies in. */
struct job {
    size_t out, n_out, slab, half;
};

static size_t job_steps(const struct call *call, const struct job *job)
{
    size_t left = call->plan.n_steps - job->slab * call->plan.slab;
    return left < call->plan.slab ? left : call->plan.slab;
}

static char *job_panel(const struct call *call, const struct job *job)
{
    return call->scratch + job->half * (call->plan.n_block / 2 / AMX_STRIP) * call->plan.slab * AMX_STEP_BYTES;
}

/* The job after `job`; false when it was the last. */
static bool job_next(const struct call *call, struct job *job)
{
    job->half = call->overlap ? 1 - job->half : 0;
    if (++job->slab < call->plan.n_slabs) {
        return true;
    }
    job->slab = 0;
    job->out += job->n_out;
    size_t n = call->overlap ? call->plan.n_block / 2 : call->plan.n_block;
    job->n_out = call->end - job->out < n ? call->end - job->out : n;
    return job->n_out > 0;
}

static void job_cursor(const struct call *call, const struct job *job, struct cursor *c)
{
    *c = (struct cursor){.w = &call->a->w,
                         .panel = job_panel(call, job),
                         .square = (uint16_t *)(void *)(call->scratch + call->plan.square_at),
                         .scales = call->scratch + call->plan.scales_at,
                         .strip_bytes = job_steps(call, job) * AMX_STEP_BYTES,
                         .out = job->out,
                         .n_out = job->n_out,
                         .first = job->slab * call->plan.slab,
                         .n_steps = job_steps(call, job)};
    cursor_start(c, call->dx);
}

static void cursor_finish(struct cursor *c)
{
    while (c->left > 0) {
        c->piece(c);
    }
}

/* Zero-padded copy of the lines of a short last step: what lies behind them is not ours to read. */
static void copy_tail(const struct call *call, const struct micro *m, char *tail)
{
    size_t bytes = (call->n_reduce % AMX_STEP + 1) / 2 * 64;
    for (size_t j = 0; j < m->n_tokens; j++) {
        memcpy(tail + j * AMX_TILE_BYTES, m->x[j] + m->n_steps * AMX_TILE_BYTES, bytes);
        memset(tail + j * AMX_TILE_BYTES + bytes, 0, AMX_TILE_BYTES - bytes);
    }
}

/* m->n_tokens token blocks of one member past the strips of a finished panel. */
static void pass(const struct call *call, const struct job *job, size_t block, struct micro *m, struct work *work)
{
    const struct cr_qgemm_args *a = call->a;
    size_t first = job->slab * call->plan.slab, n_steps = job_steps(call, job), then = block + m->n_tokens;
    for (size_t j = 0; j < 2; j++) {
        size_t b = j < m->n_tokens ? block + j : block, next = then + j < a->n_blocks ? then + j : then;
        const char *x = (const char *)a->x + first * AMX_TILE_BYTES;
        m->x[j] = x + b * a->x_stride;
        work->ahead[j] = then < a->n_blocks ? x + next * a->x_stride : NULL;
    }
    if (m->n_tail > 0) {
        copy_tail(call, m, call->scratch + call->plan.tail_at);
    }
    const float *bias = job->slab + 1 == call->plan.n_slabs ? a->bias : NULL;
    for (size_t o = 0; o < job->n_out; o += AMX_STRIP) {
        m->w = job_panel(call, job) + o * n_steps * (AMX_STEP_BYTES / AMX_STRIP);
        m->p = call->scratch + call->plan.lowrank_at + o * m->n_lowrank * (AMX_STEP_BYTES / AMX_STRIP);
        m->n_rows = job->n_out - o < AMX_STRIP ? job->n_out - o : AMX_STRIP;
        m->bias = bias != NULL ? bias + job->out + o : NULL;
        for (size_t j = 0; j < m->n_tokens; j++) {
            m->y[j] = a->y + (block + j) * a->y_stride + (job->out + o) * CR_LANES;
        }
        micro_run(m, work, (float *)(void *)(call->scratch + call->plan.sums_at));
    }
}

/* The token blocks of one member, in pairs. */
static void job_member(const struct call *call, const struct job *job, const struct cr_qgemm_member *member,
                       struct micro *m, struct work *work)
{
    const struct cr_qgemm_args *a = call->a;
    bool last = job->slab + 1 == call->plan.n_slabs;
    m->n_lowrank = last && member->rank > 0 ? amx_lowrank_steps(member->rank) : 0;
    if (m->n_lowrank > 0) {
        char *scratch = call->scratch;
        pack_p(member, job->out, job->n_out, scratch + call->plan.lowrank_at, scratch + call->plan.row_at);
    }
    for (size_t block = member->begin; block < member->end; block += m->n_tokens) {
        m->n_tokens = member->end - block < 2 ? 1 : 2;
        if (m->n_lowrank > 0) {
            const float *u[2] = {a->u + block * a->u_stride, a->u + (block + m->n_tokens - 1) * a->u_stride};
            pack_u(u, m->n_tokens, member->rank, call->scratch + call->plan.u_at);
        }
        pass(call, job, block, m, work);
    }
}

/* All tokens past a finished panel; `next` is the panel made meanwhile, or NULL. */
static void job_run(const struct call *call, const struct job *job, struct cursor *next)
{
    const struct cr_qgemm_args *a = call->a;
    struct micro m = {.tail = call->scratch + call->plan.tail_at, .u = call->scratch + call->plan.u_at};
    m.n_tail = job->slab + 1 == call->plan.n_slabs && call->n_reduce % AMX_STEP != 0;
    m.n_steps = job_steps(call, job) - m.n_tail;
    m.add = job->slab > 0 || a->accumulate != 0;
    m.keep_x = m.n_steps * 2 * AMX_TILE_BYTES <= KEEP_BYTES;
    size_t n_strips = (job->n_out + AMX_STRIP - 1) / AMX_STRIP;
    struct work work = {.n_ahead = (AMX_ROWS + n_strips - 1) / n_strips, .next = next};
    if (next != NULL) { /* low-rank steps are not counted: the panel is finished a little early */
        uint64_t total = (a->n_blocks + 1) / 2 * n_strips * (m.n_steps + m.n_tail);
        work.rate = ((uint64_t)next->left << 32) / total + 1;
    }
    struct cr_qgemm_member member;
    for (size_t block = 0; block < a->n_blocks; block = member.end) {
        member = cr_qgemm_member_at(a, block);
        job_member(call, job, &member, &m, &work);
    }
    late_rows(&work.late, AMX_STRIP);
}

static void drive(const struct cr_qgemm_args *a, size_t begin, size_t end, void *scratch, bool dx)
{
    size_t n_reduce = dx ? a->w.n_rows : a->w.n_cols;
    assert(begin % AMX_STRIP == 0 && end <= (dx ? a->w.n_cols : a->w.n_rows));
    assert((uintptr_t)scratch % 64 == 0 && (a->bias == NULL || !dx));
    if (a->n_blocks == 0 || begin >= end) {
        return;
    }
    static const struct amx_config full = AMX_CONFIG_FULL;
    struct call call = {.a = a, .scratch = scratch, .n_reduce = n_reduce, .end = end, .dx = dx};
    call.plan = amx_plan_make(n_reduce, cr_qgemm_max_rank(a));
    call.overlap = a->n_blocks <= OVERLAP_BLOCKS;
    size_t n = call.overlap ? FIRST_BLOCK : call.plan.n_block; /* nothing hides the making of the first panel */
    struct job job = {.out = begin, .n_out = end - begin < n ? end - begin : n};
    struct cursor cursor;
    job_cursor(&call, &job, &cursor);
    amx_config(&full);
    for (bool more = true; more;) {
        cursor_finish(&cursor);
        struct job next = job;
        more = job_next(&call, &next);
        if (more) {
            job_cursor(&call, &next, &cursor);
        }
        job_run(&call, &job, more && call.overlap ? &cursor : NULL);
        job = next;
    }
    amx_release();
}

void cr_qgemm_fwd_amx(const struct cr_qgemm_args *args, size_t begin, size_t end, void *scratch)
{
    drive(args, begin, end, scratch, false);
}

void cr_qgemm_dx_amx(const struct cr_qgemm_args *args, size_t begin, size_t end, void *scratch)
{
    drive(args, begin, end, scratch, true);
}
