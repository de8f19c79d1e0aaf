#include "runtime/posterior/bora.h"

#include <math.h>

#include "credence/kernels/math.h"

#define REAL float
#define OF(name) name##_f32
#include "runtime/posterior/bora_real.h"
#undef REAL
#undef OF
#define REAL double
#define OF(name) name##_f64
#include "runtime/posterior/bora_real.h"

double cr_bora_token_weight(const struct cr_bora_part *part)
{
    return part->n_tokens > 0 ? (double)part->n_docs / (double)part->n_tokens : 0;
}

double cr_bora_data_term(const struct cr_bora_part *parts, size_t n_tasks)
{
    double sum = 0;
    for (size_t d = 0; d < n_tasks; d++) {
        sum += cr_bora_token_weight(&parts[d]) * parts[d].nll;
    }
    return sum;
}

double cr_bora_document_nll(const struct cr_bora_part *parts, size_t n_tasks)
{
    uint64_t n_docs = 0;
    for (size_t d = 0; d < n_tasks; d++) {
        n_docs += parts[d].n_tokens > 0 ? parts[d].n_docs : 0;
    }
    return n_docs > 0 ? cr_bora_data_term(parts, n_tasks) / (double)n_docs : (double)NAN;
}

double cr_bora_ppl(const struct cr_bora_part *parts, size_t n_batches, size_t n_tasks)
{
    double sum = 0;
    size_t n_summed = 0;
    for (size_t b = 0; b < n_batches; b++) {
        double nll = 0;
        size_t n_present = 0;
        for (const struct cr_bora_part *p = parts + b * n_tasks; p < parts + (b + 1) * n_tasks; p++) {
            if (p->n_tokens > 0) {
                nll += p->nll / (double)p->n_tokens;
                n_present++;
            }
        }
        if (n_present > 0) {
            sum += cr_exp(nll / (double)n_present);
            n_summed++;
        }
    }
    return n_summed > 0 ? sum / (double)n_summed : (double)NAN;
}
