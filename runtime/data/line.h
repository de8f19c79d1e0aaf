/* line: one JSON object of a data file, told apart by its fields and checked.
 *
 *   question, choices, answer   choices: 2...26 texts; answer: 0-based index, or the letter of the choice;
 *                               absent or null: not known, which the caller may refuse
 *   prompt, completion          two texts
 *   messages                    [{role, content}...]
 *   text                        one text
 * Each may have a task, a name. Other fields are ignored. Errors: CR_E_INPUT naming the field, what was found and what
 * is expected (no file name, no line number: the caller puts them in front); CR_E_MEMORY.
 */
#ifndef CR_DATA_LINE_H
#define CR_DATA_LINE_H

#include <jansson.h>

#include "runtime/data/dataset.h"

/* Bytes of a JSON string, borrowed from the line's object. May hold zero bytes. */
struct cr_line_text {
    const char *bytes;
    size_t n;
};

/* Longest task name, so that reports can hold it in a fixed buffer. */
enum { CR_TASK_BYTES_MAX = 63 };

struct cr_line {
    json_t *object; /* owned: cr_line_deinit */
    enum cr_example_kind kind;
    struct cr_line_text question, prompt, completion, text; /* those of the kind */
    struct cr_line_text task;                               /* bytes NULL: none */
    const json_t *choices, *messages;                       /* checked: strings; objects with two strings */
    uint32_t n_choices, answer;
    bool answered; /* choices: there is an answer; else it is 0 */
};

cr_status cr_line_parse(const char *data, size_t n_bytes, struct cr_line *line, struct cr_error *err);
void cr_line_deinit(struct cr_line *line);

struct cr_line_text cr_line_choice(const struct cr_line *line, uint32_t i);
size_t cr_line_n_messages(const struct cr_line *line);
void cr_line_message(const struct cr_line *line, size_t i, struct cr_line_text *role, struct cr_line_text *content);

/* "choices", "prompt/completion", ...; static storage. */
const char *cr_example_kind_name(enum cr_example_kind kind);

#endif
