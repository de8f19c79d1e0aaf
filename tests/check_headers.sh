#!/bin/sh
# Every public header compiles alone, as C11, as C17 and (where a compiler is at hand) as C++; kernels.h has all families.
# usage: check_headers.sh SOURCE_DIR C_COMPILER
set -u
cd "$1" || exit 2
status=0
for header in include/credence/*.h include/credence/*/*.h; do
    for standard in c11 c17; do
        echo "int cr_alone;" |
            "$2" -std=$standard -Wall -Wextra -Wpedantic -Wundef -Werror -Iinclude -fsyntax-only -include "$header" -x c - ||
            status=1
    done
    if command -v g++ >/dev/null; then
        echo "int cr_alone;" |
            g++ -std=c++17 -Wall -Wextra -Wpedantic -Wundef -Werror -Iinclude -fsyntax-only -include "$header" -x c++ - ||
            status=1
    fi
done
for header in include/credence/kernels/*.h; do
    grep -qx "#include \"${header#include/}\"" include/credence/kernels.h || { echo "kernels.h lacks $header"; status=1; }
done
exit $status
