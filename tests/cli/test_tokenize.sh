#!/bin/sh
# Ids of lines, against a vocabulary whose ids are the bytes themselves: 0 ... 255, then " A" ... " Z" from 256.
. "$(dirname "$0")/lib.sh"
"$make_model" vocab vocab.gguf || exit 1

ids() { # ids INPUT FLAG...: like expect's out and err, with an input
    printf "$1" >input
    shift
    expect tokenize 0 "" "$credence" tokenize -m vocab.gguf "$@" input
}

ids 'ab\n\ncd'
same "lines" out "97 98

99 100"
ids 'ab\r\nc\rd\n'
same "CRLF ends a line, a lone CR is text" out "97 98
99 13 100"
ids ''
check "no input, no output" [ ! -s out ]
ids '\n'
same "one empty line" out ""
ids 'x A\n'
same "pieces" out "120 256"
ids 'caf\303\251\n'
same "UTF-8" out "99 97 102 195 169"
ids 'a\377b\n'
same "bytes that are not UTF-8" out "97 255 98"
ids '<|im_end|>\n'
same "special tokens are text" out "60 124 105 109 95 101 110 100 124 62"
ids '<|im_end|>\n' --special
same "special tokens on request" out "284"
ids 'a\n' --bos
same "begin token" out "283 97"
ids 'e\314\201\n' --normalize nfc
same "normal form" out "195 169"

ids '"a\\nb"\r\n""\n" A"\n' --jsonl
same "JSON strings" out "97 10 98

256"
ids '"\\u0000"\n' --jsonl
same "a zero byte" out "0"
ids '"a"' --jsonl
same "no final line feed" out "97"

for line in '1' '' '{"a":1}' '"a' '"a" "b"' "$(printf '"\377"')"; do
    printf '"ok"\n%s\n' "$line" >input
    expect jsonl 3 'input: line 2: ' "$credence" tokenize -m vocab.gguf --jsonl input
done

printf 'ab\n' >input
"$credence" tokenize -m vocab.gguf <input >out
same "standard input" out "97 98"
"$credence" tokenize -m vocab.gguf - <input >out
same "standard input by name" out "97 98"
expect input 4 'absent: No such file' "$credence" tokenize -m vocab.gguf absent
expect input 4 'Is a directory' "$credence" tokenize -m vocab.gguf .
expect input 2 'unexpected argument "b"' "$credence" tokenize -m vocab.gguf a b
expect model 4 'absent.gguf: .*No such file' "$credence" tokenize -m absent.gguf input
expect model 3 'input' "$credence" tokenize -m input input
expect normalize 2 '--normalize: expected nfc' "$credence" tokenize -m vocab.gguf --normalize nfd input

long=$(printf '%0300d' 0)
expect CL-14 4 'File name too long' "$credence" tokenize -m vocab.gguf "$long"
expect CL-14 4 'File name too long' "$credence" tokenize -m "$long" input
odd=$(printf 'odd\377 name.gguf')
if cp vocab.gguf "$odd" 2>/dev/null; then
    expect CL-17 0 '' "$credence" tokenize -m "$odd" input
    same CL-17 out "97 98"
fi
if [ -w /dev/full ]; then
    expect CL-18 4 'standard output' sh -c "'$credence' tokenize -m vocab.gguf input >/dev/full"
fi
finish
