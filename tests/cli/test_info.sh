#!/bin/sh
# What files hold, in words; and refusals of what is no file of ours.
. "$(dirname "$0")/lib.sh"
"$make_model" vocab vocab.gguf && "$make_model" vocab-spm spm.gguf || exit 1

expect info 0 '' "$credence" info vocab.gguf
check info grep -q '^kind       vocabulary without weights$' out
check info grep -q '^tokenizer  supported$' out
check info grep -q 'tokenizer.ggml.model: "gpt2"' out
check info grep -q '^chat       chatml$' out
expect info 0 '' "$credence" info spm.gguf
check info grep -q 'tokenizer.ggml.model: "llama"' out

expect refused 2 'FILE|DIR is missing' "$credence" info
expect refused 2 'unexpected argument' "$credence" info vocab.gguf spm.gguf
expect refused 4 'absent: No such file' "$credence" info absent
expect refused 3 'expected a directory with' "$credence" info .
printf 'hello' >text
expect refused 3 '5 bytes of no known kind' "$credence" info text
: >empty
expect refused 3 '0 bytes of no known kind' "$credence" info empty
head -c 200 vocab.gguf >cut.gguf
expect refused 3 'cut.gguf' "$credence" info cut.gguf
printf 'CRCKPT\r\n' >cut.cck
expect refused 3 'cut.cck' "$credence" info cut.cck
mkfifo pipe
expect refused 4 'pipe' "$credence" info pipe
ln -s loop loop
expect refused 4 'loop' "$credence" info loop
expect refused 4 'x1b' "$credence" info "$(printf 'a\033[31m')"
finish
