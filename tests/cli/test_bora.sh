#!/bin/sh
# Adapters by task from outside: training, prediction by the task of an example, exports, refusals.
. "$(dirname "$0")/lib.sh"
"$make_model" model m.gguf || exit 1
lines() { # FIRST TASK: eight questions of a task
    questions "$1" 8 'Is % even?' "$2"
}
{
    lines 0 ', "task": "a"'
    lines 8 ', "task": "b"'
} >d.jsonl
lines 16 ', "task": "c"' >c.jsonl
lines 24 '' >none.jsonl
lines 0 ', "task": "a"' >a.jsonl
cat d.jsonl c.jsonl none.jsonl >mixed.jsonl

tune() {
    "$credence" finetune -m m.gguf --steps 4 -t 2 "$@"
}
score() {
    command=$1
    data=$2
    shift 2
    "$credence" "$command" -m m.gguf -d "$data" -t 1 "$@"
}

expect train 0 'bora: 2 tasks of' tune -d d.jsonl -o run --method bora --tau 5
for file in adapter_config.json adapter.gguf posterior.safetensors tasks/a/adapter_model.safetensors summary.json; do
    check train [ -s "run/$file" ]
done
check settings grep -q '"tau": 5.0' run/summary.json
expect resume 0 'nothing to do' tune -d d.jsonl -o run --method bora --tau 5 --resume
# Held-out lines of all tasks are kept, however the tasks alternate.
lines 100 ', "task": "a"' >a40 && lines 108 ', "task": "a"' >>a40 && lines 116 ', "task": "a"' >>a40
lines 200 ', "task": "b"' >b40 && lines 208 ', "task": "b"' >>b40 && lines 216 ', "task": "b"' >>b40
paste -d '\n' a40 b40 >ab.jsonl
expect held 0 '5 to validate\|4 to validate' tune -d ab.jsonl -o held --method bora
for task in a b; do
    check held [ "$(grep -c "\"task\": \"$task\"" held/valid.jsonl)" -ge 2 ]
done
check held [ "$(wc -l <held/valid.jsonl)" -eq "$(sed -n 's/^ *"n_valid": \([0-9]*\).*/\1/p' held/summary.json)" ]
check held [ "$(sort held/valid.jsonl ab.jsonl | uniq -d | wc -l)" -eq "$(wc -l <held/valid.jsonl)" ]

expect default 0 'tau 10$' tune -d d.jsonl -o ten --method bora
expect apart 0 'no prior: tasks apart' tune -d d.jsonl -o apart --method bora --tau 0
expect joined 0 'each beside the common one' tune -d d.jsonl -o joined --method bora --bora-mode joined
expect joined 0 '16 of 32' score predict mixed.jsonl -a joined
mv out first
expect joined 0 '16 of 32' score predict mixed.jsonl -a joined/checkpoints/step-00000004.cck
check joined cmp -s first out
expect global 0 'one adapter for all' tune -d none.jsonl -o global --method bora --bora-mode global
expect info 0 '' "$credence" info run
check info grep -q '^ *bora, 2 tasks and their mean$' out

expect predict 0 'mixed.jsonl: 16 of 32 examples name no task that the adapter knows' score predict mixed.jsonl -a run
check predict [ "$(grep -c '"adapter":"global"' out)" -eq 16 ]
check predict [ "$(head -n 16 out | grep -c '"adapter"')" -eq 0 ]
mv out first
expect predict 0 '16 of 32' score predict mixed.jsonl -a run --batch-size 3
check predict cmp -s first out
expect eval 0 '16 of 32' score eval mixed.jsonl -a run --json j.json
check eval grep -q '^16 examples of unknown tasks' out
check eval grep -q '"global": 16' j.json
expect known 0 '1 set of weights' score predict d.jsonl -a run --strict-task
check known [ "$(grep -c '"adapter"' out)" -eq 0 ]
expect mean 0 '1 set of weights' score predict mixed.jsonl -a run --mean
check mean [ "$(grep -c '"adapter"' out)" -eq 0 ]

expect export 0 '' "$credence" export -a run --task a -o alone
check export cmp -s alone/adapter_model.safetensors run/tasks/a/adapter_model.safetensors
expect export 0 '' "$credence" export -a run --format gguf -o mean.gguf
check export cmp -s mean.gguf run/adapter.gguf
expect alone 0 'method bora-task' score predict a.jsonl -a alone
mv out first
expect alone 0 'method bora,' score predict a.jsonl -a run
check alone cmp -s first out

expect strict 3 'mixed.jsonl:17: task "c" is unknown' score predict mixed.jsonl -a run --strict-task
expect strict 3 'none.jsonl:1: task "" is unknown' score eval none.jsonl -a run --strict-task
expect samples 2 '--samples 2: run is one set' score eval d.jsonl -a run --samples 2
expect mixture 2 'has an adapter for each task' score eval d.jsonl -a run -a ten
expect mixture 0 '2 sets of weights' score eval d.jsonl -a run -a ten --mean
expect task 2 'has no task "z"' "$credence" export -a run --task z -o nothing
expect task 2 '--task excludes --mean' "$credence" export -a run --task a --mean -o nothing
expect task 2 'no adapters by task' "$credence" export -a alone --task a -o nothing
check task [ ! -e nothing ]
expect data 3 'no line names a task' tune -d none.jsonl -o nothing --method bora
expect data 3 'mixed.jsonl:25: names no task' tune -d mixed.jsonl -o nothing --method bora --no-valid
check data [ ! -e nothing ]
finish
