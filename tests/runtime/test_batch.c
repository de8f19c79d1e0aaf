/* Packing of examples, epoch order: on data sets built by hand. */
#include <check.h>
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/data/batch.h"
#include "tests/support/kernel_test.h"

enum { MAX_EXAMPLES = 4000 };

static struct cr_example examples[MAX_EXAMPLES];
static int32_t ids[2048];
static uint8_t mask[2048];

/* n choices of `n_ids` tokens: answers i % 2, tasks i % 3 - 1 */
static struct cr_dataset choices(size_t n, uint32_t n_ids)
{
    struct cr_dataset dataset = {.examples = examples, .n = n, .classification = true, .max_ids = n_ids};
    for (size_t i = 0; i < 2048; i++) {
        ids[i] = (int32_t)i + 7;
    }
    for (size_t i = 0; i < n; i++) {
        examples[i] = (struct cr_example){.ids = ids,
                                          .n_ids = n_ids,
                                          .n_targets = 1,
                                          .kind = CR_EXAMPLE_CHOICE,
                                          .n_choices = 4,
                                          .answer = (uint32_t)(i % 2),
                                          .task = (int32_t)(i % 3) - 1};
    }
    return dataset;
}

START_TEST(choices_are_packed_with_a_pad_segment)
{
    struct cr_dataset dataset = choices(3, 10);
    struct cr_token_batch batch;
    examples[1].n_ids = 15;
    uint32_t order[2] = {2, 1};
    ck_assert_int_eq(cr_batch_init(&batch, 40, NULL), CR_OK);
    ck_assert_uint_eq(batch.max_tokens, 48);
    cr_batch_fill(&batch, &dataset, order, 2, 0.25f);
    ck_assert_uint_eq(batch.n_tokens, 25);
    ck_assert_uint_eq(batch.n_blocks, 2);
    ck_assert_uint_eq(batch.n_seg, 3);
    const uint32_t bounds[] = {0, 10, 25, 32};
    ck_assert_mem_eq(batch.seg, bounds, sizeof bounds);
    ck_assert_uint_eq(batch.n_rows, 2);
    ck_assert_uint_eq(batch.row_token[0], 9);
    ck_assert_uint_eq(batch.row_token[1], 24);
    ck_assert_int_eq(batch.row_target[0], 0);
    ck_assert_int_eq(batch.row_target[1], 1);
    ck_assert_uint_eq(batch.row_choices[0], 4);
    ck_assert(batch.row_weight[0] == 0.25f && batch.row_weight[1] == 0.25f);
    ck_assert_uint_eq(batch.example[9], 2);
    ck_assert_uint_eq(batch.example[10], 1);
    ck_assert_uint_eq(batch.pos[10], 0);
    ck_assert_uint_eq(batch.pos[24], 14);
    ck_assert_int_eq(batch.ids[10], 7);
    for (size_t i = 25; i < 32; i++) {
        ck_assert_uint_eq(batch.example[i], UINT32_MAX);
        ck_assert_int_eq(batch.ids[i], 0);
        ck_assert_uint_eq(batch.pos[i], i - 25);
    }
    cr_batch_deinit(&batch);
}
END_TEST

/* Each part begins on a block of its own; pads stand between, not only at the end. */
START_TEST(parts_begin_on_blocks)
{
    struct cr_dataset dataset = choices(3, 10);
    struct cr_token_batch batch;
    examples[1].n_ids = 16;
    uint32_t order[3] = {2, 1, 0};
    ck_assert_int_eq(cr_batch_init(&batch, 80, NULL), CR_OK);
    ck_assert_uint_eq(cr_batch_part_tokens(&dataset, order, 3), 48);
    ck_assert_uint_eq(cr_batch_part_tokens(&dataset, order + 1, 1), 16);
    cr_batch_clear(&batch);
    cr_batch_add_part(&batch, 3, &dataset, order, 1, 1);
    cr_batch_add_part(&batch, 4, &dataset, order + 1, 1, 1);
    cr_batch_add_part(&batch, 9, &dataset, order, 3, 1);
    const uint32_t bounds[] = {0, 10, 16, 32, 42, 58, 68, 80}, members[] = {3, 4, 9}, ends[] = {1, 2, 5};
    const uint32_t rows[] = {9, 31, 41, 57, 67};
    ck_assert_uint_eq(batch.n_seg, 7);
    ck_assert_mem_eq(batch.seg, bounds, sizeof bounds);
    ck_assert_uint_eq(batch.n_parts, 3);
    ck_assert_mem_eq(batch.part_member, members, sizeof members);
    ck_assert_mem_eq(batch.part_end, ends, sizeof ends);
    ck_assert_uint_eq(batch.n_blocks, 5);
    ck_assert_uint_eq(batch.n_tokens, 10 + 16 + 36);
    ck_assert_uint_eq(batch.n_rows, 5);
    ck_assert_mem_eq(batch.row_token, rows, sizeof rows);
    ck_assert_uint_eq(batch.example[12], UINT32_MAX);
    ck_assert_uint_eq(batch.pos[12], 2);
    ck_assert_int_eq(batch.ids[12], 0);
    ck_assert_uint_eq(batch.example[16], 1);
    cr_batch_fill(&batch, &dataset, order, 1, 1);
    ck_assert_uint_eq(batch.n_parts, 1);
    ck_assert_uint_eq(batch.n_blocks, 1);
    cr_batch_deinit(&batch);
}
END_TEST

/* The lead stands once, at the head of each part; rows and positions are those of the whole examples. */
START_TEST(leads_stand_once_a_part)
{
    struct cr_dataset dataset = choices(4, 10);
    struct cr_token_batch batch;
    uint32_t order[4] = {2, 1, 0, 3};
    for (size_t i = 0; i < 3; i++) {
        examples[i].n_lead = 4;
    }
    ck_assert_int_eq(cr_batch_init(&batch, 80, NULL), CR_OK);
    ck_assert_uint_eq(cr_batch_shortest(&dataset), 6);
    ck_assert_uint_eq(cr_batch_part_tokens(&dataset, order, 2), 16);
    ck_assert_uint_eq(cr_batch_part_tokens(&dataset, order, 3), 32);
    ck_assert_uint_eq(cr_batch_take(&dataset, order, 4), 3); /* the last has none: not in one batch */
    cr_batch_clear(&batch);
    cr_batch_add_part(&batch, 0, &dataset, order, 2, 1);
    cr_batch_add_part(&batch, 1, &dataset, order, 3, 1);
    const uint32_t bounds[] = {0, 4, 10, 16, 20, 26, 32, 38, 48}, rows[] = {9, 15, 25, 31, 37};
    ck_assert_uint_eq(batch.n_lead, 4);
    ck_assert_uint_eq(batch.n_seg, 8);
    ck_assert_mem_eq(batch.seg, bounds, sizeof bounds);
    ck_assert_uint_eq(batch.n_rows, 5);
    ck_assert_mem_eq(batch.row_token, rows, sizeof rows);
    ck_assert_uint_eq(batch.n_tokens, 50);
    ck_assert_uint_eq(batch.pos[3], 3);
    ck_assert_uint_eq(batch.pos[4], 4);
    ck_assert_uint_eq(batch.pos[15], 9);
    ck_assert_int_eq(batch.ids[10], 7 + 4);
    ck_assert_uint_eq(batch.example[9], 2);
    ck_assert_uint_eq(batch.example[10], 1);
    cr_batch_fill(&batch, &dataset, order + 3, 1, 1);
    ck_assert_uint_eq(batch.n_lead, 0);
    ck_assert_uint_eq(batch.n_seg, 2);
    struct cr_dataset whole = cr_dataset_whole(&dataset);
    ck_assert_uint_eq(cr_batch_take(&whole, order, 4), 4);
    cr_batch_fill(&batch, &whole, order, 4, 1);
    ck_assert_uint_eq(batch.n_lead, 0);
    ck_assert_uint_eq(batch.row_token[3], 39);
    cr_batch_deinit(&batch);
}
END_TEST

/* A micro-batch by task ends where examples without the lead begin, of the same task or of another. */
START_TEST(tasks_share_one_lead)
{
    struct cr_dataset dataset = choices(4, 10);
    struct cr_token_batch batch;
    static const uint32_t set_of[4] = {0, 0, 1, 1};
    uint32_t sorted[4] = {0, 3, 1, 2};
    for (size_t i = 0; i < 4; i++) {
        examples[i].task = i == 1 || i == 2 ? 1 : -1;
        examples[i].n_lead = i == 2 ? 0 : 4;
    }
    ck_assert_int_eq(cr_batch_init(&batch, 512, NULL), CR_OK);
    ck_assert_uint_eq(cr_batch_fill_sorted(&batch, &dataset, set_of, sorted, 4, 1), 3);
    ck_assert_uint_eq(batch.n_parts, 2);
    ck_assert_uint_eq(batch.n_lead, 4);
    ck_assert_uint_eq(cr_batch_fill_sorted(&batch, &dataset, set_of, sorted + 3, 1, 1), 1);
    ck_assert_uint_eq(batch.n_lead, 0);
    cr_batch_deinit(&batch);
}
END_TEST

/* By task: parts ascend, each is padded, and what does not fit waits. */
START_TEST(tasks_are_parts)
{
    struct cr_dataset dataset = choices(6, 100);
    struct cr_token_batch batch;
    static const int32_t tasks[] = {1, -1, 0, 1, 0, 2};
    for (int i = 0; i < 6; i++) {
        examples[i].task = tasks[i];
    }
    const uint32_t set_of[] = {0, 5, 2, 0}, order[] = {3, 5, 2, 1, 0, 4}, want[] = {5, 1, 3, 0, 2, 4};
    uint32_t sorted[6];
    cr_batch_sort(&dataset, set_of, 6, order, 6, sorted);
    ck_assert_mem_eq(sorted, want, sizeof want); /* tasks 2 and none, then 1, then 0 */
    ck_assert_int_eq(cr_batch_init(&batch, CR_MICRO_TOKENS, NULL), CR_OK);
    /* 200 tokens are 13 blocks; 200 more make 26; 100 of the third set are 7 of the last 6 blocks: they wait */
    ck_assert_uint_eq(cr_batch_fill_sorted(&batch, &dataset, set_of, sorted, 6, 1), 4);
    const uint32_t members[] = {0, 2}, ends[] = {13, 26};
    ck_assert_uint_eq(batch.n_parts, 2);
    ck_assert_mem_eq(batch.part_member, members, sizeof members);
    ck_assert_mem_eq(batch.part_end, ends, sizeof ends);
    ck_assert_uint_eq(cr_batch_fill_sorted(&batch, &dataset, set_of, sorted + 4, 2, 1), 2);
    ck_assert_uint_eq(batch.n_parts, 1);
    ck_assert_uint_eq(batch.part_member[0], 5);
    /* One set: as many as without tasks; a longer example alone. */
    const uint32_t all[] = {4, 4, 4, 4};
    ck_assert_uint_eq(cr_batch_fill_sorted(&batch, &dataset, all, order, 6, 1), cr_batch_take(&dataset, order, 6));
    cr_batch_deinit(&batch);
    examples[3].n_ids = CR_MICRO_TOKENS + 1;
    ck_assert_int_eq(cr_batch_init(&batch, CR_MICRO_TOKENS + 16, NULL), CR_OK);
    ck_assert_uint_eq(cr_batch_fill_sorted(&batch, &dataset, all, order, 6, 1), 1);
    ck_assert_uint_eq(cr_batch_fill_sorted(&batch, &dataset, all, order + 1, 5, 1), 5);
    cr_batch_deinit(&batch);
}
END_TEST

START_TEST(full_blocks_have_no_pad_segment)
{
    struct cr_dataset dataset = choices(2, 8);
    struct cr_token_batch batch;
    uint32_t order[2] = {0, 1};
    ck_assert_int_eq(cr_batch_init(&batch, 16, NULL), CR_OK);
    cr_batch_fill(&batch, &dataset, order, 2, 1);
    ck_assert_uint_eq(batch.n_seg, 2);
    ck_assert_uint_eq(batch.seg[2], 16);
    ck_assert_uint_eq(batch.n_blocks, 1);
    cr_batch_deinit(&batch);
}
END_TEST

START_TEST(text_rows_stand_in_front_of_their_targets)
{
    struct cr_dataset dataset = choices(1, 5);
    struct cr_token_batch batch;
    const uint8_t loss[5] = {1, 0, 1, 1, 0}; /* the first token has nothing in front of it */
    memcpy(mask, loss, sizeof loss);
    dataset.classification = false;
    examples[0].kind = CR_EXAMPLE_TEXT;
    examples[0].mask = mask;
    examples[0].n_choices = 0;
    uint32_t order[1] = {0};
    ck_assert_int_eq(cr_batch_init(&batch, 16, NULL), CR_OK);
    cr_batch_fill(&batch, &dataset, order, 1, 0.5f);
    ck_assert_uint_eq(batch.n_rows, 2);
    ck_assert_uint_eq(batch.row_token[0], 1);
    ck_assert_int_eq(batch.row_target[0], ids[2]);
    ck_assert_uint_eq(batch.row_token[1], 2);
    ck_assert_int_eq(batch.row_target[1], ids[3]);
    ck_assert_uint_eq(batch.row_choices[0], 0);
    /* a fill starts from nothing */
    cr_batch_fill(&batch, &dataset, order, 1, 0.5f);
    ck_assert_uint_eq(batch.n_rows, 2);
    ck_assert_uint_eq(batch.n_tokens, 5);
    cr_batch_deinit(&batch);
}
END_TEST

START_TEST(examples_are_taken_up_to_the_limit)
{
    struct cr_dataset dataset = choices(10, 128);
    uint32_t order[10];
    for (uint32_t i = 0; i < 10; i++) {
        order[i] = i;
    }
    ck_assert_uint_eq(cr_batch_take(&dataset, order, 10), 4); /* 4 * 128 = 512 */
    ck_assert_uint_eq(cr_batch_take(&dataset, order, 3), 3);
    examples[0].n_ids = 129;
    ck_assert_uint_eq(cr_batch_take(&dataset, order, 10), 3);
    examples[0].n_ids = 513; /* alone */
    ck_assert_uint_eq(cr_batch_take(&dataset, order, 10), 1);
    ck_assert_uint_eq(cr_batch_capacity(&dataset), CR_MICRO_TOKENS);
    dataset.max_ids = 513;
    ck_assert_uint_eq(cr_batch_capacity(&dataset), 528);
}
END_TEST

/* Micro-batches of several sets in a pass: whole ones up to the limit, never less than one. */
START_TEST(sets_share_a_pass_up_to_the_limit)
{
    ck_assert_uint_eq(cr_batch_joint(512, 1), 512);
    ck_assert_uint_eq(cr_batch_joint(512, 3), 1536);
    ck_assert_uint_eq(cr_batch_joint(512, 8), CR_PASS_TOKENS);
    ck_assert_uint_eq(cr_batch_joint(512, 1024), CR_PASS_TOKENS);
    ck_assert_uint_eq(cr_batch_joint(768, 2), 1536);
    ck_assert_uint_eq(cr_batch_joint(768, 3), CR_PASS_TOKENS); /* a short third */
    ck_assert_uint_eq(cr_batch_joint(8192, 1), 8192);
    ck_assert_uint_eq(cr_batch_joint(8192, 3), 8192);
    static const size_t micro[] = {512, 768, 4096, 8192}, from[] = {4, 3, 1, 1};
    for (int i = 0; i < 4; i++) {
        ck_assert_uint_eq(cr_batch_joint_sets(micro[i], 1024), from[i]);
        ck_assert_uint_eq(cr_batch_joint_sets(micro[i], 1), 1);
        ck_assert_uint_eq(cr_batch_joint(micro[i], from[i]), cr_batch_joint(micro[i], 1024));
    }
}
END_TEST

START_TEST(epoch_order_is_a_permutation_of_the_pool)
{
    uint32_t pool[100], first[100], again[100], next[100];
    for (uint32_t i = 0; i < 100; i++) {
        pool[i] = 1000 + 3 * i;
    }
    cr_epoch_order(pool, 100, 7, 0, first);
    cr_epoch_order(pool, 100, 7, 0, again);
    cr_epoch_order(pool, 100, 7, 1, next);
    ck_assert_mem_eq(first, again, sizeof first);
    ck_assert(memcmp(first, next, sizeof first) != 0);
    cr_epoch_order(pool, 100, 8, 0, again);
    ck_assert(memcmp(first, again, sizeof first) != 0);
    bool seen[100] = {false};
    for (size_t i = 0; i < 100; i++) {
        ck_assert_uint_eq(first[i] % 3, 1000 % 3);
        ck_assert(!seen[(first[i] - 1000) / 3]);
        seen[(first[i] - 1000) / 3] = true;
    }
}
END_TEST

START_TEST(batch_memory_can_fail)
{
    struct cr_token_batch batch = {.n_tokens = 99};
    long live = cr_alloc_live();
    for (long i = 1; i <= 8; i++) {
        struct cr_error err = {0};
        cr_alloc_fail_at(i, false);
        ck_assert_int_eq(cr_batch_init(&batch, 512, &err), CR_E_MEMORY);
        cr_alloc_fail_at(0, false);
        ck_assert_uint_eq(batch.n_tokens, 99);
        ck_assert_int_eq(cr_alloc_live(), live);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("batch");
    TCase *tcase = tcase_create("batch");
    suite_add_tcase(suite, tcase);
    tcase_add_test(tcase, parts_begin_on_blocks);
    tcase_add_test(tcase, leads_stand_once_a_part);
    tcase_add_test(tcase, tasks_share_one_lead);
    tcase_add_test(tcase, tasks_are_parts);
    tcase_add_test(tcase, choices_are_packed_with_a_pad_segment);
    tcase_add_test(tcase, full_blocks_have_no_pad_segment);
    tcase_add_test(tcase, text_rows_stand_in_front_of_their_targets);
    tcase_add_test(tcase, examples_are_taken_up_to_the_limit);
    tcase_add_test(tcase, sets_share_a_pass_up_to_the_limit);
    tcase_add_test(tcase, epoch_order_is_a_permutation_of_the_pool);
    tcase_add_test(tcase, batch_memory_can_fail);
    return cr_run_suite(suite);
}
