# What the tests of the program share. Each test is started as: sh test_x.sh PROGRAM BUILD_DIR MAKE_MODEL
set -u
credence=$1
make_model=${3:-}
unset CREDENCE_CPU OMP_NUM_THREADS NO_COLOR
work=$(mktemp -d "${TMPDIR:-/tmp}/credence-test.XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
cd "$work" || exit 1
n_failed=0
n_checks=0

failed() {
    n_failed=$((n_failed + 1))
    printf 'FAILED %s\n' "$*"
}

# expect ID CODE PATTERN COMMAND...: exit code, and the one line on standard error (PATTERN empty: no line at all).
expect() {
    id=$1 code=$2 pattern=$3
    shift 3
    n_checks=$((n_checks + 1))
    "$@" >out 2>err </dev/null
    got=$?
    if [ "$got" -ne "$code" ]; then
        failed "$id: exit $got, expected $code: $*"
        cat err
    elif [ -z "$pattern" ]; then
        [ ! -s err ] || { failed "$id: unexpected on standard error: $*"; cat err; }
    elif [ "$code" -ne 0 ] && [ "$(wc -l <err)" -ne 1 ]; then
        failed "$id: expected one line on standard error: $*"
        cat err
    elif ! grep -q -- "$pattern" err; then
        failed "$id: no \"$pattern\" on standard error: $*"
        cat err
    elif LC_ALL=C grep -q '[[:cntrl:]]' err; then
        failed "$id: a control byte on standard error: $*"
    fi
}

# check ID CONDITION...: a command that must succeed.
check() {
    id=$1
    shift
    n_checks=$((n_checks + 1))
    "$@" || failed "$id: $*"
}

# same ID FILE TEXT: the file holds exactly the text and a final line feed.
same() {
    n_checks=$((n_checks + 1))
    printf '%s\n' "$3" >wanted
    cmp -s "$2" wanted || { failed "$1: $2 differs"; diff "$2" wanted; }
}

# questions FIRST N TEXT [FIELDS]: N lines with two choices about the numbers from FIRST on, which stand for each % of
# TEXT; even ones are answered yes. FIELDS follow, with their # replaced by the number's remainder by 2.
questions() {
    awk -v first="$1" -v n="$2" -v text="$3" -v fields="${4:-}" 'BEGIN {
        for (i = first; i < first + n; i++) {
            question = text
            more = fields
            gsub(/%/, i, question)
            gsub(/#/, i % 2, more)
            printf "{\"question\": \"%s\", \"choices\": [\"no\", \"yes\"], \"answer\": %d%s}\n",
                question, (i + 1) % 2, more
        }
    }'
}

finish() {
    printf '%d checks, %d failed\n' "$n_checks" "$n_failed"
    [ "$n_failed" -eq 0 ] && [ "$n_checks" -gt 0 ]
    exit
}
