/* diversity: how much the members of an ensemble differ in what they predict. Pure arithmetic in double, no heap. */
#ifndef CR_DIVERSITY_H
#define CR_DIVERSITY_H

#include <stddef.h>
#include <stdint.h>

/* Added up over examples and over pairs of members. j = (KL(p||q) + KL(q||p)) / 2. The program of LoRA-Ensemble
 * (arXiv 2405.14438) reports sqrt(half_kl) of one pair and one batch, which grows with the batch; the mean of the roots
 * does not. */
struct cr_diversity {
    uint64_t n_pairs;         /* pairs of members times examples */
    uint64_t n_disagree;      /* of these, with different argmax (lowest of equals) */
    double half_kl, distance; /* sums of j and of sqrt(j) */
};

/* One more example: probs [n_members][n_classes]. A probability below 1e-300 counts as that in logarithms. */
void cr_diversity_add(const double *probs, size_t n_members, size_t n_classes, struct cr_diversity *sum);

/* Means over pairs and examples, NaN without a pair. */
double cr_diversity_disagreement(const struct cr_diversity *sum);
double cr_diversity_distance(const struct cr_diversity *sum);

#endif
