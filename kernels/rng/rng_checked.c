#include "credence/kernels/rng.h"

#include "kernels/common/contract.h"

/* The stream, and elements that its counters can number. */
static struct cr_contract stream_open(const char *entry, const struct cr_rng_ops *ops, const struct cr_noise *noise,
                                      const void *out, size_t begin, size_t end, struct cr_error *err)
{
    struct cr_contract c = {entry, err, CR_OK};
    cr_contract_pointer(&c, ops, "ops");
    cr_contract_pointer(&c, noise, "noise");
    cr_contract_pointer(&c, out, "out");
    cr_contract_at_most(&c, begin, end, "begin");
    cr_contract_elements(&c, begin, end, 1);
    return c;
}

cr_status cr_rng_normals_checked(const struct cr_rng_ops *ops, const struct cr_noise *noise, float *out, size_t begin,
                                 size_t end, struct cr_error *err)
{
    struct cr_contract c = stream_open("rng normals", ops, noise, out, begin, end, err);
    cr_contract_that(&c, c.status != CR_OK || ops->normals != NULL, "ops.normals", "is NULL");
    if (c.status == CR_OK && begin < end) {
        ops->normals(noise, out, begin, end);
    }
    return c.status;
}

cr_status cr_rng_words_checked(const struct cr_rng_ops *ops, const struct cr_noise *noise, uint32_t *out, size_t begin,
                               size_t end, struct cr_error *err)
{
    struct cr_contract c = stream_open("rng words", ops, noise, out, begin, end, err);
    cr_contract_that(&c, c.status != CR_OK || ops->words != NULL, "ops.words", "is NULL");
    if (c.status == CR_OK && begin < end) {
        ops->words(noise, out, begin, end);
    }
    return c.status;
}
