#include "runtime/model/flipout.h"

#include <string.h>

#include "credence/kernels/rng.h"

enum { SIGN_IN = 0, SIGN_OUT = 1, WORD = 32, BLOCK = 128 };

/* Room of one worker: signs of a token block, x or dX with them, and U or V with them. */
struct room {
    uint32_t *signs; /* [n / 32][16 tokens] */
    void *wide;      /* [n] of 16 tokens */
    float *narrow;   /* [rank][16 tokens] */
};

static size_t widest(const struct cr_engine *e)
{
    size_t n = e->embd > e->q ? e->embd : e->q;
    return n > e->ff ? n : e->ff;
}

static size_t words_of(size_t n)
{
    return (n + BLOCK - 1) / BLOCK * (BLOCK / WORD);
}

static size_t signs_bytes(const struct cr_engine *e)
{
    size_t n = widest(e) > CR_RANK_MAX ? widest(e) : CR_RANK_MAX;
    return (words_of(n) + BLOCK / WORD) * CR_LANES * sizeof(uint32_t);
}

size_t cr_flipout_scratch_bytes(const struct cr_engine *e)
{
    return e->options.flipout ? signs_bytes(e) + (widest(e) + CR_RANK_MAX) * CR_LANES * sizeof(float) : 0;
}

static struct room room_of(const struct cr_engine *e, void *scratch)
{
    char *at = (char *)scratch + e->flipout_at;
    struct room room = {.signs = (uint32_t *)(void *)at, .wide = at + signs_bytes(e)};
    room.narrow = (float *)room.wide + widest(e) * CR_LANES;
    return room;
}

bool cr_flipout_acts(const struct cr_engine *e, uint32_t member, const struct cr_lora *lora)
{
    return e->noise[member].flipout && lora->noise != NULL;
}

/* Signs of features [begin, begin + n) of a token block, begin a multiple of 32: word w of token t at out[16 w + t]. */
static void set_signs(const struct cr_dropout *who, size_t block, uint32_t which, size_t begin, size_t n, uint32_t *out)
{
    const uint32_t key[2] = {who->key[0] ^ CR_NOISE_FLIPOUT, who->key[1]};
    size_t first = begin / WORD, end = (begin + n + WORD - 1) / WORD;
    for (size_t lane = 0; lane < CR_LANES; lane++) {
        size_t at = block * CR_LANES + lane;
        uint32_t token = who->position[at] + CR_FLIPOUT_EXAMPLE * who->example[at], four[4];
        for (size_t w = first; w < end; w++) {
            if (w == first || w % 4 == 0) {
                const uint32_t counter[4] = {token, which, who->step, (uint32_t)(w / 4)};
                cr_philox4x32(counter, key, four);
            }
            out[(w - first) * CR_LANES + lane] = four[w % 4];
        }
    }
}

/* to = signs * from, n features of one token block. In place is fine. */
static void flip(enum cr_xtype type, const uint32_t *signs, const void *from, size_t n, void *to)
{
    const uint32_t *x = from;
    uint32_t *y = to;
    size_t lines = cr_tl16_bytes(type, n) / 64;
    for (size_t i = 0; i < lines; i++) {
        size_t k = type == CR_X_BF16 ? 2 * i : i;
        const uint32_t *word = signs + k / WORD * CR_LANES;
        for (size_t lane = 0; lane < CR_LANES; lane++) {
            uint32_t bits = word[lane] >> (k % WORD);
            uint32_t minus = type == CR_X_BF16 ? (bits & 1) << 15 | (bits >> 1 & 1) << 31 : bits << 31;
            y[i * CR_LANES + lane] = x[i * CR_LANES + lane] ^ minus;
        }
    }
}

/* The call for one token block whose x and u are in the room. */
static struct cr_lowrank_args alone(const struct cr_lowrank_args *args, const struct room *room)
{
    struct cr_lowrank_args one = *args;
    one.u = room->narrow;
    one.n_blocks = 1;
    one.dropout.keep16 = 65536;
    return one;
}

static const void *x_at(const struct cr_lowrank_args *args, size_t block, size_t feature)
{
    return (const char *)args->x + block * args->x_stride + cr_tl16_bytes(args->x_type, feature);
}

void cr_flipout_down(struct cr_engine *e, const struct cr_lora *lora, const struct cr_lowrank_args *args, size_t begin,
                     size_t end, void *scratch)
{
    struct room room = room_of(e, scratch);
    struct cr_lowrank_args one = alone(args, &room);
    one.p = lora->noise;
    one.x = room.wide;
    for (size_t block = begin; block < end; block++) {
        float *u = args->u + block * args->u_stride;
        set_signs(&args->dropout, block, SIGN_IN, 0, args->n_features, room.signs);
        flip(args->x_type, room.signs, x_at(args, block, 0), args->n_features, room.wide);
        e->lowrank.down(&one, 0, 1, scratch);
        set_signs(&args->dropout, block, SIGN_OUT, 0, args->rank, room.signs);
        flip(CR_X_F32, room.signs, room.narrow, args->rank, room.narrow);
        for (size_t i = 0; i < args->rank * CR_LANES; i++) {
            u[i] += room.narrow[i];
        }
    }
}

/* so * V of a token block into the room. */
static void flip_v(const struct cr_lowrank_args *args, size_t block, const struct room *room)
{
    set_signs(&args->dropout, block, SIGN_OUT, 0, args->rank, room->signs);
    flip(CR_X_F32, room->signs, args->u + block * args->u_stride, args->rank, room->narrow);
}

void cr_flipout_up(struct cr_engine *e, const struct cr_lora *lora, const struct cr_lowrank_args *args, size_t begin,
                   size_t end, void *scratch)
{
    struct room room = room_of(e, scratch);
    struct cr_lowrank_args one = alone(args, &room);
    const float *dx = room.wide;
    one.p = lora->noise;
    one.y = room.wide;
    for (size_t block = begin; block < end; block++) {
        float *y = args->y + block * args->y_stride;
        flip_v(args, block, &room);
        memset(room.wide, 0, args->n_features * CR_LANES * sizeof(float));
        e->lowrank.up(&one, 0, 1, scratch);
        set_signs(&args->dropout, block, SIGN_IN, 0, args->n_features, room.signs);
        flip(CR_X_F32, room.signs, room.wide, args->n_features, room.wide);
        for (size_t i = 0; i < args->n_features * CR_LANES; i++) {
            y[i] += dx[i];
        }
    }
}

void cr_flipout_grad(struct cr_engine *e, const struct cr_lora *lora, const struct cr_lowrank_args *args, size_t begin,
                     size_t end, void *scratch)
{
    struct room room = room_of(e, scratch);
    struct cr_lowrank_args one = alone(args, &room);
    one.g = lora->grad_noise + begin * args->g_ks;
    one.x = room.wide;
    one.n_features = end - begin;
    for (size_t block = 0; block < args->n_blocks; block++) {
        flip_v(args, block, &room);
        set_signs(&args->dropout, block, SIGN_IN, begin, end - begin, room.signs);
        flip(args->x_type, room.signs, x_at(args, block, begin), end - begin, room.wide);
        e->lowrank.grad(&one, 0, end - begin, scratch);
    }
}
