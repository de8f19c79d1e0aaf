/* encode: one checked line as token ids and loss positions, cut to the length limit.
 *
 *   choices            [bos] template T1, no loss positions: the answer is predicted after the last token
 *   prompt/completion  [bos] ids(prompt) ids(completion) eos, each text tokenised alone; loss on completion and eos
 *   messages           the chat template's rendering; loss on assistant texts and their end markers
 *   text               [bos] ids(text) eos; loss on everything but the first token
 * bos stands only where the model file asks for it. train_on_prompt puts loss on every token but the first.
 * Too long: choices lose the end of the question, prompt/completion the start of the prompt (then, when nothing of it
 * is left, the end of the completion), messages and text their end.
 * Template T1: IVON-LoRA and Laplace-LoRA, as their code builds the prompts of ARC and OpenBookQA.
 */
#ifndef CR_DATA_ENCODE_H
#define CR_DATA_ENCODE_H

#include "runtime/core/buf.h"
#include "runtime/data/dataset.h"
#include "runtime/data/line.h"
#include "runtime/tokenizer/chat.h"

/* Why an example is left out. */
enum cr_encode_skip { CR_ENCODE_KEPT, CR_ENCODE_LONG, CR_ENCODE_NO_TARGET, CR_ENCODE_N_SKIPS };

/* Working memory of one file; the last example's tokens are in ids and loss until the next call. */
struct cr_encoder {
    const struct cr_tokenizer *tokenizer;     /* borrowed */
    const struct cr_dataset_options *options; /* borrowed */
    unsigned flags;                           /* CR_TOK_NFC or 0 */
    bool has_chat;
    struct cr_chat chat; /* made when the first conversation comes */
    struct cr_buf text;
    struct cr_ids ids, part;
    struct cr_ids lead; /* what every prompt with choices begins with, unless the question's start changes its end */
    struct cr_ids loss; /* as long as ids; unused for choices */
    int32_t label_ids[CR_LABELS_MAX];
    uint32_t n_labels; /* labels looked up so far */
};

struct cr_encoded {
    enum cr_encode_skip skip;
    uint32_t n_targets, n_lead;
    bool truncated;
    size_t n_dropped_bytes;
};

/* Checks the options. Errors: CR_E_USAGE. Free with cr_encoder_deinit. */
cr_status cr_encoder_init(struct cr_encoder *encoder, const struct cr_tokenizer *tokenizer,
                          const struct cr_dataset_options *options, struct cr_error *err);
void cr_encoder_deinit(struct cr_encoder *encoder);

/* Errors: CR_E_INPUT (a label that is no token, an unknown role, no chat template), CR_E_MEMORY. */
cr_status cr_encode_line(struct cr_encoder *encoder, const struct cr_line *line, struct cr_encoded *out,
                         struct cr_error *err);

/* The part for choices (choice.c). */
cr_status cr_encode_choices(struct cr_encoder *encoder, const struct cr_line *line, struct cr_encoded *out,
                            struct cr_error *err);

/* Appends template T1 with the first question_bytes of the question. */
void cr_render_choices(struct cr_buf *text, const struct cr_line *line, size_t question_bytes);

#endif
