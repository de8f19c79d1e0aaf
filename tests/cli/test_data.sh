#!/bin/sh
# Examples as the model sees them, on a terminal and elsewhere.
. "$(dirname "$0")/lib.sh"
"$make_model" vocab vocab.gguf || exit 1
cat >d.jsonl <<'EOF'
{"question": "Is it?", "choices": ["no", "yes"], "answer": 1, "task": "t"}

{"question": "Was it?", "choices": ["no", "yes"], "answer": 0}
EOF
expect data 0 '' "$credence" data -m vocab.gguf -d d.jsonl
check data grep -q '2 examples' out
check data grep -q 'Answer:\[ B\]' out
check "no colours off a terminal" sh -c '! LC_ALL=C grep -q "$(printf "\033")" out'
# What predict takes is no bad line: questions without an answer, and the task that it writes where there is none.
cat >open.jsonl <<'EOF'
{"question": "Is it?", "choices": ["no", "yes"], "task": null}
{"question": "Was it?", "choices": ["no", "yes"], "answer": null}
{"question": "Will it?", "choices": ["no", "yes"], "answer": 0}
EOF
expect open 0 '' "$credence" data -m vocab.gguf -d open.jsonl
check open grep -q '^answers: A 1 (.*), B 0 (.*); unanswered 2, which only predict takes$' out
check open grep -q 'bad lines: 0$' out
check open grep -q '^line 1: choices, [0-9]* tokens, 0 targets$' out
check open [ "$(grep -c 'Answer:\[' out)" -eq 1 ]
check open [ "$(grep -c '^open.jsonl: .* tokens, 1 target$' out)" -eq 1 ]
check open [ "$(grep -c 'task' out)" -eq 0 ]
"$make_model" model m.gguf || exit 1
expect open 0 'eval 3/3' "$credence" predict -m m.gguf -d open.jsonl -t 1
for command in data eval; do
    expect length 2 '--max-seq-length 513 is above the context of the model, 512' \
        "$credence" $command -m m.gguf -d d.jsonl --max-seq-length 513
done
printf '{"question": "Is it?"}\n' >bad.jsonl
expect data 3 'bad.jsonl' "$credence" data -m vocab.gguf -d bad.jsonl
expect data 4 'absent.jsonl' "$credence" data -m vocab.gguf -d absent.jsonl
expect data 2 '--data FILE.jsonl is missing' "$credence" data -m vocab.gguf

if command -v script >/dev/null && script -qec true /dev/null >/dev/null 2>&1; then
    shown() {
        TERM=$1 NO_COLOR=$2 script -qec "'$credence' data -m vocab.gguf -d d.jsonl" /dev/null </dev/null >out
        LC_ALL=C grep -q "$(printf '\033')" out
    }
    check "colours on a terminal" shown xterm ''
    check "NO_COLOR" eval '! shown xterm 1'
    check "a dumb terminal" eval '! shown dumb ""'
fi
finish
