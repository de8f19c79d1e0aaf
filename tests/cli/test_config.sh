#!/bin/sh
# Configuration files: keys are flags, the command line wins (CL-15), and what is refused.
. "$(dirname "$0")/lib.sh"

config() {
    printf '%s' "$1" >config.json
}

config '{"threads": 1, "cpu": "scalar", "quiet": false}'
expect config 0 '' "$credence" cpu --config config.json
check config grep -q '^threads    1$' out
check config grep -q 'in use: scalar (capped' out

expect CL-15 0 '--cpu avx2 on the command line wins over scalar' "$credence" cpu --config config.json --cpu avx2
check CL-15 grep -q 'in use: avx2 (capped' out
expect CL-15 0 '' "$credence" cpu --config config.json --cpu avx2 --quiet
expect CL-15 0 '' "$credence" cpu --config config.json --cpu scalar

config '{"verbose": ["dispatch", "time"], "seed": 4294967295}'
expect kinds 0 '' "$credence" cpu --config config.json
config '{"verbose": ["dispatch", "speed"]}'
expect kinds 2 'comma list of dispatch|time' "$credence" cpu --config config.json
for value in '[1, 2]' '[1, 1]'; do
    config "{\"threads\": $value}"
    expect list 2 '"threads": one value expected, got a list' "$credence" cpu --config config.json
done
config '{"quiet": [false, true]}'
expect list 2 '"quiet": one value expected, got a list' "$credence" cpu --config config.json

config '{"thread": 1}'
expect unknown 2 'config.json: unknown key "thread" for cpu; nearest is threads' "$credence" cpu --config config.json
config '{"rank": 8}'
expect unknown 2 'unknown key "rank" for cpu' "$credence" cpu --config config.json
config '{"config": "config.json"}'
expect unknown 2 'unknown key "config" for cpu$' "$credence" cpu --config config.json
config '{"a\u001b[31m": 1}'
expect unknown 2 'unknown key "a.x1b' "$credence" cpu --config config.json
for value in 0 1.5 '"4x"' '""' '[]' true; do
    config "{\"threads\": $value}"
    expect value 2 'config.json: cpu: --threads: expected a whole number' "$credence" cpu --config config.json
done
config '{"quiet": "maybe"}'
expect value 2 '"quiet": expected true or false' "$credence" cpu --config config.json
for value in null '{}' '[[1]]' '"a\u0000b"'; do
    config "{\"cpu\": $value}"
    expect value 3 'config.json: key "cpu"' "$credence" cpu --config config.json
done

config '{"threads": 1, "threads": 2}'
expect twice 3 'config.json' "$credence" cpu --config config.json
config '[1]'
expect form 3 'expected a JSON object' "$credence" cpu --config config.json
config '{"threads": 1'
expect form 3 'config.json' "$credence" cpu --config config.json
config ''
expect form 3 'config.json' "$credence" cpu --config config.json
expect missing 4 'absent.json' "$credence" cpu --config absent.json
expect missing 4 'is a directory' "$credence" cpu --config .

"$make_model" model m.gguf || exit 1
questions 0 24 'Is % even?' >d.jsonl

# A flag that repeats is a list in the file; what eval recorded is such a file.
for seed in 1 2; do
    expect train 0 'train 2/2' "$credence" finetune -m m.gguf -d d.jsonl -t 1 --steps 2 --seed $seed -o run$seed
done
config '{"adapter": ["run1", "run2"], "model": "m.gguf", "data": "d.jsonl", "threads": 1}'
expect repeats 0 '2 sets of weights' "$credence" eval --config config.json --json j.json
sed -n '/^  "settings": {/,/^  }/p' j.json | sed '1s/.*/{/; $s/.*/}/' >recorded.json
check repeats grep -q '"run2"' recorded.json
mv j.json first.json
expect repeats 0 '2 sets of weights' "$credence" eval --config recorded.json --json j.json
sed '/seconds\|tok_s/d' first.json >wanted
sed '/seconds\|tok_s/d' j.json >found
check repeats cmp -s wanted found
expect repeats 0 '--adapter run1 on the command line wins over run2' "$credence" eval --config config.json -a run1
expect repeats 2 '"adapter": one value expected, got a list' "$credence" finetune --config config.json -o none
config '{"adapter": ["run1", ""], "model": "m.gguf", "data": "d.jsonl"}'
expect repeats 2 '--adapter: expected' "$credence" eval --config config.json

# What a flag on the command line excludes is left aside in the file, and said; within the file it is refused.
base='"model": "m.gguf", "data": "d.jsonl", "threads": 1'
config "{$base, \"epochs\": 9}"
expect wins 0 '--steps on the command line: --epochs of the configuration file is left aside' \
    "$credence" finetune --config config.json -o wins --steps 1
check wins grep -q 'train 1/1' err
config "{$base, \"steps\": 1, \"method\": \"ivon\", \"ess\": 10, \"valid\": \"d.jsonl\"}"
expect wins 0 '--method on the command line: --ess of the configuration file is left aside' \
    "$credence" finetune --config config.json -o wins2 --method adamw --no-valid
check wins grep -q -- '--no-valid on the command line: --valid of' err
config "{$base, \"mean\": true}"
expect wins 0 '--samples on the command line: --mean of the configuration file is left aside' \
    "$credence" eval --config config.json -a wins --samples 1
config "{$base, \"steps\": 1, \"chat-template\": \"nope\"}"
expect template 2 'chat template "nope" unknown (have chatml' "$credence" finetune --config config.json -o none
config "{$base, \"steps\": 1, \"epochs\": 1}"
expect wins 2 '--epochs and --steps exclude each other' "$credence" finetune --config config.json -o none

config '{"targets": ["q_proj", "up_proj"], "model": "m.gguf", "data": "d.jsonl", "steps": 1}'
expect joined 0 'train 1/1' "$credence" finetune --config config.json -o joined
check joined sh -c 'tr -d " \n" <joined/summary.json | grep -q "\"targets\":\"q_proj,up_proj\""'
finish
