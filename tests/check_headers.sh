#!/bin/sh
# Every public header compiles alone, as C11, as C17 and (where a compiler is at hand) as C++.
# usage: check_headers.sh SOURCE_DIR C_COMPILER
set -u
cd "$1" || exit 2
status=0
for header in include/credence/*.h include/credence/*/*.h; do
    for standard in c11 c17; do
        "$2" -std=$standard -Wall -Wextra -Wpedantic -Werror -Iinclude -fsyntax-only -x c "$header" || status=1
    done
    if command -v g++ >/dev/null; then
        g++ -std=c++17 -Wall -Wextra -Wpedantic -Werror -Iinclude -fsyntax-only -x c++ "$header" || status=1
    fi
done
exit $status
