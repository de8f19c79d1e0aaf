#include "tests/support/shape_model.h"

#include <stdio.h>
#include <string.h>

struct cr_model cr_shape_model(const char *architecture)
{
    static struct cr_layer layers[CR_SHAPE_LAYERS];
    static char path[] = "shape.gguf";
    static const size_t n_out[CR_N_PROJ] = {CR_SHAPE_EMBD, CR_SHAPE_KV, CR_SHAPE_KV,  CR_SHAPE_EMBD,
                                            CR_SHAPE_FF,   CR_SHAPE_FF, CR_SHAPE_EMBD};
    struct cr_model model = {.layers = layers, .base_hash = UINT64_C(0x0123456789abcdef), .path = path};
    for (size_t i = 0; i < CR_SHAPE_LAYERS; i++) {
        for (size_t p = 0; p < CR_N_PROJ; p++) {
            layers[i].proj[p].n_rows = n_out[p];
            layers[i].proj[p].n_cols = p == CR_PROJ_DOWN ? CR_SHAPE_FF : CR_SHAPE_EMBD;
        }
    }
    model.config.n_layers = CR_SHAPE_LAYERS;
    model.config.n_embd = CR_SHAPE_EMBD;
    model.config.n_ff = CR_SHAPE_FF;
    model.config.n_heads = 4;
    model.config.n_kv = 2;
    model.config.head_dim = model.config.n_rot = CR_SHAPE_HEAD;
    model.config.permuted_qk = strcmp(architecture, "llama") == 0;
    snprintf(model.config.architecture, sizeof model.config.architecture, "%s", architecture);
    return model;
}
