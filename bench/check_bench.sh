#!/bin/sh
# check_bench.sh CREDENCE_BENCH SCRATCH_DIR: what scripts rely on: names, counters, exit statuses, the page.
set -eu
bench=$1 scratch=$(mktemp -d "$2/bench.XXXXXX")
trap 'rm -rf "$scratch"' EXIT

fail() {
    echo "check_bench: $*" >&2
    exit 1
}

# status EXPECTED ARGUMENT...
status() {
    expected=$1
    shift
    got=0
    "$bench" "$@" >"$scratch/out" 2>"$scratch/err" || got=$?
    [ "$got" -eq "$expected" ] || {
        cat "$scratch/err" >&2
        fail "exit status $got instead of $expected: $*"
    }
}

status 2 --no-such-flag
status 2 --threads -1
status 2 --threads
status 2 --cpu pdp11
status 1 --filter '^no such entry$' --smoke
status 0 --help

status 0 --list
bad=$(grep -vE '^[a-z]+/[a-z0-9_]+/[a-z0-9_]+/[A-Z][0-9]+(_[A-Z][0-9]+)*/[a-z0-9_]+$' "$scratch/out" || true)
[ -z "$bad" ] || fail "names that break the grammar: $bad"
[ "$(sort "$scratch/out" | uniq -d)" = '' ] || fail "a name stands for two entries"
total=$(wc -l <"$scratch/out")
status 0 --list --filter '/scalar$'
scalar=$(wc -l <"$scratch/out")
status 0 --list --cpu scalar
[ "$(wc -l <"$scratch/out")" -eq "$scalar" ] || fail "--cpu scalar and the names of the tier disagree"
[ "$scalar" -gt 0 ] && [ "$scalar" -le "$total" ] || fail "no scalar entries"

for filter in '^qgemm/fwd/q4_1/M48_N192_K576/scalar$' '^adamw/step/f32/D16384/scalar$'; do
    status 0 --filter "$filter" --min-time 0.001 --json "$scratch/a.json" --report "$scratch/a.html"
    grep -q '"flops"' "$scratch/a.json" && grep -q '"bytes_per_second"' "$scratch/a.json" || fail "$filter: no rates"
    grep -qE '"(peak|stream)_share"' "$scratch/a.json" || fail "$filter: no share"
    ! grep -oE '"[a-z_0-9]*(peak|onednn)[a-z_0-9]*":' "$scratch/a.json" | grep -vE '"(peak_share|onednn_ratio)":' ||
        fail "$filter: another counter has peak or onednn in its name"
    grep -q '<svg class="roofline"' "$scratch/a.html" || fail "$filter: no roofline"
    ! grep -qiE '<script|https?:|<link|@import|url\(' "$scratch/a.html" || fail "$filter: the page loads something"
done

status 0 --filter '^norm/rms_bwd/f32_f32/M48_K576/' --threads 2 --min-time 0.001
status 0 --filter '^cast/to/bf16/M48_K576/scalar$' --min-time 0.001 --json -
case $(head -c 1 "$scratch/out") in
'{') ;;
*) fail "--json - prints something before the JSON" ;;
esac
