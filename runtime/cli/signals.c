#include "runtime/cli/signals.h"

#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include "credence/status.h"

static volatile sig_atomic_t requested;

static void on_stop(int number)
{
    if (requested != 0) {
        _exit(128 + number);
    }
    requested = 1;
}

/* Everything below on_bus runs in a signal handler: system calls and plain memory only. */

static uintptr_t parse_hex(const char **p)
{
    uintptr_t value = 0;
    for (;; (*p)++) {
        char c = **p;
        unsigned digit = c >= '0' && c <= '9' ? (unsigned)(c - '0') : (unsigned)(c - 'a') + 10;
        if (digit > 15) {
            return value;
        }
        value = value << 4 | digit;
    }
}

/* The path of a line of /proc/self/maps that covers `address`, NULL when it does not or maps no file. */
static const char *path_of_line(const char *line, uintptr_t address)
{
    uintptr_t begin = parse_hex(&line);
    if (*line++ != '-') {
        return NULL;
    }
    uintptr_t end = parse_hex(&line);
    return address >= begin && address < end ? strchr(line, '/') : NULL;
}

static void print_mapped_file(uintptr_t address)
{
    static char line[4352];
    size_t n = 0;
    char chunk[512];
    int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    for (ssize_t got; fd >= 0 && (got = read(fd, chunk, sizeof chunk)) > 0;) {
        for (ssize_t i = 0; i < got; i++) {
            if (chunk[i] != '\n') {
                line[n] = chunk[i];
                n += n < sizeof line - 1;
                continue;
            }
            line[n] = '\0';
            n = 0;
            const char *path = path_of_line(line, address);
            if (path != NULL) {
                (void)!write(STDERR_FILENO, path, strlen(path));
                (void)!write(STDERR_FILENO, ": ", 2);
                return;
            }
        }
    }
}

static void on_bus(int number, siginfo_t *info, void *context)
{
    (void)context;
    if (info->si_code != BUS_ADRERR) { /* not a page beyond the end of a file: a fault of the program itself */
        signal(number, SIG_DFL);
        raise(number);
        return;
    }
    static const char head[] = "credence: ";
    static const char tail[] = "file changed while in use (a mapped page is gone)\n";
    (void)!write(STDERR_FILENO, head, sizeof head - 1);
    print_mapped_file((uintptr_t)info->si_addr);
    (void)!write(STDERR_FILENO, tail, sizeof tail - 1);
    _exit(-CR_E_IO);
}

void cr_cli_signals_init(void)
{
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = on_bus;
    action.sa_flags = SA_SIGINFO;
    sigaction(SIGBUS, &action, NULL);
}

void cr_cli_signals_catch(void)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        struct sigaction action;
        if (sigaction(numbers[i], NULL, &action) == 0 && action.sa_handler != SIG_IGN) {
            memset(&action, 0, sizeof action);
            action.sa_handler = on_stop; /* no SA_RESTART: a read from a terminal or pipe returns and can stop */
            sigaction(numbers[i], &action, NULL);
        }
    }
}

bool cr_cli_signals_pending(void)
{
    return requested != 0;
}
