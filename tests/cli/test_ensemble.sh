#!/bin/sh
# An ensemble from outside: training, all members and the first ones, exports, refusals.
. "$(dirname "$0")/lib.sh"
"$make_model" model m.gguf || exit 1
questions 0 20 'Is % even or is it odd?' >d.jsonl

tune() {
    "$credence" finetune -m m.gguf -d d.jsonl --steps 4 -t 2 "$@"
}
score() {
    command=$1
    shift
    "$credence" "$command" -m m.gguf -d d.jsonl -t 1 "$@"
}

expect train 0 'ensemble: 3 members' tune -o run --method ensemble --members 3
for file in posterior.safetensors members/00/adapter_config.json members/02/adapter_model.safetensors summary.json; do
    check train [ -s "run/$file" ]
done
check train [ ! -e run/adapter_config.json ]
check train [ ! -e run/members/03 ]
check settings grep -q '"init-gain": 1.0' run/summary.json
expect resume 0 'nothing to do' tune -o run --method ensemble --members 3 --resume
expect resume 8 'members 3, now 2' tune -o run --method ensemble --members 2 --resume
expect dry 0 'memory' tune -o dry --method ensemble --members 2 --dry-run
check dry [ ! -e dry ]

expect info 0 '' "$credence" info run
check info grep -q '^ *ensemble, 3 members of ' out

expect all 0 '3 sets of weights' score eval -a run --json j.json
check all grep -q '"pair_disagreement"' j.json
check all grep -q '"method": "ensemble"' j.json
expect two 0 '2 sets of weights' score predict -a run --samples 2
check two [ "$(grep -c '"members":2' out)" -eq 20 ]
mv out first
expect two 0 '2 sets of weights' score predict -a run --samples 2 --batch-size 3
check two cmp -s first out
expect mixture 0 '2 sets of weights' score predict -a run/members/00 -a run/members/01
check mixture cmp -s first out

expect paper 0 'label rows of their own' tune -o paper --method ensemble --preset paper --members 2 --warmup 1
check paper grep -q '"head": "own"' paper/summary.json
expect paper 0 '2 sets of weights' score eval -a paper
expect paper 0 'label rows of its own, which are not here' score eval -a paper/members/01
expect paper 2 '--model expected, or --drop-head' "$credence" export -a paper --member 1 -o none
expect paper 2 'its embedding, which must stay' "$credence" export -m m.gguf -a paper --member 1 -o none
expect paper 2 'a GGUF adapter has no place' "$credence" export -m m.gguf -a paper --member 1 --format gguf -o none
expect drop 0 'held-out NLL of all members together [0-9.]* with them, [0-9.]* without' \
    "$credence" export -a paper --member 1 --drop-head -o dropped
check drop cmp -s dropped/adapter_model.safetensors paper/members/01/adapter_model.safetensors
expect drop 0 'label rows of its own, which are not here' score eval -a dropped
expect drop 0 'without its label rows' "$credence" export -a paper --member 0 --drop-head --format gguf -o dropped.gguf
check drop [ -s dropped.gguf ]
"$make_model" model-untied m2.gguf || exit 1
expect head 0 'label rows of their own' "$credence" finetune -m m2.gguf -d d.jsonl --steps 4 -t 2 -o untied \
    --method ensemble --preset paper --members 2 --warmup 1
expect head 0 '' "$credence" export -m m2.gguf -a untied --member 1 -o with-head
step=untied/checkpoints/step-00000004.cck
expect head 2 'does not say which tokens' "$credence" export -m m2.gguf -a $step --member 1 -o none
expect head 0 'what that costs was not measured' "$credence" export -m m2.gguf -a $step --member 1 --drop-head -o half
expect head 2 'run has no label rows of its own' "$credence" export -a run --member 1 --drop-head -o none
check head grep -q '"lm_head": 2' with-head/adapter_config.json
expect head 3 '"lm_head": only q_proj' "$credence" eval -m m2.gguf -a with-head -d d.jsonl

# Another run by force leaves nothing of the one before.
expect forced 0 'ivon: ess' tune -o changed --method ivon
expect forced 0 '3 members' tune -o changed --method ensemble --members 3 --force
check forced [ ! -e changed/adapter.gguf ]
check forced [ ! -e changed/adapter_config.json ]
expect forced 0 '3 sets of weights' score eval -a changed
mkdir changed/members/mine && touch changed/members/mine/notes
expect forced 0 '' tune -o changed --force --quiet
check forced [ ! -e changed/posterior.safetensors ]
check forced [ ! -e changed/members/00 ]
check forced [ -e changed/members/mine/notes ] # not ours to remove
expect forced 0 '1 set of weights' score eval -a changed
expect rate 2 '--head-lr 0.1: the members share the label rows' tune -o none --method ensemble --head-lr 0.1
expect rate 2 '--head-lr belongs to --method prefix|ensemble|swag, not to adamw' tune -o none --head-lr 0.1

expect many 2 '--samples 4: the ensemble run has 3 members' score eval -a run --samples 4
expect zero 2 '--samples: expected a whole number from 1' score eval -a run --samples 0
expect mean 2 '--mean: run is an ensemble' score eval -a run --mean
expect scale 2 '--posterior-temperature: run is an ensemble' score eval -a run --posterior-temperature 2

expect export 0 '' "$credence" export -a run --member 1 -o second
check export cmp -s second/adapter_model.safetensors run/members/01/adapter_model.safetensors
expect export 0 '' "$credence" export -a run --member 2 --format gguf -o third.gguf
check export [ -s third.gguf ]
expect export 2 '--member K, 0 to 2, expected' "$credence" export -a run -o none
expect export 2 '--member K, 0 to 2, expected' "$credence" export -a run --member 3 -o none
expect export 2 '--member excludes --mean' "$credence" export -a run --member 0 --mean -o none
expect export 2 'second is no ensemble' "$credence" export -a second --member 0 -o none
check export [ ! -e none ]
finish
