#!/bin/sh
# Flags of data, eval, predict, laplace, export and compare that no file records resolved: what each one does.
. "$(dirname "$0")/lib.sh"
"$make_model" model m.gguf || exit 1
export OMP_NUM_THREADS=1
questions 0 24 'Is % even?' ', "task": "t#"' >d.jsonl
printf '%s\n' '{"messages": [{"role": "user", "content": "What is e\u0301 here?"}, {"role": "assistant", "content": "One letter in nfc."}]}' \
    '{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes."}]}' >c.jsonl

# counts ID TOKENS TARGETS EXAMPLES WARNING FLAG...: of the conversations, by data, eval and predict alike. A text is its
# bytes, and a marker of the template is one token where the vocabulary has it, else its bytes as well.
counts() {
    what=$1 tokens=$2 targets=$3 examples=$4 warning=$5
    shift 5
    expect "$what" 0 '' "$credence" data -m m.gguf -d c.jsonl "$@"
    check "$what: data" grep -q "^c.jsonl: $examples examples*, $tokens tokens, $targets targets$" out
    expect "$what" 0 "$warning" "$credence" eval -m m.gguf -d c.jsonl --quiet "$@"
    check "$what: eval" grep -q "^all  *$targets " out
    check "$what: eval" grep -q "^method base, $tokens tokens " out
    expect "$what" 0 "$warning" "$credence" predict -m m.gguf -d c.jsonl --quiet "$@"
    check "$what: predict" [ "$(awk -F'"n_targets":' '{ n += $2 } END { print n }' out)" -eq "$targets" ]
}
chat='--chat-template chatml'
# shellcheck disable=SC2086 # words
{
    counts plain 83 24 2 '' $chat
    counts mask-prompt 83 81 2 '' $chat --mask-prompt no # all but the first token of each
    counts system 115 24 2 '' $chat --system Short.      # twice two markers, "system", "Short." and two line feeds
    counts chat-template 95 24 2 '' --chat-template zephyr
    counts normalize 82 24 2 '' $chat --normalize nfc
    counts max-seq-length 77 19 2 'cut to 50 tokens' $chat --max-seq-length 50
    counts on-long 27 5 1 'longer than 50 tokens skipped' $chat --max-seq-length 50 --on-long skip
}

tune() {
    "$credence" finetune -m m.gguf -d d.jsonl --steps 4 --quiet --no-valid "$@"
}
score() {
    command=$1
    shift
    "$credence" "$command" -m m.gguf -d d.jsonl "$@"
}
# answers FILE FLAG...: the lines of predict.
answers() {
    file=$1
    shift
    expect "$file" 0 '' score predict --quiet "$@"
    mv out "$file"
}
differ() {
    check "$1" [ -s "$2" ]
    check "$1" [ "$(cmp -s "$2" "$3"; echo $?)" -eq 1 ]
}

expect ivon 0 '' tune -o ivon --method ivon --lr 4
expect point 0 '' tune -o point
expect dropped 0 '' tune -o dropped --dropout 0.5 --lr 0.01
for command in eval predict; do # a line a batch
    expect batch-size 0 'eval 24/24' score $command --batch-size 7
    check batch-size [ "$(sed -n 's/^eval \([0-9]*\).*/\1/p' err | tr '\n' ' ')" = '7 14 21 24 ' ]
done
expect memory 5 '[^0-9]3 MiB allowed' score eval --memory 3M
expect memory 5 '[^0-9]3 MiB allowed' score predict --memory 3M
expect memory 5 '[^0-9]3 MiB allowed' "$credence" laplace -m m.gguf -d d.jsonl -a point -o none --memory 3M
expect machine 0 '' score eval --cpu scalar --threads 2 --report r.html --quiet
check machine grep -q 'scalar, 2 threads' r.html
expect machine 0 'threads of the pool' score eval --threads-by pool --verbose dispatch

# A posterior: a draw by its seed and its width, the mean, and what is left of it. An export is the same weights.
answers mean -a ivon --mean
answers draw -a ivon --samples 1 --seed 5 --posterior-temperature 4
answers other-seed -a ivon --samples 1 --seed 6 --posterior-temperature 4
answers other-width -a ivon --samples 1 --seed 5
answers pruned -a ivon --mean --prune 0.5
differ seed draw other-seed
differ posterior-temperature draw other-width
differ prune mean pruned
expect export 0 '' "$credence" export -a ivon --sample 0 --seed 5 --posterior-temperature 4 -o a-draw
answers exported -a a-draw
check export cmp -s draw exported
expect export 0 '' "$credence" export -a ivon --mean --prune 0.5 -o a-pruned
answers exported -a a-pruned
check export cmp -s pruned exported
answers plain -a dropped
answers dropout -a dropped --mc-dropout --samples 3
differ mc-dropout plain dropout
check mc-dropout grep -q '"members":3' dropout

"$make_model" model-untied m2.gguf || exit 1
for command in eval predict laplace; do
    set -- "$credence" "$command" -m m2.gguf -d d.jsonl -a point
    [ "$command" = laplace ] && set -- "$@" -o inexact
    expect allow-inexact 8 'allow-inexact accepts it' "$@"
    expect allow-inexact 0 'trained on base' "$@" --allow-inexact
done

lay() {
    "$credence" laplace -m m.gguf -a point --quiet "$@"
}
fact() { # fact DIR NAME: from its summary
    sed -n "s/^  \"$2\": \(.*[^,]\),*\$/\1/p" "$1/summary.json"
}
{
    questions 0 20 'Is % even?'
    questions 20 4 "Is the number % even or is it odd? e$(printf '\314\201')"
} >long.jsonl
expect laplace 0 "is not the file that the run in" lay -d long.jsonl -o l1 --prior-precision 3.5
check prior-precision [ "$(fact l1 prior_precision) $(fact l1 chosen_by)" = '3.5 "given"' ]
expect laplace 0 "is not the file that the run in" lay -d long.jsonl -o l2 --normalize nfc
check normalize [ $(($(fact l1 tokens) - $(fact l2 tokens))) -eq 4 ] # an accent of two bytes and its letter are one of two
expect laplace 0 'longer than 110 tokens skipped' lay -d long.jsonl -o l3 --max-seq-length 110 --on-long skip
check on-long [ "$(fact l3 n_examples)" -eq 20 ]

for seed in 1 2; do
    expect compared 0 '' score eval -a ivon --samples 1 --seed $seed --json e$seed.json --quiet
done
compared() {
    "$credence" compare e1.json e2.json --json "$@"
}
expect compare 0 '' compared c1.json --margin-accuracy 2.5 --margin-nll 0.125
check margins [ "$(sed -n 's/^  "margin_\([a-z]*\)": \([0-9.]*\),/\1 \2/p' c1.json | tr '\n' ' ')" = 'accuracy 2.5 nll 0.125 ' ]
expect compare 0 '' compared c2.json --margin-accuracy 2.5 --margin-nll 0.125
check repeated cmp -s c1.json c2.json
expect compare 0 '' compared c2.json --margin-accuracy 2.5 --margin-nll 0.125 --seed 3
differ seed c1.json c2.json
expect compare 0 '' compared c2.json --in-domain t1
check in-domain grep -q '^\*\*shifted\*\*, 12 examples$' out
printf '{"title": "Of rates", "note": "n", "charts": [{"title": "A", "x": "rate", "lines": [{"name": "one", "points": [[1, 2], [2, 3]]}]}]}' >charts.json
expect compare 0 '' compared c2.json --charts charts.json --report r.html
check charts grep -q 'Of rates' r.html
finish
