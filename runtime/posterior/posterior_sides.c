/* Matrices that belong to one side of each matrix of an adapter, in posterior.safetensors. */
#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/core/error.h"
#include "runtime/posterior/posterior_private.h"

static void shape_of(const struct cr_lora *slot, int part, const struct cr_posterior_sides *sides, uint64_t shape[2])
{
    uint64_t n = part == 0 ? slot->n_in : slot->n_out;
    shape[0] = sides->large ? n : slot->rank;
    shape[1] = !sides->large ? slot->rank : n < sides->n_columns ? n : sides->n_columns;
}

size_t cr_posterior_sides_floats(const struct cr_adapter *adapter, const struct cr_posterior_sides *sides)
{
    size_t n = 0;
    for (size_t i = 0; i < (size_t)adapter->n_layers * CR_N_PROJ; i++) {
        for (int part = 0; part < 2 && adapter->slots[i].rank > 0; part++) {
            uint64_t shape[2];
            shape_of(&adapter->slots[i], part, sides, shape);
            n += (size_t)(shape[0] * shape[1]);
        }
    }
    return n;
}

cr_status cr_posterior_add_sides(struct cr_safetensors_writer *w, const struct cr_adapter *adapter,
                                 const struct cr_adapter_base *base, const struct cr_posterior_sides *sides,
                                 float *room, struct cr_error *err)
{
    const float *from = sides->values;
    for (size_t i = 0; i < (size_t)adapter->n_layers * CR_N_PROJ; i++) {
        for (int part = 0; part < 2 && adapter->slots[i].rank > 0; part++) {
            char name[160];
            uint64_t shape[2];
            shape_of(&adapter->slots[i], part, sides, shape);
            size_t n = (size_t)(shape[0] * shape[1]);
            bool moves = sides->large && cr_posterior_reordered(base, i, part);
            if (moves) {
                cr_rows_gguf_to_hf(room, from, (size_t)shape[0], (size_t)shape[1], base->head_dim);
            }
            cr_posterior_tensor_name(name, sizeof name, i, part, sides->suffix);
            CR_TRY(cr_safetensors_writer_tensor(w, name, CR_ST_F32, 2, shape, moves ? room : from, err));
            from += n;
            room += n;
        }
    }
    return CR_OK;
}

cr_status cr_posterior_file_sides(const struct cr_posterior_file *file, const struct cr_adapter *adapter,
                                  const struct cr_adapter_base *base, const struct cr_posterior_sides *sides,
                                  struct cr_error *err)
{
    cr_status status = CR_OK;
    float *out = sides->values;
    float *room = cr_alloc(cr_posterior_sides_floats(adapter, sides), sizeof *room); /* more than any one needs */
    if (room == NULL) {
        return cr_fail(err, CR_E_MEMORY, "no memory for reading a posterior");
    }
    for (size_t i = 0; i < (size_t)adapter->n_layers * CR_N_PROJ; i++) {
        for (int part = 0; part < 2 && adapter->slots[i].rank > 0; part++) {
            char name[160];
            uint64_t shape[2];
            shape_of(&adapter->slots[i], part, sides, shape);
            cr_posterior_tensor_name(name, sizeof name, i, part, sides->suffix);
            bool moves = sides->large && cr_posterior_reordered(base, i, part);
            if (moves && (base->head_dim == 0 || shape[0] % base->head_dim != 0)) {
                status = cr_fail(err, CR_E_INPUT, "%s: heads of %u rows do not fit %llu rows",
                                 cr_safetensors_label(file->st), base->head_dim, (unsigned long long)shape[0]);
                goto out;
            }
            CR_TRY_OUT(status, cr_posterior_read(file, name, 2, shape, moves ? room : out, err));
            if (moves) {
                cr_rows_hf_to_gguf(out, room, (size_t)shape[0], (size_t)shape[1], base->head_dim);
            }
            out += shape[0] * shape[1];
        }
    }
out:
    cr_free(room);
    return status;
}
