#!/bin/sh
# Dependencies point one way: include <- kernels <- runtime <- cli, and by the table below inside runtime.
# usage: check_includes.sh SOURCE_DIR
set -u
cd "$1" || exit 2

# Folders of the project that a file of folder $1 may include from. A folder may always include from itself.
allowed() {
    case $1 in
        include) echo "include kernels/public" ;;
        kernels/common | kernels/cpu) echo "include kernels/common kernels/cpu kernels/public" ;;
        kernels/*) echo "include kernels/common kernels/cpu kernels/public" ;;
        runtime/core) echo "include" ;;
        runtime/thread) echo "include runtime/core" ;;
        runtime/io) echo "include runtime/core kernels/common kernels/public" ;;
        runtime/tokenizer) echo "include runtime/core runtime/io" ;;
        runtime/data) echo "include runtime/core runtime/io runtime/tokenizer kernels/common kernels/public" ;;
        runtime/model) echo "include runtime/core runtime/thread runtime/io kernels/common kernels/public" ;;
        runtime/adapter) echo "$(allowed runtime/model) runtime/model" ;;
        runtime/posterior) echo "$(allowed runtime/model) runtime/model runtime/adapter runtime/metrics" ;;
        runtime/optim) echo "$(allowed runtime/posterior) runtime/posterior" ;;
        runtime/report) echo "include runtime/core" ;;
        runtime/metrics) echo "include kernels/public runtime/core runtime/io" ;;
        runtime/review) echo "include runtime/core runtime/thread runtime/io runtime/data runtime/metrics runtime/report" ;;
        runtime/eval)
            echo "$(allowed runtime/optim) runtime/optim runtime/tokenizer runtime/data $(allowed runtime/review) runtime/review"
            ;;
        runtime/info) echo "$(allowed runtime/posterior) runtime/posterior runtime/tokenizer" ;;
        runtime/train) echo "$(allowed runtime/eval) runtime/eval" ;;
        runtime/cli) echo "include" ;;
        *) echo "unknown" ;;
    esac
}

# Every quoted include as "folder/of/file file line target".
grep -rn --include='*.c' --include='*.h' '^[[:space:]]*#[[:space:]]*include[[:space:]]*"' include kernels runtime |
    sed 's/^\([^:]*\):\([0-9]*\):[^"]*"\([^"]*\)".*/\1 \2 \3/' >"${TMPDIR:-/tmp}/includes.$$"
status=0
while read -r file line target; do
    folder=${file%/*}
    case $folder in include/*) folder=include ;; esac
    case $target in
        credence/kernels/*) from=kernels/public path=include/$target ;;
        credence/*) from=include path=include/$target ;;
        *) from=${target%/*} path=$target ;;
    esac
    if [ ! -f "$path" ]; then
        echo "$file:$line: \"$target\": not a path from the root of the repository"
        status=1
        continue
    fi
    [ "$from" = "$folder" ] && continue
    # What a kernel family shares with others beside its contract: random numbers in lanes, the adapter descriptor.
    case $target in
        kernels/rng/*_lanes.h | kernels/lowrank/lora.h) from=kernels/public ;;
    esac
    case " $(allowed "$folder") " in
        *" $from "*) ;;
        *)
            echo "$file:$line: $folder may not include \"$target\""
            status=1
            ;;
    esac
done <"${TMPDIR:-/tmp}/includes.$$"
rm -f "${TMPDIR:-/tmp}/includes.$$"

# Kernels are pure computation: no heap, files, stdio, threads. Only kernels/cpu asks the operating system.
forbidden='stdio|stdlib|malloc|pthread|threads|omp|unistd|fcntl|signal|errno|time|locale|sys/[a-z_]*'
if grep -rnE --include='*.c' --include='*.h' "#[[:space:]]*include[[:space:]]*<($forbidden)\.h>" kernels |
    grep -v '^kernels/cpu/'; then
    echo "kernels/ is pure computation; the headers above do not belong there"
    status=1
fi
# The program is a user of the library like any other.
if grep -rnE --include='*.c' --include='*.h' 'extern[[:space:]]+(cr_status|struct|void|int)' runtime/cli; then
    echo "runtime/cli declares functions of its own accord"
    status=1
fi
exit $status
