#define _GNU_SOURCE /* memmem: linear in the template */
#include "runtime/tokenizer/chat.h"

#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/core/error.h"
#include "runtime/tokenizer/chat_style.h"
#include "runtime/tokenizer/vocab.h"

/* Phrases of the published templates. */
static const struct cr_chat_style styles[CR_CHAT_N_KINDS] = {
    [CR_CHAT_CHATML] = {.name = "chatml",
                        .after_role = "\n",
                        .assistant_role = "assistant",
                        .assistant = {"<|im_start|>", "<|im_end|>", "\n"},
                        .any_role = true},
    [CR_CHAT_LLAMA3] = {.name = "llama3",
                        .after_role = "<|end_header_id|>\n\n",
                        .assistant_role = "assistant",
                        .assistant = {"<|start_header_id|>", "<|eot_id|>", ""},
                        .trim = true,
                        .bos = true,
                        .any_role = true},
    [CR_CHAT_GEMMA] = {.name = "gemma",
                       .after_role = "\n",
                       .assistant_role = "model",
                       .assistant = {"<start_of_turn>", "<end_of_turn>", "\n"},
                       .system = {"", "\n\n", ""},
                       .system_place = CR_CHAT_SYSTEM_USER,
                       .trim = true,
                       .bos = true},
    [CR_CHAT_PHI3] = {.name = "phi3",
                      .after_role = "|>\n",
                      .assistant_role = "assistant",
                      .assistant = {"<|", "<|end|>", "\n"},
                      .any_role = true},
    [CR_CHAT_ZEPHYR] = {.name = "zephyr",
                        .after_role = "|>\n",
                        .assistant_role = "assistant",
                        .assistant = {"<|", "<|endoftext|>", "\n"},
                        .any_role = true},
    [CR_CHAT_PHI4] = {.name = "phi4",
                      .after_role = "<|im_sep|>",
                      .assistant_role = "assistant",
                      .assistant = {"<|im_start|>", "<|im_end|>", ""},
                      .any_role = true},
    [CR_CHAT_LLAMA2] = {.name = "llama2",
                        .user = {"[INST] ", " [/INST]", ""},
                        .assistant = {"", "</s>", ""},
                        .system = {"<<SYS>>\n", "\n<</SYS>>\n\n", ""},
                        .system_place = CR_CHAT_SYSTEM_USER,
                        .bos = true},
    [CR_CHAT_MISTRAL_V3] = {.name = "mistral-v3",
                            .lead = " ",
                            .user = {"[INST] ", "[/INST]", ""},
                            .assistant = {"", "</s>", ""},
                            .system = {"", "\n\n", ""},
                            .system_place = CR_CHAT_SYSTEM_USER,
                            .bos = true},
    [CR_CHAT_MISTRAL_V7] = {.name = "mistral-v7",
                            .lead = " ",
                            .user = {"[INST] ", "[/INST]", ""},
                            .assistant = {"", "</s>", ""},
                            .system = {"[SYSTEM_PROMPT] ", "[/SYSTEM_PROMPT]", ""},
                            .bos = true},
    [CR_CHAT_VICUNA] = {.name = "vicuna",
                        .lead = " ",
                        .user = {"USER: ", "", "\n"},
                        .assistant = {"ASSISTANT:", "</s>", "\n"},
                        .system = {"", "", "\n\n"}},
    [CR_CHAT_SMOLVLM] = {.name = "smolvlm",
                         .start = "<|im_start|>",
                         .lead = " ",
                         .user = {"User: ", "<end_of_utterance>", "\n"},
                         .assistant = {"Assistant:", "<end_of_utterance>", "\n"},
                         .system = {"", "", "\n\n"}},
    [CR_CHAT_MISTRAL_V1] = {.name = "mistral-v1",
                            .lead = " ",
                            .user = {" [INST] ", " [/INST]", ""},
                            .assistant = {"", "</s>", ""},
                            .system = {"", "\n\n", ""},
                            .system_place = CR_CHAT_SYSTEM_USER,
                            .bos = true},
    [CR_CHAT_MISTRAL_V3_TEKKEN] = {.name = "mistral-v3-tekken",
                                   .user = {"[INST]", "[/INST]", ""},
                                   .assistant = {"", "</s>", ""},
                                   .system = {"", "\n\n", ""},
                                   .system_place = CR_CHAT_SYSTEM_USER,
                                   .bos = true},
    [CR_CHAT_MISTRAL_V7_TEKKEN] = {.name = "mistral-v7-tekken",
                                   .user = {"[INST]", "[/INST]", ""},
                                   .assistant = {"", "</s>", ""},
                                   .system = {"[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", ""},
                                   .bos = true},
};

const struct cr_chat_style *cr_chat_style(enum cr_chat_kind kind)
{
    return kind > CR_CHAT_NONE && kind < CR_CHAT_N_KINDS ? &styles[kind] : NULL;
}

enum cr_chat_kind cr_chat_detect(const char *text, size_t n)
{
#define HAS(phrase) (memmem(text, n, phrase, sizeof(phrase) - 1) != NULL)
    if (n == 0) {
        return CR_CHAT_NONE;
    }
    if (HAS("<|im_start|>")) {
        return HAS("<|im_sep|>") ? CR_CHAT_PHI4 : HAS("<end_of_utterance>") ? CR_CHAT_SMOLVLM : CR_CHAT_CHATML;
    }
    if (HAS("[INST]")) {
        if (HAS("[SYSTEM_PROMPT]")) {
            return HAS("'[SYSTEM_PROMPT]'") || HAS("\"[SYSTEM_PROMPT]\"") ? CR_CHAT_MISTRAL_V7_TEKKEN
                                                                          : CR_CHAT_MISTRAL_V7;
        }
        if (!HAS("' [INST] ' + system_message") && !HAS("[AVAILABLE_TOOLS]")) {
            return CR_CHAT_LLAMA2;
        }
        return HAS(" [INST]") ? CR_CHAT_MISTRAL_V1 : HAS("\"[INST]\"") ? CR_CHAT_MISTRAL_V3_TEKKEN : CR_CHAT_MISTRAL_V3;
    }
    if (HAS("<|assistant|>") && HAS("<|end|>")) {
        return CR_CHAT_PHI3;
    }
    if (HAS("<|user|>") && HAS("<|endoftext|>")) {
        return CR_CHAT_ZEPHYR;
    }
    if (HAS("<start_of_turn>")) {
        return CR_CHAT_GEMMA;
    }
    if (HAS("USER: ") && HAS("ASSISTANT: ")) {
        return CR_CHAT_VICUNA;
    }
    return HAS("<|start_header_id|>") && HAS("<|end_header_id|>") ? CR_CHAT_LLAMA3 : CR_CHAT_NONE;
#undef HAS
}

enum cr_chat_kind cr_chat_by_name(const char *name)
{
    for (int kind = CR_CHAT_NONE + 1; kind < CR_CHAT_N_KINDS; kind++) {
        if (strcmp(styles[kind].name, name) == 0) {
            return (enum cr_chat_kind)kind;
        }
    }
    return CR_CHAT_NONE;
}

const char *cr_chat_name(enum cr_chat_kind kind)
{
    const struct cr_chat_style *style = cr_chat_style(kind);
    return style == NULL ? "none" : style->name;
}

const char *cr_chat_names(void)
{
    return "chatml, llama3, gemma, phi3, zephyr, phi4, llama2, mistral-v3, mistral-v7, vicuna, smolvlm, "
           "mistral-v1, mistral-v3-tekken, mistral-v7-tekken";
}

static cr_status choose_kind(const char *label, const char *name, const char *text, size_t n, enum cr_chat_kind *kind,
                             struct cr_error *err)
{
    if (name != NULL) {
        *kind = cr_chat_by_name(name);
        if (*kind == CR_CHAT_NONE) {
            char shown[CR_ESCAPE_BYTES];
            return cr_fail(err, CR_E_INPUT, "chat template \"%.300s\" unknown (have %s)",
                           cr_escape(shown, sizeof shown, name, strlen(name)), cr_chat_names());
        }
        return CR_OK;
    }
    *kind = text == NULL ? CR_CHAT_NONE : cr_chat_detect(text, n);
    if (*kind == CR_CHAT_NONE) {
        return cr_fail(err, CR_E_INPUT, "%s: tokenizer.chat_template: %s; name one of %s", label,
                       text == NULL ? "absent" : "of no known kind", cr_chat_names());
    }
    return CR_OK;
}

cr_status cr_chat_init(struct cr_chat *chat, const struct cr_tokenizer *tok, const char *name, const char *system,
                       struct cr_error *err)
{
    struct cr_chat made = {CR_CHAT_NONE, NULL, 0};
    size_t n = 0;
    const char *text = cr_tokenizer_chat_template(tok, &n);
    CR_TRY(choose_kind(cr_gguf_label(tok->gguf), name, text, n, &made.kind, err));
    if (system != NULL && system[0] != '\0') {
        made.default_system_bytes = strlen(system);
        made.default_system = cr_strndup(system, made.default_system_bytes);
        if (made.default_system == NULL) {
            return cr_fail(err, CR_E_MEMORY, "no memory for a system text of %zu bytes", made.default_system_bytes);
        }
    } else if (system == NULL && text != NULL && cr_chat_detect(text, n) == made.kind) {
        CR_TRY(cr_chat_default_system(made.kind, text, n, &made.default_system, &made.default_system_bytes, err));
    }
    *chat = made;
    return CR_OK;
}

void cr_chat_deinit(struct cr_chat *chat)
{
    if (chat != NULL) {
        cr_free(chat->default_system);
        memset(chat, 0, sizeof *chat);
    }
}
