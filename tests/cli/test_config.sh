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

config '{"memory": "2.5G", "verbose": ["dispatch", "time"], "seed": 4294967295}'
expect kinds 0 '' "$credence" cpu --config config.json

config '{"thread": 1}'
expect unknown 2 'config.json: unknown key "thread" for cpu; nearest is threads' "$credence" cpu --config config.json
config '{"rank": 8}'
expect unknown 2 'unknown key "rank" for cpu' "$credence" cpu --config config.json
config '{"config": "config.json"}'
expect unknown 2 'unknown key "config"' "$credence" cpu --config config.json
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

# Numbers keep their point whatever the locale.
config '{"memory": 1500000.5}'
expect CL-16 0 '' env LC_ALL=de_DE.UTF-8 "$credence" cpu --config config.json --memory 1.5G --quiet
finish
