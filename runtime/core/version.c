/* What the library was built from. pcre2.h wants a code unit width before it is read. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <jansson.h>
#include <pcre2.h>
#include <utf8proc.h>
#include <xxhash.h>

#include "credence/credence.h"

#define TEXT_OF(x) #x
#define TEXT(x) TEXT_OF(x)
#define DOTTED(major, minor) TEXT(major) "." TEXT(minor)

#if defined(__clang__)
#define COMPILER "clang " DOTTED(__clang_major__, __clang_minor__)
#elif defined(__GNUC__)
#define COMPILER "gcc " DOTTED(__GNUC__, __GNUC_MINOR__)
#else
#define COMPILER "unknown"
#endif

/* Releases of OpenMP are known by date: 201511 is 4.5. */
#if defined(_OPENMP)
#define OPENMP "OpenMP " TEXT(_OPENMP)
#else
#define OPENMP "no OpenMP"
#endif

const char *cr_version_text(void)
{
    return "credence " CREDENCE_VERSION "\n"
           "compiler: " COMPILER "\n"
           "libraries: jansson " JANSSON_VERSION ", PCRE2 " DOTTED(PCRE2_MAJOR, PCRE2_MINOR) ", utf8proc " DOTTED(
               UTF8PROC_VERSION_MAJOR, UTF8PROC_VERSION_MINOR) ", xxHash " DOTTED(XXH_VERSION_MAJOR,
                                                                                  XXH_VERSION_MINOR) ", " OPENMP;
}
