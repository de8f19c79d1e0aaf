#!/bin/sh
# method_cost.sh: what a training step of each method costs beside one of AdamW on the same data, and what draws cost.
#
#   method_cost.sh MODEL.gguf TRAIN.jsonl [METHOD ... eval]     default: all; needs GNU time
#
# TRAIN.jsonl: texts, or questions with choices, whose common first words are computed once by the methods that see them
# alike; for bora they get eight tasks in turn. Environment: BUILD [build/release beside this folder]; ROUNDS [3]; BATCH
# [8] texts a step; STEPS timed [16].
#
# One thread and its processor time, which neighbours stretch least: that of a run of 8 + STEPS steps less that of 8,
# over STEPS. Each round goes through all methods; shown are the median time and the median of the rounds' ratios.
# ensemble: eight members, the time of one. swag: a snapshot in every other of the last half of the steps, far more than
# in use. eval: ten draws of a short IVON run against one, over 64 texts beyond the first 16, as many in a pass as fit
# and one by one.
set -eu

if [ $# -lt 2 ]; then
    sed -n '2,/^set/s/^# \{0,1\}//p' "$0" | sed '$d' >&2
    exit 2
fi
here=$(cd "$(dirname "$0")" && pwd)
program=${BUILD:-$here/../build/release}/credence
model=$1 train=$2 rounds=${ROUNDS:-3} batch=${BATCH:-8} steps=${STEPS:-16}
shift 2
[ $# -gt 0 ] || set -- adamw ivon swag bora prefix blob ensemble eval
case " $* " in
*' adamw '*) ;;
*) set -- adamw "$@" ;; # what the others are compared with
esac
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT TERM
awk '{ sub(/^{("task": *"[^"]*", *)?/, "{\"task\": \"t" NR % 8 "\", "); print }' "$train" >"$scratch/tasks.jsonl"
head -n 16 "$train" >"$scratch/16.jsonl"
head -n 80 "$train" >"$scratch/80.jsonl"

# seconds COMMAND...: of the processor.
seconds() {
    { /usr/bin/env time -f '%U' -o "$scratch/time" "$@" >/dev/null 2>"$scratch/messages"; } || {
        cat "$scratch/messages" >&2
        exit 1
    }
    tail -n 1 "$scratch/time"
}

# finetune METHOD STEPS: into $scratch/METHOD.
finetune() {
    method=$1 n_steps=$2 data=$train
    set -- --targets q_proj,v_proj --rank 8
    case $method in
    bora) data=$scratch/tasks.jsonl ;;
    ensemble) set -- "$@" --members 8 ;;
    prefix) set -- ;;
    swag) set -- "$@" --swag-every 2 --swag-start 0.5 ;;
    esac
    seconds "$program" finetune -m "$model" -d "$data" -o "$scratch/$method" --force --no-valid --keep last --quiet \
        -t 1 --method "$method" --batch-size "$batch" --steps "$n_steps" "$@"
}

# step METHOD: one line for each round's file.
step() {
    before=$(finetune "$1" 8)
    after=$(finetune "$1" $((8 + steps)))
    awk -v a="$before" -v b="$after" -v n="$steps" -v of="$1" 'BEGIN { print (b - a) / n / (of == "ensemble" ? 8 : 1) }'
}

# look DRAWS FLAG...: of 64 texts.
look() {
    draws=$1
    shift
    set -- -m "$model" -a "$scratch/ivon" -t 1 --quiet --samples "$draws" "$@"
    few=$(seconds "$program" eval -d "$scratch/16.jsonl" "$@")
    many=$(seconds "$program" eval -d "$scratch/80.jsonl" "$@")
    awk -v few="$few" -v many="$many" 'BEGIN { print many - few }'
}

median() {
    sort -g "$1" | awk '{ v[NR] = $1 } END { print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'
}

round=0
while [ $round -lt "$rounds" ]; do
    for what in "$@"; do
        if [ "$what" = eval ]; then
            [ -d "$scratch/ivon" ] || finetune ivon 8 >/dev/null
            for draws in 1 10; do
                look $draws >>"$scratch/packed-$draws.times"
                look $draws --batch-size 1 >>"$scratch/single-$draws.times"
            done
        else
            step "$what" >>"$scratch/$what.times"
        fi
    done
    round=$((round + 1))
done
for what in "$@"; do
    if [ "$what" != eval ]; then
        paste "$scratch/$what.times" "$scratch/adamw.times" | awk '{ print $1 / $2 }' >"$scratch/ratios"
        printf '%-10s %7.3f s a step  %6.3f of adamw\n' "$what" "$(median "$scratch/$what.times")" "$(median "$scratch/ratios")"
        continue
    fi
    for kind in packed single; do
        awk -v kind=$kind -v one="$(median "$scratch/$kind-1.times")" -v ten="$(median "$scratch/$kind-10.times")" 'BEGIN {
            printf "eval, texts %s: %.1f ms a text, ten draws %.2f of one\n", kind, 1000 * one / 64, ten / one }'
    done
done
