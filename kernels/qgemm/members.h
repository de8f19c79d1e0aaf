/* members: which low-rank term belongs to which token blocks of a qgemm call. */
#ifndef CR_QGEMM_MEMBERS_H
#define CR_QGEMM_MEMBERS_H

#include "credence/kernels/qgemm.h"

/* The term of `block` (p NULL: none) and the blocks [block, end) it holds for. */
static inline struct cr_qgemm_member cr_qgemm_member_at(const struct cr_qgemm_args *a, size_t block)
{
    struct cr_qgemm_member none = {.begin = block, .end = a->n_blocks};
    if (a->n_members == 0) {
        struct cr_qgemm_member all = {block, a->n_blocks, a->p, a->p_os, a->p_rs, a->p != NULL ? a->rank : 0};
        return all;
    }
    for (size_t i = 0; i < a->n_members; i++) {
        struct cr_qgemm_member m = a->members[i];
        if (block < m.begin) {
            none.end = m.begin;
            return none;
        }
        if (block < m.end) {
            m.begin = block;
            m.rank = m.p != NULL ? m.rank : 0;
            return m;
        }
    }
    return none;
}

/* Largest rank of the call. */
static inline size_t cr_qgemm_max_rank(const struct cr_qgemm_args *a)
{
    size_t rank = a->n_members == 0 && a->p != NULL ? a->rank : 0;
    for (size_t i = 0; i < a->n_members; i++) {
        rank = a->members[i].p != NULL && a->members[i].rank > rank ? a->members[i].rank : rank;
    }
    return rank;
}

#endif
