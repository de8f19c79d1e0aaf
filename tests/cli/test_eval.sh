#!/bin/sh
# eval and predict from outside: table, JSON, page, lines, refusals that leave nothing behind.
. "$(dirname "$0")/lib.sh"
"$make_model" model m.gguf || exit 1
questions 0 12 'Is % even?' ', "task": "t#"' >d.jsonl
printf '{"text": "one two three"}\n{"text": "four"}\n' >t.jsonl

score() {
    command=$1
    shift
    "$credence" "$command" -m m.gguf "$@"
}

expect eval 0 'eval 12/12 ' score eval -d d.jsonl --json j.json --report r.html
check eval grep -q '^task *n  accuracy      NLL      ECE    Brier  AUROC error$' out
check eval [ "$(grep -c '^t[01]  *6 ' out)" -eq 2 ]
check eval grep -q '^all  *12 ' out
check eval grep -q '^method base, ' out
for key in model method samples tokens seconds tok_s groups all; do
    check json grep -q "^  \"$key\":" j.json
done
check page grep -q '</html>' r.html
check page grep -q -- '--report r.html' r.html
check temporaries [ "$(find . -name '*.tmp.*' | wc -l)" -eq 0 ]
expect quiet 0 '' score eval -d d.jsonl --quiet
expect texts 0 'eval 2/2 ' score eval -d t.jsonl
check texts grep -q '^task *tokens      NLL  perplexity$' out

expect predict 0 'eval 12/12 ' score predict -d d.jsonl
check predict [ "$(wc -l <out)" -eq 12 ]
line='^{"index":[0-9]*,"task":"t[01]","answer":[01],"prediction":[01],"probs":\[.*\],"logits":\[.*\]'
check predict [ "$(grep -c "$line,\"entropy\":.*,\"mutual_information\":0.0}\$" out)" -eq 12 ]
mv out first
expect predict 0 'eval 12/12 ' score predict -d d.jsonl --batch-size 5 -t 2
check batches cmp -s first out

# A question need not have an answer to get one; it cannot be judged by.
sed 's/, "answer": [01]//' d.jsonl >open.jsonl
expect open 0 'eval 12/12 ' score predict -d open.jsonl
check open [ "$(grep -c '"answer":null,"prediction":[01]' out)" -eq 12 ]
sed 's/"answer":[01]/"answer":null/' first >known
check open cmp -s known out
expect open 3 'open.jsonl:1: field "answer" is missing' score eval -d open.jsonl
expect ood 0 '' score eval -d d.jsonl --ood open.jsonl --quiet
check ood grep -q '^elsewhere: 12 examples' out
expect strict 2 '--strict-task: no adapter by task' score eval -d d.jsonl --strict-task

expect CL-05 2 'model' "$credence" eval -d d.jsonl
expect absent 4 'nowhere' score eval -d d.jsonl -a nowhere
expect parent 4 'nowhere' score eval -d d.jsonl --json nowhere/j.json
expect input 2 'are the same' score eval -d d.jsonl --json d.jsonl
expect adapter 3 'm.gguf' score eval -d d.jsonl -a m.gguf
expect memory 5 '[^0-9]1 MiB allowed' score eval -d d.jsonl --memory 1M
expect full 4 'standard output' sh -c "'$credence' predict -m m.gguf -d d.jsonl -t 1 --quiet >/dev/full"
cp j.json before
expect kept 3 'bad.jsonl:1:' sh -c "echo '{' >bad.jsonl; '$credence' eval -m m.gguf -d bad.jsonl -t 1 --json j.json"
check kept cmp -s before j.json
finish
