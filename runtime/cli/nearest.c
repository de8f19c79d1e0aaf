#include "runtime/cli/nearest.h"

#include <string.h>

#include "runtime/cli/options.h"

enum { MAX_WORD = 40 };

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

size_t cr_cli_edits(const char *word, size_t n, const char *name)
{
    size_t m = strlen(name);
    if (n > MAX_WORD || m > MAX_WORD) {
        return (size_t)MAX_WORD;
    }
    size_t cost[MAX_WORD + 1][MAX_WORD + 1];
    for (size_t i = 0; i <= n; i++) {
        cost[i][0] = i;
    }
    for (size_t j = 0; j <= m; j++) {
        cost[0][j] = j;
    }
    for (size_t i = 1; i <= n; i++) {
        for (size_t j = 1; j <= m; j++) {
            size_t best = cost[i - 1][j - 1] + (word[i - 1] != name[j - 1]);
            best = smaller(best, smaller(cost[i - 1][j], cost[i][j - 1]) + 1);
            if (i > 1 && j > 1 && word[i - 1] == name[j - 2] && word[i - 2] == name[j - 1]) {
                best = smaller(best, cost[i - 2][j - 2] + 1);
            }
            cost[i][j] = best;
        }
    }
    return cost[n][m];
}

const char *cr_cli_nearest_option(const char *word, size_t n, unsigned commands)
{
    const char *nearest = NULL;
    size_t limit = n < 4 ? 1 : n < 8 ? 2 : 3;
    for (int id = 0; id < CR_CLI_N_OPTIONS; id++) {
        const struct cr_cli_option *option = &cr_cli_options[id];
        const char *names[2] = {option->name, option->alias};
        for (int i = 0; i < 2 && (option->commands & commands) != 0; i++) {
            if (names[i] == NULL) {
                continue;
            }
            /* The beginning of a longer name counts as near, but not as nearer than a plain slip. */
            size_t edits = cr_cli_edits(word, n, names[i]);
            if (edits > limit && n >= 3 && strncmp(word, names[i], n) == 0) {
                edits = limit;
            }
            if (edits <= limit && (nearest == NULL || edits < limit)) {
                nearest = names[i];
                limit = edits;
            }
        }
    }
    return nearest;
}
