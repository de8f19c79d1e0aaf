#!/bin/sh
# A shared library exports what its list says, and the two lists are what the public headers declare.
# usage: check_symbols.sh SOURCE_DIR LIBRARY LIST [LIBRARY LIST]...
# After a change of the interface: nm -D --defined-only LIBRARY | awk '{ print $3 }' | LC_ALL=C sort >LIST
set -u
export LC_ALL=C
cd "$1" || exit 2
shift
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT
status=0
while [ $# -ge 2 ]; do
    nm -D --defined-only "$1" | awk '{ print $3 }' | sort >"$work/exported"
    [ -s "$work/exported" ] || { echo "$1 exports nothing"; exit 1; }
    if ! diff "$2" "$work/exported" >"$work/diff"; then
        echo "$1 does not export what $2 lists (< listed, > exported):"
        cat "$work/diff"
        status=1
    fi
    cat "$2" >>"$work/listed"
    shift 2
done
sort -o "$work/listed" "$work/listed"
grep -h '^CR_API ' include/credence/*.h include/credence/kernels/*.h | sed 's/.*[ *]\(cr_[a-z0-9_]*\)(.*/\1/' | sort >"$work/declared"
if ! diff "$work/declared" "$work/listed" >"$work/diff"; then
    echo "the public headers declare other functions than the lists (< declared, > listed):"
    cat "$work/diff"
    status=1
fi
exit $status
