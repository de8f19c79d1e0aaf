#include <string.h>

#include "runtime/core/alloc.h"
#include "runtime/core/error.h"
#include "runtime/tokenizer/chat.h"
#include "runtime/tokenizer/chat_style.h"

/* Text and spans under construction; spans get their pointers when the text no longer moves. The first failure is
 * remembered and later pieces are ignored, so that rendering reads as a list of pieces. */
struct builder {
    struct cr_chat_rendering made;
    size_t text_capacity;
    size_t span_capacity;
    bool failed;
};

/* Room for n bytes, their terminator and a span. */
static bool reserve(struct builder *b, size_t n)
{
    char *text = cr_grow(b->made.text, b->made.n_bytes, n + 1, &b->text_capacity, 1);
    if (text == NULL) {
        return false;
    }
    b->made.text = text;
    struct cr_chat_span *spans = cr_grow(b->made.spans, b->made.n_spans, 1, &b->span_capacity, sizeof *spans);
    if (spans == NULL) {
        return false;
    }
    b->made.spans = spans;
    return true;
}

/* Appends n bytes; joins the last span when it is of the same kind. */
static void add(struct builder *b, const char *text, size_t n, bool markup, bool supervised)
{
    if (b->failed || !reserve(b, n)) {
        b->failed = true;
        return;
    }
    if (n == 0) {
        return;
    }
    memcpy(b->made.text + b->made.n_bytes, text, n);
    b->made.n_bytes += n;
    struct cr_chat_span *last = b->made.n_spans == 0 ? NULL : &b->made.spans[b->made.n_spans - 1];
    if (last != NULL && last->markup == markup && last->supervised == supervised) {
        last->n_bytes += n;
    } else {
        b->made.spans[b->made.n_spans++] = (struct cr_chat_span){NULL, n, markup, supervised};
    }
}

static void mark(struct builder *b, const char *text, bool supervised)
{
    if (text != NULL) {
        add(b, text, strlen(text), true, supervised);
    }
}

static bool is_role(const struct cr_chat_message *message, const char *role)
{
    return strlen(role) == message->role_bytes && memcmp(role, message->role, message->role_bytes) == 0;
}

static bool is_blank(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* The text of a turn, not markup. */
static void add_text(struct builder *b, const struct cr_chat_style *style, const struct cr_chat_message *message,
                     bool supervised)
{
    const char *text = message->text;
    size_t n = message->text_bytes;
    while (style->trim && n > 0 && is_blank(text[n - 1])) {
        n--;
    }
    while (style->trim && n > 0 && is_blank(text[0])) {
        text++;
        n--;
    }
    add(b, text, n, false, supervised);
}

/* Roles that templates write as they are; a role becomes part of the markup, so nothing else may. */
static const char *const written_roles[] = {"tool", "developer", "function", "ipython"};

static bool is_written_role(const struct cr_chat_message *message)
{
    for (size_t i = 0; i < sizeof written_roles / sizeof written_roles[0]; i++) {
        if (is_role(message, written_roles[i])) {
            return true;
        }
    }
    return false;
}

static cr_status check_role(enum cr_chat_kind kind, const struct cr_chat_message *message, size_t index,
                            struct cr_error *err)
{
    const bool common = is_role(message, "system") || is_role(message, "user") || is_role(message, "assistant");
    const bool any = cr_chat_style(kind)->any_role;
    if (common || (any && is_written_role(message))) {
        return CR_OK;
    }
    char shown[CR_ESCAPE_BYTES];
    return cr_fail(err, CR_E_INPUT, "messages[%zu]: role \"%.300s\", expected %s (chat template %s)", index,
                   cr_escape(shown, sizeof shown, message->role, message->role_bytes),
                   any ? "system, user, assistant, tool, developer, function or ipython" : "system, user or assistant",
                   cr_chat_name(kind));
}

static void add_system_prefix(struct builder *b, const struct cr_chat_style *style,
                              const struct cr_chat_message **pending)
{
    if (*pending != NULL) {
        mark(b, style->system.open, false);
        add(b, (*pending)->text, (*pending)->text_bytes, false, false);
        mark(b, style->system.end, false);
        *pending = NULL;
    }
}

/* A turn headed by its role. */
static void add_headed_turn(struct builder *b, const struct cr_chat_style *style, const struct cr_chat_message *message,
                            const struct cr_chat_message **pending)
{
    const bool assistant = is_role(message, "assistant");
    mark(b, style->assistant.open, false);
    add(b, assistant ? style->assistant_role : message->role,
        assistant ? strlen(style->assistant_role) : message->role_bytes, true, false);
    mark(b, style->after_role, false);
    if (!assistant) {
        add_system_prefix(b, style, pending);
    }
    add_text(b, style, message, assistant);
    mark(b, style->assistant.end, assistant);
    mark(b, style->assistant.after_end, false);
}

/* A turn whose marks tell the role. */
static void add_marked_turn(struct builder *b, const struct cr_chat_style *style, const struct cr_chat_message *message,
                            const struct cr_chat_message **pending)
{
    const bool assistant = is_role(message, "assistant");
    const struct cr_chat_turn *turn = assistant                  ? &style->assistant
                                      : is_role(message, "user") ? &style->user
                                                                 : &style->system;
    mark(b, turn->open, false);
    if (assistant) {
        mark(b, style->lead, true);
    } else {
        add_system_prefix(b, style, pending);
    }
    add_text(b, style, message, assistant);
    mark(b, turn->end, assistant);
    mark(b, turn->after_end, false);
}

static cr_status add_turns(struct builder *b, enum cr_chat_kind kind, const struct cr_chat_message *messages, size_t n,
                           const struct cr_chat_message *pending, struct cr_error *err)
{
    const struct cr_chat_style *style = cr_chat_style(kind);
    for (size_t i = 0; i < n; i++) {
        CR_TRY(check_role(kind, &messages[i], i, err));
        const bool system = is_role(&messages[i], "system");
        if (pending != NULL && !is_role(&messages[i], "user")) {
            return cr_fail(err, CR_E_INPUT,
                           "messages[%zu]: a system turn needs a user turn behind it (chat template %s)", i,
                           style->name);
        }
        if (system && style->system_place == CR_CHAT_SYSTEM_USER) {
            pending = &messages[i];
        } else if (style->after_role != NULL) {
            add_headed_turn(b, style, &messages[i], &pending);
        } else {
            add_marked_turn(b, style, &messages[i], &pending);
        }
    }
    return pending == NULL
               ? CR_OK
               : cr_fail(err, CR_E_INPUT, "messages: a system turn needs a user turn behind it (chat template %s)",
                         style->name);
}

static cr_status add_default_system(struct builder *b, const struct cr_chat *chat,
                                    const struct cr_chat_message *messages, const struct cr_chat_message *system,
                                    const struct cr_chat_message **pending, struct cr_error *err)
{
    if (chat->default_system == NULL || is_role(&messages[0], "system")) {
        return CR_OK;
    }
    if (cr_chat_style(chat->kind)->system_place == CR_CHAT_SYSTEM_USER) {
        *pending = system;
        return CR_OK;
    }
    return add_turns(b, chat->kind, system, 1, NULL, err);
}

cr_status cr_chat_render(const struct cr_chat *chat, const struct cr_chat_message *messages, size_t n,
                         bool generation_prompt, struct cr_chat_rendering *out, struct cr_error *err)
{
    const struct cr_chat_style *style = cr_chat_style(chat->kind);
    if (style == NULL) {
        return cr_fail(err, CR_E_USAGE, "no kind of chat template given");
    }
    if (n == 0) {
        return cr_fail(err, CR_E_INPUT, "messages: empty, expected at least one turn");
    }
    const struct cr_chat_message system = {"system", 6, chat->default_system, chat->default_system_bytes};
    const struct cr_chat_message *pending = NULL;
    struct builder b = {0};
    cr_status status = CR_OK;
    mark(&b, style->start, false);
    CR_TRY_OUT(status, add_default_system(&b, chat, messages, &system, &pending, err));
    CR_TRY_OUT(status, add_turns(&b, chat->kind, messages, n, pending, err));
    if (generation_prompt) {
        mark(&b, style->assistant.open, false);
        mark(&b, style->assistant_role, false);
        mark(&b, style->after_role, false);
    }
    if (b.failed || !reserve(&b, 0)) {
        status = cr_fail(err, CR_E_MEMORY, "no memory to render a conversation of %zu turns", n);
        goto out;
    }
    b.made.text[b.made.n_bytes] = '\0';
    const char *text = b.made.text;
    for (size_t i = 0; i < b.made.n_spans; i++) {
        b.made.spans[i].text = text;
        text += b.made.spans[i].n_bytes;
    }
    *out = b.made;
    memset(&b.made, 0, sizeof b.made);
out:
    cr_chat_rendering_deinit(&b.made);
    return status;
}

void cr_chat_rendering_deinit(struct cr_chat_rendering *rendering)
{
    if (rendering != NULL) {
        cr_free(rendering->text);
        cr_free(rendering->spans);
        memset(rendering, 0, sizeof *rendering);
    }
}
