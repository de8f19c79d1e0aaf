#!/bin/sh
# Settings of a run that are refused before any file is read: CL-04 ... CL-08, CL-11 ... CL-13.
. "$(dirname "$0")/lib.sh"
printf 'no model\n' >m.gguf
printf '{"text": "a"}\n' >d.jsonl

tune() { # tune ID CODE PATTERN FLAG...
    id=$1 code=$2 pattern=$3
    shift 3
    expect "$id" "$code" "$pattern" "$credence" finetune -m m.gguf -d d.jsonl -o run "$@"
    check "$id leaves nothing behind" [ ! -e run ]
}

for value in 0 -1 257 8.0 abc; do tune CL-04 2 '--rank: expected a whole number from 1 to 256' --rank "$value"; done
for flag in --lr --learning-rate; do
    for value in nan inf -1 0 1e400 1e-400 1e-4x 0x1p-3 '1 ' 1,5; do
        tune CL-05 2 '--lr: expected a number above 0' "$flag" "$value"
    done
done
tune CL-05 2 '--lr is given twice' --lr 1 --learning-rate 1
for value in 0 -1 9223372036854775808 1e7; do tune CL-06 2 '--epochs: expected' --epochs "$value"; done
for value in 0 -1 1.5 9223372036854775808; do tune CL-06 2 '--steps: expected' --steps "$value"; done
for flag in --batch-size --grad-accumulation-steps --save-every --report-every --eval-every; do
    tune CL-07 2 "$flag: expected a whole number from 1" "$flag" 0
    tune CL-07 2 "$flag: expected a whole number from 1" "$flag" -3
done
for flag in '--rank 8' '--alpha 16' '--targets all'; do
    tune shape 2 "--adapter and ${flag% *} exclude each other" -a d.jsonl $flag
done
tune CL-08 2 '--max-seq-length: expected' --max-seq-length 0
for value in 1 -0.1 2 x; do tune dropout 2 '--dropout: expected a number from 0 to below 1' --dropout "$value"; done
tune numbers 2 '--alpha: expected a number above 0' --alpha 0
tune numbers 2 '--weight-decay: expected a number of at least 0' --weight-decay -1
tune numbers 2 '--max-grad-norm: expected a number of at least 0' --max-grad-norm -1
tune numbers 2 '--warmup: expected' --warmup -1
tune words 2 '--keep: expected one of best|last' --keep first
tune words 2 '--lr-schedule: expected one of linear|cosine|constant' --lr-schedule step
tune words 2 '--on-long: expected one of cut|skip' --on-long drop
tune words 2 '--mask-prompt: expected one of yes|no' --mask-prompt true
tune words 2 '--method: expected one of adamw|ivon|swag|ensemble|blob|bora|prefix' --method adam
tune words 2 '--grad-checkpoint: expected one of auto|yes|no' --grad-checkpoint 1

for flag in --ess --hess-init --clip-radius; do
    tune ivon 2 "$flag belongs to --method ivon, not to adamw" $flag 1e-3
    for value in 0 -1 nan x; do tune ivon 2 "$flag: expected a number above 0" --method ivon $flag $value; done
done
tune swag 2 '--swag-rank belongs to --method swag, not to ivon' --method ivon --swag-rank 4
tune swag 2 '--swag-rank: expected a whole number from 2' --method swag --swag-rank 1
tune swag 2 '--swag-start: expected a number from 0 to below 1' --method swag --swag-start 1
tune swag 2 '--swag-head: expected one of trained|frozen' --method swag --swag-head yes
tune swag 2 '--swag-from: expected one of best|last' --method swag --swag-from first
tune swag 2 '--swag-schedule: expected one of linear|cosine' --method swag --swag-schedule constant
tune swag 2 '--swag-head belongs to --method swag, not to ivon' --method ivon --swag-head trained
tune ivon 2 '--mc-samples: expected a whole number from 1' --method ivon --mc-samples 0
tune ivon 2 '--preset: expected paper' --method ivon --preset best
tune ensemble 2 '--members belongs to --method ensemble, not to swag' --method swag --members 4
for value in 0 1025 x; do tune ensemble 2 '--members: expected a whole number from 1' --method ensemble --members $value; done
for value in 0 -1 nan; do tune ensemble 2 '--init-gain: expected a number above 0' --method ensemble --init-gain $value; done
for value in -1 nan x; do tune bora 2 '--tau: expected a number of at least 0' --method bora --tau $value; done
tune bora 2 '--tau belongs to --method bora, not to ensemble' --method ensemble --tau 1
tune ensemble 2 'start apart' --method ensemble -a d.jsonl
tune prefix 2 '--lambda-per: expected one of text-layer|text|layer|step' --method prefix --lambda-per batch
tune prefix 2 '--lambda-per belongs to --method prefix, not to swag' --method swag --lambda-per text
for value in -1 nan x; do tune prefix 2 '--cosine-weight: expected a number of at least 0' --method prefix --cosine-weight $value; done
tune prefix 2 'one vertex makes no angle' --method prefix --vertices 1 --cosine-weight 1

tune alpha 2 '--alpha 1e-300, expected a number that is not 0 as f32' --alpha 1e-300

tune conflict 2 '--epochs and --steps exclude each other' --epochs 1 --steps 3
tune conflict 2 '--valid and --no-valid exclude each other' --valid d.jsonl --no-valid
tune conflict 2 '--resume and --force exclude each other' --resume --force

finetune="$credence finetune -m m.gguf -d d.jsonl"
# shellcheck disable=SC2086
{
    expect missing 2 '--model FILE.gguf is missing' "$credence" finetune -d d.jsonl -o run
    expect missing 2 '--data FILE.jsonl is missing' "$credence" finetune -m m.gguf -o run
    expect missing 2 '--output PATH is missing' $finetune
    cp d.jsonl copy
    expect CL-11 2 '--output and --data are the same' $finetune -o ./d.jsonl
    expect CL-11 2 '--output and --model are the same' $finetune -o "$PWD/m.gguf"
    ln d.jsonl link
    expect CL-11 2 '--output and --data are the same' $finetune -o link
    expect CL-11 2 '--trace and --output are the same' $finetune -o run --trace run
    check CL-11 cmp -s d.jsonl copy
}
finish
