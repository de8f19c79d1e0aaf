/* Matrices that belong to one side of each matrix of an adapter, in posterior.safetensors. */
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/core/error.h"
#include "runtime/posterior/posterior_private.h"

/* Turns a matrix into its side: shape, and whether rows change places. */
static void side_of(struct cr_posterior_matrix *m, const struct cr_posterior_sides *sides)
{
    uint64_t n = m->of_a ? m->lora->n_in : m->lora->n_out;
    m->shape[0] = sides->large ? n : m->lora->rank;
    m->shape[1] = !sides->large ? m->lora->rank : n < sides->n_columns ? n : sides->n_columns;
    m->moves = m->moves && sides->large;
}

size_t cr_posterior_sides_floats(const struct cr_adapter *adapter, const struct cr_posterior_sides *sides)
{
    struct cr_posterior_matrix m = {.adapter = adapter};
    size_t n = 0;
    while (cr_posterior_next(&m)) {
        side_of(&m, sides);
        n += (size_t)(m.shape[0] * m.shape[1]);
    }
    return n;
}

cr_status cr_posterior_add_sides(struct cr_safetensors_writer *w, const struct cr_adapter *adapter,
                                 const struct cr_adapter_base *base, const struct cr_posterior_sides *sides,
                                 float *room, struct cr_error *err)
{
    struct cr_posterior_matrix m = {.adapter = adapter, .base = base, .suffix = sides->suffix};
    const float *from = sides->values;
    while (cr_posterior_next(&m)) {
        side_of(&m, sides);
        size_t n = (size_t)(m.shape[0] * m.shape[1]);
        if (m.moves) {
            cr_rows_gguf_to_hf(room, from, (size_t)m.shape[0], (size_t)m.shape[1], base->head_dim);
        }
        CR_TRY(cr_safetensors_writer_tensor(w, m.name, CR_ST_F32, 2, m.shape, m.moves ? room : from, err));
        from += n;
        room += n;
    }
    return CR_OK;
}

cr_status cr_posterior_file_sides(const struct cr_posterior_file *file, const struct cr_adapter *adapter,
                                  const struct cr_adapter_base *base, const struct cr_posterior_sides *sides,
                                  struct cr_error *err)
{
    struct cr_posterior_matrix m = {.adapter = adapter, .base = base, .suffix = sides->suffix};
    cr_status status = CR_OK;
    float *out = sides->values;
    float *room = cr_alloc(cr_posterior_sides_floats(adapter, sides), sizeof *room); /* more than any one needs */
    if (room == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for reading a posterior");
    }
    while (status == CR_OK && cr_posterior_next(&m)) {
        side_of(&m, sides);
        status = cr_posterior_read_matrix(file, &m, room, out, err);
        out += m.shape[0] * m.shape[1];
    }
    cr_free(room);
    return status;
}
