#!/bin/sh
# Installs a build into a staging folder, moves it elsewhere and builds the examples against it: through CMake and
# through pkg-config, as C11 and as C++17, with the shared and with the static libraries. Every program must run well.
# usage: run.sh BUILD_DIR SOURCE_DIR CMAKE GENERATOR CC [CXX]
set -eu
build=$1 source=$2 cmake=$3 generator=$4 cc=$5 cxx=${6:-$(command -v c++ || true)}
here=$source/tests/consumer
work=$(mktemp -d "$build/consumer.XXXXXX")
trap 'rm -rf "$work"' EXIT
examples=$(cd "$here" && for file in *.c; do echo "${file%.c}"; done)
strict="-O1 -Wall -Wextra -Wpedantic -Werror -D_POSIX_C_SOURCE=200809L"

die()
{
    echo "$*"
    exit 1
}

# quietly COMMAND...: its output only when it fails.
quietly()
{
    "$@" >"$work/log" 2>&1 || {
        cat "$work/log"
        die "failed: $*"
    }
}

# runs NAME FORM PROGRAM: it succeeds, and depends on the shared library exactly when it should.
runs()
{
    quietly "$3"
    needed=$(readelf -d "$3" | grep -c 'NEEDED.*libcredence' || true)
    case $2 in
        shared) [ "$needed" -gt 0 ] || die "$1: does not need the shared library" ;;
        static) [ "$needed" -eq 0 ] || die "$1: needs a shared library" ;;
    esac
    echo "$1: good"
}

quietly "$cmake" --install "$build" --prefix "$work/staged"
mkdir "$work/elsewhere"
mv "$work/staged" "$work/elsewhere/credence"
prefix=$work/elsewhere/credence
quietly "$prefix/bin/credence" --version
if grep -rlE "$source|staged" "$prefix" --include='*.cmake' --include='*.pc' --include='*.h' --include='*.1'; then
    die "the files above name a folder of the build"
fi

languages=C
[ -z "$cxx" ] || languages="C CXX"
for language in $languages; do
    for form in shared static; do
        static=OFF
        [ $form = shared ] || static=ON
        folder=$work/cmake-$language-$form
        quietly "$cmake" -S "$here" -B "$folder" -G "$generator" -DCONSUMER_LANGUAGE=$language \
            -DCMAKE_C_COMPILER="$cc" -DCMAKE_CXX_COMPILER="$cxx" -DCMAKE_PREFIX_PATH="$prefix" \
            -DCREDENCE_USE_STATIC_LIBS=$static --no-warn-unused-cli
        quietly "$cmake" --build "$folder"
        for example in $examples; do
            runs "cmake $language $form $example" $form "$folder/$example"
        done
    done
done

PKG_CONFIG_PATH=$(dirname "$(find "$prefix" -name credence.pc)")
LD_LIBRARY_PATH=$(dirname "$PKG_CONFIG_PATH")${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export PKG_CONFIG_PATH LD_LIBRARY_PATH
for language in $languages; do
    case $language in
        C) compile="$cc -std=c11 -x c" ;;
        CXX) compile="$cxx -std=c++17 -x c++" ;;
    esac
    for form in shared static; do
        for example in $examples; do
            case $example in
                library) package=credence ;;
                *) package=credence-kernels ;;
            esac
            cflags=$(pkg-config --cflags $package)
            if [ $form = shared ]; then
                libs=$(pkg-config --libs $package)
            else # the archives of ours, whatever the dependencies come as
                libs=$(pkg-config --static --libs $package | sed 's/-l\(credence[a-z_]*\)/-l:lib\1.a/g')
            fi
            program=$work/pkg-config-$language-$form-$example
            # shellcheck disable=SC2086
            quietly $compile $strict $cflags "$here/$example.c" -x none -o "$program" $libs -pthread -lm
            runs "pkg-config $language $form $example" $form "$program"
        done
    done
done
