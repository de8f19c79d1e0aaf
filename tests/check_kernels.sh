#!/bin/sh
# The kernel library needs memory and string functions, a little of libm and nothing else, and keeps no state.
# usage: check_kernels.sh LIBRARY [CONFIG], of which Release has no assertions that end the program
set -u
allowed='memcpy|memset|memmove|memcmp|strcmp|strncmp|strlen|strnlen|strspn|strcspn|sqrt|sqrtf|fma|fmaf|rint|rintf|ldexp|ldexpf|lrintf'
allowed="$allowed|ceil|ceilf|floor|floorf|trunc|truncf|__stack_chk_fail|_GLOBAL_OFFSET_TABLE_"
# What kernels/cpu asks of the operating system.
allowed="$allowed|sysconf|syscall|getauxval"
[ "${2:-}" = Release ] || allowed="$allowed|__assert_fail"
status=0

defined=$(nm --defined-only "$1" 2>/dev/null | awk 'NF == 3 { print $3 }' | sort -u)
undefined=$(nm --undefined-only "$1" 2>/dev/null | awk '$1 == "U" { print $2 }' | sort -u)
[ -n "$defined" ] || { echo "no symbols in $1"; exit 1; }
for symbol in $undefined; do
    if ! printf '%s\n' "$defined" | grep -qx -- "$symbol" && ! printf '%s\n' "$symbol" | grep -qxE "$allowed"; then
        echo "kernels use $symbol"
        status=1
    fi
done

# Tables of pointers live in .data.rel.ro; anything in .data or .bss is a mutable global.
mutable=$(size -A "$1" | awk '/^\.(data|bss|tdata|tbss)(\.[a-z]|[[:space:]])/ && $1 !~ /rel\.ro/ && $2 > 0')
if [ -n "$mutable" ]; then
    echo "kernels keep mutable data:"
    size -A "$1" | awk '/:$/ { member = $1 } /^\.(data|bss|tdata|tbss)/ && $1 !~ /rel\.ro/ && $2 > 0 { print member, $0 }'
    status=1
fi

# Public symbols carry the prefix of the project.
foreign=$(nm --defined-only --extern-only "$1" 2>/dev/null | awk 'NF == 3 && $3 !~ /^cr_/ { print $3 }' | sort -u)
if [ -n "$foreign" ]; then
    echo "symbols without cr_: $foreign"
    status=1
fi
exit $status
