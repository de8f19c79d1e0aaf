#!/bin/sh
# Every flag of finetune reaches its setting: what it changes in the settings of summary.json, and nothing else there.
# Flags that are no settings of the result show by what they do. One that is left out fails the last check.
. "$(dirname "$0")/lib.sh"
"$make_model" model m.gguf || exit 1
export OMP_NUM_THREADS=1 # but where --threads says otherwise
questions 0 24 'Is % even?' ', "task": "t#"' >d.jsonl
questions 40 6 'Is % even?' ', "task": "t#"' >v.jsonl

# tune ID PATTERN FLAG...: a run into the directory ID that must succeed; its flags are noted.
tune() {
    id=$1 pattern=$2
    shift 2
    printf '%s\n' "$@" | grep '^--' >>used
    expect "$id" 0 "$pattern" "$credence" finetune --model m.gguf --data d.jsonl --output "$id" "$@"
}

# The settings of a run, one a line, lists as well; not the flags as they were given, nor what the machine decides.
settings() {
    sed '1,/^  "settings": {$/d; /^  }/,$d' "$1/summary.json" |
        sed '/^    "flags": {$/,/^    }/d; /^    "tier"/d' |
        sed ':more
/\[[^]]*$/ { N; s/\n *//; b more; }
s/^ *//; s/,$//'
}

# changes ID FROM TO LINES: the settings of TO that those of FROM have not, by name, are these and no others.
changes() {
    settings "$2" >from
    settings "$3" >to
    check "$1: settings" [ -s from ]
    diff from to | sed -n 's/^> //p' >changed
    same "$1" changed "$4"
}

# method NAME STEPS LINES FLAG...: runs of the method without and with its own flags, long enough to give no warning.
method() {
    name=$1 steps=$2 lines=$3
    shift 3
    tune "$name" '' --method "$name" --steps "$steps" --eval-every 8 --quiet
    tune "$name-changed" '' --method "$name" --steps "$steps" --eval-every 8 --quiet "$@"
    changes "$name" "$name" "$name-changed" "$lines"
}

# Values are sums of few powers of two, so that JSON shows them as they are.
tune plain '' --steps 8 --quiet
tune all '' --steps 8 --quiet --cpu scalar --rank 9 --alpha 5.5 --dropout 0.125 --targets k_proj,down_proj \
    --batch-size 3 --grad-accumulation-steps 2 --lr 0.03125 --lr-schedule cosine --warmup 0.25 --weight-decay 0.0625 \
    --max-grad-norm 0.75 --max-seq-length 100 --on-long skip --mask-prompt no --chat-template zephyr \
    --system 'Be brief.' --normalize nfc --valid v.jsonl --keep last --patience 5 --eval-every 4 --save-every 7 \
    --report-every 6 --seed 77 --trace t.json --threads 2
changes all plain all '"alpha": 5.5
"batch-size": 3
"chat-template": "zephyr"
"dropout": 0.125
"eval-every": 4
"grad-accumulation-steps": 2
"lr": 0.03125
"lr-schedule": "cosine"
"mask-prompt": "no"
"max-grad-norm": 0.75
"max-seq-length": 100
"normalize": "nfc"
"on-long": "skip"
"patience": 5
"rank": 9
"report-every": 6
"seed": 77
"system": "Be brief."
"targets": ["k_proj","down_proj"]
"validation": "file"
"warmup": 0.25
"weight-decay": 0.0625'
check cpu grep -q '"tier": "scalar"' all/summary.json
check threads grep -q '"threads": 2' all/summary.json
check save-every [ "$(cd all/checkpoints && echo *)" = 'step-00000007.cck step-00000008.cck' ]
check report-every [ "$(grep -c '"loss"' all/train.jsonl)" -eq 2 ] # steps 6 and 8
check eval-every [ "$(sed -n '/"evaluations"/,/]/p' all/summary.json | grep -c '"step"')" -eq 2 ]
check valid grep -q '"n_valid": 6' all/summary.json
check trace grep -q '"ph"' t.json

# The other words; an epoch is three steps of the 22 examples that are not held out.
tune other '' --epochs 1.5 --quiet --lr-schedule constant --keep best
changes other plain other '"keep": "best"
"lr-schedule": "constant"
"steps": 5'
printf '{"steps": 8, "quiet": true, "rank": 3, "alpha": 16}' >config.json
tune config '' --config config.json
changes config plain config '"rank": 3'
tune whole '' --steps 8 --quiet --no-valid --adapter plain
changes no-valid plain whole '"validation": "none"'
check adapter [ "$(grep -h '"start"' plain/summary.json whole/summary.json | sort -u | wc -l)" -eq 2 ]
tune plain 'nothing to do' --steps 8 --resume
tune plain 'settings differ: seed 0, now 5' --steps 8 --resume --seed 5 --allow-inexact
tune other '' --steps 8 --quiet --force --rank 3
changes force plain other '"alpha": 6.0
"rank": 3'

# Three steps of two layers are tried; the first is computed again.
for choice in 'no 6' 'yes 9'; do
    tune dry "attention .* ${choice#* } times" --dry-run --grad-checkpoint "${choice% *}" --verbose time
done
tune dry 'threads of the pool' --dry-run --threads-by pool --verbose dispatch
check dry [ ! -e dry ]
echo --memory >>used
expect memory 5 '[^0-9]3 MiB allowed' "$credence" finetune -m m.gguf -d d.jsonl -o dry --memory 3M

method ivon 8 '"clip-radius": 0.00390625
"ess": 400000.0
"hess-init": 0.001953125
"mc-samples": 3' --ess 4e5 --hess-init 0.001953125 --clip-radius 0.00390625 --mc-samples 3
method swag 32 '"head-lr": 0.0078125
"swag-every": 2
"swag-from": "best"
"swag-head": "trained"
"swag-lr": 0.00390625
"swag-rank": 3
"swag-schedule": "cosine"
"swag-start": 0.375' --swag-start 0.375 --swag-every 2 --swag-rank 3 --swag-lr 0.00390625 --swag-schedule cosine \
    --swag-head trained --swag-from best --head-lr 0.0078125
method blob 8 '"kl-lr": 0.03125
"prior-std": 0.375' --prior-std 0.375 --kl-lr 0.03125
method ensemble 8 '"init-gain": 2.0
"members": 3' --members 3 --init-gain 2
method bora 8 '"bora-mode": "joined"
"tau": 5.0' --tau 5 --bora-mode joined
method prefix 8 '"cosine-weight": 0.5
"head-lr": 0.0078125
"lambda-per": "step"
"prefix-length": 5
"valid-draws": 3
"vertices": 2' --vertices 2 --prefix-length 5 --valid-draws 3 --head-lr 0.0078125 --lambda-per step --cosine-weight 0.5

# A preset's own are left where flags say otherwise; its label rows have a rate.
tune preset '' --method ensemble --preset paper --steps 8 --eval-every 8 --quiet --members 4 --warmup 0 --lr 0.0009765625 \
    --lr-schedule linear --batch-size 8 --init-gain 1 --head-lr 0.0078125
changes preset ensemble preset '"head-lr": 0.0078125
"head-noise": 0.01
"lr": 0.0009765625
"preset": "paper"'

"$credence" finetune --help | sed -n 's/^ *\(-., \)*\(--[a-z-]*\)[ ,].*/\2/p' | sort -u >flags
printf '%s\n' --model --data --output --help --version >>used
sort -u used | diff flags - | sed -n 's/^< //p' >untested
check "without a test: $(tr '\n' ' ' <untested)" [ ! -s untested ]
check "flags of the help" grep -qx -- --mc-samples flags
finish
