#!/bin/sh
# Builds an example in a project that takes the sources in as a folder (add_subdirectory), kernels alone, without
# optimisation of its own and in C++ where there is a compiler.
# usage: folder.sh BUILD_DIR SOURCE_DIR CMAKE GENERATOR CC [CXX]
set -eu
build=$1 source=$2 cmake=$3 generator=$4 cc=$5 cxx=${6:-$(command -v c++ || true)}
language=C
[ -z "$cxx" ] || language=CXX
work=$(mktemp -d "$build/folder.XXXXXX")
trap 'rm -rf "$work"' EXIT
{
    "$cmake" -S "$source/tests/consumer" -B "$work" -G "$generator" -DCMAKE_BUILD_TYPE=Debug -DCMAKE_C_COMPILER="$cc" \
        -DCMAKE_CXX_COMPILER="$cxx" -DCONSUMER_LANGUAGE=$language -DCREDENCE_FOLDER="$source" --no-warn-unused-cli &&
        "$cmake" --build "$work" --target q4_threads &&
        "$work/q4_threads"
} >"$work/log" 2>&1 || {
    cat "$work/log"
    exit 1
}
tail -n 1 "$work/log"
