#!/bin/sh
# A run from outside: outputs, refusals that need a model, signals, lost files. CL-04, CL-12, CL-13, SG-*, EN-*.
. "$(dirname "$0")/lib.sh"
"$make_model" model m.gguf || exit 1
questions 0 24 'Is % even?' >d.jsonl
flags="-m m.gguf -d d.jsonl -t 1 --no-valid"

# shellcheck disable=SC2086 # flags are words
tune() {
    "$credence" finetune $flags "$@"
}

# wait_for PATTERN FILE: until the program has written the line, at most 60 s. An older FILE is removed beforehand: its
# line would let a signal reach the shell's own child before it has become the program.
wait_for() {
    tries=0
    until grep -q -- "$1" "$2" 2>/dev/null; do
        tries=$((tries + 1))
        [ $tries -lt 600 ] || { failed "no \"$1\" in $2"; cat "$2"; return 1; }
        sleep 0.1
    done
}

# exits ID CODE SECONDS PID: how a process in the background ends.
exits() {
    n_checks=$((n_checks + 1))
    (sleep "$3"; kill -KILL "$4" 2>/dev/null) &
    watch=$!
    wait "$4"
    got=$?
    kill "$watch" 2>/dev/null
    [ "$got" -eq "$2" ] || failed "$1: exit $got, expected $2"
}

sums() {
    find "$1" -type f | LC_ALL=C sort | xargs cksum
}

expect run 0 'train 3/3 ' tune -o run --steps 3 --report-every 3
check run grep -q '^adapter: run$' out
for file in adapter_config.json adapter_model.safetensors adapter.gguf train.jsonl summary.json; do
    check run [ -s "run/$file" ]
done
expect info 0 '' "$credence" info run
check info grep -q '^adapter    supported$' out
check info grep -q '^run        finished$' out
expect info 0 '' "$credence" info run/adapter.gguf
check info grep -q '^kind       adapter$' out
expect info 0 '' "$credence" info run/checkpoints/step-00000003.cck
check info grep -q '^step       3$' out
expect info 0 '' "$credence" info m.gguf
check info grep -q '^model      supported$' out
expect quiet 0 '' tune -o quiet --steps 1 --quiet
expect dry 0 '' tune -o dry --dry-run --quiet
expect threads-by 0 'threads of the pool' tune -o dry --dry-run --threads-by pool --verbose dispatch
check dry [ ! -e dry ]

check held [ ! -e run/valid.jsonl ]
expect held 0 '' "$credence" finetune -m m.gguf -d d.jsonl -t 1 -o held --steps 1 --seed 3 --quiet
check held [ "$(wc -l <held/valid.jsonl)" -eq 2 ] # a tenth of 24
check held [ "$(sort held/valid.jsonl d.jsonl | uniq -d | wc -l)" -eq 2 ]
check held grep -q '"n_valid": 2' held/summary.json
expect held 0 '' "$credence" eval -m m.gguf -d d.jsonl -a held --calibrate held/valid.jsonl --quiet
cp held/valid.jsonl ours.jsonl
expect held 0 '' "$credence" finetune -m m.gguf -d d.jsonl -t 1 -o held --steps 1 --valid held/valid.jsonl --force --quiet
check held cmp -s held/valid.jsonl ours.jsonl
expect held 0 '' "$credence" finetune -m m.gguf -d d.jsonl -t 1 -o held --steps 1 --valid ours.jsonl --force --quiet
check held [ ! -e held/valid.jsonl ]

expect CL-04 2 'rank' tune -o never --steps 1 --rank 200
sums run >before
expect CL-12 2 'run' tune -o run --steps 3
expect CL-12 0 'nothing to do' tune -o run --steps 3 --report-every 3 --resume
expect resume 8 'steps 3, now 5' tune -o run --steps 5 --report-every 3 --resume
sums run >after
check "CL-12 untouched" cmp -s before after
# --force loses nothing before a first checkpoint is there: 16 blocks of 512 or 1,024 bytes do not hold it.
expect R7 4 'step-00000000.cck' sh -c "ulimit -f 16; '$credence' finetune $flags -o run --steps 2 --force --quiet"
sums run >after
check "R7 untouched" cmp -s before after
expect CL-12 0 'train 2/2' tune -o run --steps 2 --report-every 1 --force
expect CL-13 4 'absent' tune -o absent/run --steps 1
expect CL-13 4 'd.jsonl\|m.gguf\|file' tune -o before --steps 1
if command -v flock >/dev/null; then
    expect EN-19 8 'run' flock run/.lock "$credence" finetune -m m.gguf -d d.jsonl -o run --force
fi
expect model 4 'absent.gguf' "$credence" finetune -m absent.gguf -d d.jsonl -o never
expect model 3 'd.jsonl' "$credence" finetune -m d.jsonl -d d.jsonl -o never
check "refused before anything is written" [ ! -e never ]
expect memory 5 '[^0-9]1 MiB allowed' tune -o never --steps 1 --memory 1M

rm -f log
# shellcheck disable=SC2086
"$credence" finetune $flags -o stopped --steps 100000 --report-every 1 2>log &
wait_for 'train 2/' log && kill -TERM $!
exits SG-03 7 60 $!
check SG-03 grep -q '^credence: stopped at step ' log
expect SG-03 0 '' "$credence" info stopped
check SG-03 grep -q 'not finished' out
check SG-03 grep -q '^checkpoints ' out

rm -f log
# shellcheck disable=SC2086
"$credence" finetune $flags -o forced --steps 100000 --report-every 1 2>log &
wait_for 'train 2/' log && kill -HUP $! && kill -TERM $!
wait $!
code=$?
check "SG-02: $code is 128 + a signal" [ $code -ge 129 ]

# The reader of the log goes away: training goes on (SG-07); its results are lost only with standard output.
mkfifo pipe
(exec 3<pipe; read -r line <&3) &
expect SG-07 0 '' sh -c "'$credence' finetune $flags -o orphan --steps 30 --report-every 1 2>pipe"
check SG-07 [ -s orphan/summary.json ]
if [ -w /dev/full ]; then
    expect CL-18 4 'standard output' sh -c "'$credence' finetune $flags -o full --steps 1 --quiet >/dev/full"
fi

cp m.gguf cut.gguf
rm -f log
"$credence" finetune -m cut.gguf -d d.jsonl -t 1 --no-valid -o cut --steps 100000 --report-every 1 2>log &
wait_for 'train 2/' log && : >cut.gguf
exits EN-09 4 60 $!
check EN-09 grep -q '^credence: .*file changed while in use' log

# 16 blocks of 512 or 1,024 bytes: the checkpoint does not fit. The signal of the limit is ignored by the program.
expect EN-03 4 'limited' sh -c "ulimit -f 16; '$credence' finetune $flags -o limited --steps 1 --quiet"

if command -v script >/dev/null && script -qec true /dev/null >/dev/null 2>&1; then
    TERM=xterm script -qec "'$credence' finetune $flags -o tty --steps 400 --report-every 50" /dev/null >out </dev/null
    check "one line, rewritten" sh -c 'tr "\r" "\n" <out | grep -c "^train [0-9]*/400" | grep -qv "^[01]$"'
    check "no line a report" sh -c '! grep -q "^train 50/400.*MiB$" out'
fi
finish
