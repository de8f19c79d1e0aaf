/* Where the vertices of a prefix begin: at the keys and values that the model forms of training texts, other texts for
 * each vertex, and at the model's own label rows with a little noise. */
#include <string.h>

#include "credence/kernels/rng.h"
#include "runtime/core/alloc.h"
#include "runtime/posterior/members.h"
#include "runtime/train/train.h"

/* Noise of the label rows of a vertex, as a share of their root mean square: enough to tell vertices apart. */
#define HEAD_NOISE 0.01

/* An epoch that no run reaches: the order in which texts are taken. Second key word of the noise. */
#define START_EPOCH UINT32_MAX
enum { HEAD_KEY = 0x68656164 };

static const struct cr_example *text_at(const struct cr_train *train, size_t i)
{
    return &train->data.examples[train->order[i % train->n_train]];
}

/* Leading tokens that all training texts share, like the lead-in of a template: they say nothing of any text, and
 * vertices made of them would be equal. 0 when no text has more. */
static uint32_t shared_lead(const struct cr_train *train)
{
    const struct cr_example *first = text_at(train, 0);
    uint32_t lead = first->n_ids, longest = first->n_ids;
    for (size_t i = 1; i < train->n_train; i++) {
        const struct cr_example *text = text_at(train, i);
        uint32_t same = 0;
        while (same < lead && same < text->n_ids && text->ids[same] == first->ids[same]) {
            same++;
        }
        lead = same;
        longest = text->n_ids > longest ? text->n_ids : longest;
    }
    return lead < longest ? lead : 0;
}

/* n tokens of the texts from number `text` on, without their leads. Returns how many texts it took. */
static size_t collect(const struct cr_train *train, size_t text, uint32_t lead, int32_t *ids, size_t n)
{
    size_t taken = 0;
    for (size_t have = 0; have < n; taken++) {
        const struct cr_example *from = text_at(train, text + taken);
        size_t left = from->n_ids > lead ? from->n_ids - lead : 0, wanted = n - have;
        size_t some = left < wanted ? left : wanted;
        memcpy(ids + have, from->ids + lead, some * sizeof *ids);
        have += some;
    }
    return taken;
}

static bool is_new(int32_t (*ids)[CR_PREFIX_ROWS_MAX], uint32_t vertex, uint32_t n_rows)
{
    for (uint32_t j = 0; j < vertex; j++) {
        if (memcmp(ids[j], ids[vertex], n_rows * sizeof ids[j][0]) == 0) {
            return false;
        }
    }
    return true;
}

/* The tokens of each vertex, no two alike. */
static cr_status choose_tokens(struct cr_train *train, int32_t (*ids)[CR_PREFIX_ROWS_MAX], struct cr_error *err)
{
    const struct cr_prefix *prefix = train->adapter->prefix;
    cr_epoch_order(train->train_pool, train->n_train, train->options.seed, START_EPOCH, train->order);
    train->order_epoch = UINT64_MAX; /* that of no epoch */
    uint32_t lead = shared_lead(train);
    size_t text = 0;
    for (uint32_t j = 0; j < prefix->n_vertices; j++) {
        size_t taken = collect(train, text, lead, ids[j], prefix->n_rows);
        while (!is_new(ids, j, prefix->n_rows) && text < train->n_train) {
            taken = collect(train, ++text, lead, ids[j], prefix->n_rows);
        }
        if (!is_new(ids, j, prefix->n_rows)) {
            return cr_fail(err, CR_E_INPUT,
                           "%zu training texts give no %u different beginnings of %u tokens for the vertices: fewer "
                           "--vertices need fewer",
                           train->n_train, prefix->n_vertices, prefix->n_rows);
        }
        text += taken;
    }
    return CR_OK;
}

static cr_status fill_rows(struct cr_train *train, struct cr_error *err)
{
    const struct cr_prefix *prefix = train->adapter->prefix;
    int32_t ids[CR_PREFIX_VERTICES_MAX][CR_PREFIX_ROWS_MAX];
    CR_TRY(choose_tokens(train, ids, err));
    for (uint32_t j = 0; j < prefix->n_vertices; j++) {
        struct cr_example text = {.ids = ids[j], .n_ids = prefix->n_rows, .kind = CR_EXAMPLE_CHOICE, .n_choices = 2};
        struct cr_dataset one = {.examples = &text, .n = 1};
        uint32_t number = 0;
        cr_batch_fill(&train->batch, &one, &number, 1, 1.0f);
        CR_TRY(cr_engine_fill_prefix(train->engine, j, &train->batch, err));
    }
    return CR_OK;
}

static cr_status fill_head(struct cr_train *train, struct cr_error *err)
{
    const struct cr_prefix *prefix = train->adapter->prefix;
    size_t n = (size_t)prefix->n_labels * prefix->n_embd;
    float *head = prefix->params + cr_prefix_rows_floats(prefix);
    float *model = cr_alloc(n, sizeof *model);
    struct cr_rng_ops rng;
    if (model == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for label rows");
    }
    cr_rng_ops_init(&rng, train->workers.tier);
    cr_model_label_rows(train->model, train->workers.tier, train->data.label_ids, prefix->n_labels, model);
    for (uint32_t j = 0; j < prefix->n_vertices; j++) {
        struct cr_noise noise = {.key = {(uint32_t)train->options.seed, HEAD_KEY}, .tensor = j};
        cr_members_near_rows(&rng, &noise, model, prefix->n_vertices > 1 ? HEAD_NOISE : 0, n, head + j * n);
    }
    cr_free(model);
    return CR_OK;
}

cr_status cr_train_start_prefix(struct cr_train *train, struct cr_error *err)
{
    if (!train->method->prefix) {
        return CR_OK;
    }
    CR_TRY(fill_rows(train, err));
    return fill_head(train, err);
}
