/* The kinds of conversation as a table. Only for chat*.c. */
#ifndef CR_TOKENIZER_CHAT_STYLE_H
#define CR_TOKENIZER_CHAT_STYLE_H

#include "runtime/tokenizer/chat.h"

/* Where the text of a system turn goes. */
enum cr_chat_system {
    CR_CHAT_SYSTEM_TURN, /* a turn of its own */
    CR_CHAT_SYSTEM_USER  /* in front of the text of the next user turn */
};

/* A user, assistant or system turn reads: open, [role, after_role,] text, end, after_end. The assistant's open is also
 * the generation prompt; its lead belongs to the supervised part, because the model itself produces it. */
struct cr_chat_turn {
    const char *open;
    const char *end;
    const char *after_end;
};

struct cr_chat_style {
    const char *name;
    const char *start;      /* once, in front of everything; NULL: nothing */
    const char *after_role; /* not NULL: turns carry their role, and all have the marks of `assistant` */
    const char *assistant_role;
    const char *lead;
    struct cr_chat_turn user;
    struct cr_chat_turn assistant;
    struct cr_chat_turn system; /* for CR_CHAT_SYSTEM_USER what stands around it */
    enum cr_chat_system system_place;
    bool trim;     /* white space around texts goes */
    bool bos;      /* the published template begins with the bos token */
    bool any_role; /* besides system, user and assistant */
};

const struct cr_chat_style *cr_chat_style(enum cr_chat_kind kind); /* NULL for CR_CHAT_NONE */

#endif
