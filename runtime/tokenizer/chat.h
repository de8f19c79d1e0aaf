/* Conversations rendered as the text a chat model was trained on, with the positions that carry loss.
 *
 * There is no Jinja interpreter: the kind is recognised from the template by what it contains, or named by the user,
 * and rendered by a table. A literal default system turn inside the template (SmolLM2, Qwen2.5) is found by one
 * linear scan and put in front of conversations that do not begin with a system turn.
 * Errors: CR_E_INPUT for an unknown kind or role or an empty conversation, CR_E_MEMORY.
 * Facts: published templates of the model families, and llama.cpp's order of detection. */
#ifndef CR_TOKENIZER_CHAT_H
#define CR_TOKENIZER_CHAT_H

#include <stdbool.h>
#include <stddef.h>

#include "credence/status.h"
#include "runtime/tokenizer/tokenizer.h"

enum cr_chat_kind {
    CR_CHAT_NONE, /* not recognised */
    CR_CHAT_CHATML,
    CR_CHAT_LLAMA3,
    CR_CHAT_GEMMA,
    CR_CHAT_PHI3,
    CR_CHAT_ZEPHYR,
    CR_CHAT_PHI4,
    CR_CHAT_LLAMA2,
    CR_CHAT_MISTRAL_V3,
    CR_CHAT_MISTRAL_V7,
    CR_CHAT_VICUNA,
    CR_CHAT_SMOLVLM,
    CR_CHAT_MISTRAL_V1,
    CR_CHAT_MISTRAL_V3_TEKKEN,
    CR_CHAT_MISTRAL_V7_TEKKEN,
    CR_CHAT_N_KINDS
};

enum cr_chat_kind cr_chat_detect(const char *template_text, size_t n); /* CR_CHAT_NONE when nothing fits */
enum cr_chat_kind cr_chat_by_name(const char *name);                   /* CR_CHAT_NONE when unknown */
const char *cr_chat_name(enum cr_chat_kind kind);                      /* "chatml" ... */
const char *cr_chat_names(void);                                       /* all names, comma separated, for messages */

/* How conversations are rendered. */
struct cr_chat {
    enum cr_chat_kind kind;
    char *default_system; /* owned, terminated; NULL when there is none */
    size_t default_system_bytes;
};

/* Fills *chat from the tokenizer's template, or by name when name is not NULL (the template's default system turn is
 * then used only if the template is of that kind). system, when not NULL, replaces the default system text; "" means
 * no default system turn. */
cr_status cr_chat_init(struct cr_chat *chat, const struct cr_tokenizer *tok, const char *name, const char *system,
                       struct cr_error *err);
void cr_chat_deinit(struct cr_chat *chat);

/* Finds the literal default system text of a template of this kind. Returns owned, terminated, *n bytes in *text;
 * NULL when the template has none (CR_OK). */
cr_status cr_chat_default_system(enum cr_chat_kind kind, const char *template_text, size_t template_bytes, char **text,
                                 size_t *n, struct cr_error *err);

/* One turn, borrowed. role: system, user, assistant; chatml, llama3, phi3, phi4 and zephyr take any role. */
struct cr_chat_message {
    const char *role;
    size_t role_bytes;
    const char *text;
    size_t text_bytes;
};

/* A run of the rendered text. markup: special tokens are recognised in it. supervised: its tokens carry loss
 * (text of an assistant turn and the end marker behind it). */
struct cr_chat_span {
    const char *text; /* inside cr_chat_rendering.text */
    size_t n_bytes;
    bool markup;
    bool supervised;
};

/* The spans in order; they cover text without gaps. All zero is empty. */
struct cr_chat_rendering {
    char *text; /* owned, terminated: the whole conversation as one string */
    size_t n_bytes;
    struct cr_chat_span *spans; /* owned */
    size_t n_spans;
};

/* Renders n messages; generation_prompt appends the opening of an assistant turn. The bos token is not part of the
 * text: cr_chat_encode adds its id. *out is overwritten; free it with cr_chat_rendering_deinit. */
cr_status cr_chat_render(const struct cr_chat *chat, const struct cr_chat_message *messages, size_t n,
                         bool generation_prompt, struct cr_chat_rendering *out, struct cr_error *err);
void cr_chat_rendering_deinit(struct cr_chat_rendering *rendering);

/* Appends the ids of a rendering to ids and, one entry a token, 1 (carries loss) or 0 to loss (NULL: not wanted; else
 * it must be as long as ids). Special tokens are recognised in markup only. Neighbouring spans are tokenised as one
 * text, except where supervision starts or stops: there the model, at inference, also sees two texts. Puts bos in
 * front when the kind's template or the file asks for it and the text does not begin with it. Both lists keep their
 * old contents on failure. */
cr_status cr_chat_encode(const struct cr_chat *chat, const struct cr_tokenizer *tok,
                         const struct cr_chat_rendering *rendering, struct cr_ids *ids, struct cr_ids *loss,
                         size_t *n_dropped_bytes, struct cr_error *err);

#endif
