#include <string.h>

#include "runtime/adapter/adapter.h"
#include "runtime/core/error.h"

static bool same(const char *part, size_t n, const char *name)
{
    return strlen(name) == n && memcmp(part, name, n) == 0;
}

static uint32_t find_target(const char *part, size_t n)
{
    for (int p = 0; p < CR_N_PROJ; p++) {
        enum cr_proj proj = (enum cr_proj)p;
        if (same(part, n, cr_proj_hf_name(proj)) || same(part, n, cr_proj_hf_path(proj)) ||
            same(part, n, cr_proj_gguf_name(proj))) {
            return 1u << p;
        }
    }
    return 0;
}

cr_status cr_targets_parse(const char *text, uint32_t *targets, struct cr_error *err)
{
    uint32_t found = 0;
    if (strcmp(text, "all") == 0) {
        *targets = (1u << CR_N_PROJ) - 1;
        return CR_OK;
    }
    for (const char *part = text;;) {
        while (*part == ' ') {
            part++;
        }
        size_t n = strcspn(part, ",");
        const char *next = part[n] == ',' ? part + n + 1 : NULL;
        while (n > 0 && part[n - 1] == ' ') {
            n--;
        }
        uint32_t bit = find_target(part, n);
        if (bit == 0) {
            char shown[CR_ESCAPE_BYTES];
            return cr_fail(err, CR_E_USAGE,
                           "targets: \"%s\" is no projection; q_proj k_proj v_proj o_proj gate_proj "
                           "up_proj down_proj (or attn_q attn_k attn_v attn_output ffn_gate ffn_up ffn_down), comma "
                           "separated, or all expected",
                           cr_escape(shown, sizeof shown, part, n));
        }
        found |= bit;
        if (next == NULL) {
            break;
        }
        part = next;
    }
    *targets = found;
    return CR_OK;
}
