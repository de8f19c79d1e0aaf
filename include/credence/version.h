/* The version of both libraries. The build reads the three numbers from here; nothing repeats them. */
#ifndef CREDENCE_VERSION_H
#define CREDENCE_VERSION_H

/* While the major number is 0, a new minor number may change the binary interface: the soname holds both. */
#define CREDENCE_VERSION_MAJOR 0
#define CREDENCE_VERSION_MINOR 1
#define CREDENCE_VERSION_PATCH 0

#define CREDENCE_TEXT_OF(x) #x
#define CREDENCE_DOTTED(a, b, c) CREDENCE_TEXT_OF(a) "." CREDENCE_TEXT_OF(b) "." CREDENCE_TEXT_OF(c)
#define CREDENCE_VERSION CREDENCE_DOTTED(CREDENCE_VERSION_MAJOR, CREDENCE_VERSION_MINOR, CREDENCE_VERSION_PATCH)

#endif
