#!/bin/sh
# Texts made from the tables: help, manual, completion, version. CL-18: output that cannot be written.
. "$(dirname "$0")/lib.sh"

for word in --help -h help; do
    expect help 0 '' "$credence" "$word"
    check help grep -q '^usage: credence COMMAND' out
done
commands=$("$credence" --help | sed -n 's/^  \([a-z]*\)  *[a-z].*/\1/p')
check help [ "$(printf '%s\n' "$commands" | wc -l)" -ge 2 ]
for command in $commands; do
    expect help 0 '' "$credence" "$command" --help
    check help grep -q "^usage: credence $command" out
    check "help of $command has no empty description" sh -c '! grep -qE "^  .*--[a-z-]+ *$" out'
    cp out by_flag
    expect help 0 '' "$credence" help "$command"
    check help cmp -s out by_flag
done
expect help 2 'unknown command' "$credence" help nonsense

expect version 0 '' "$credence" --version
check version grep -q '^credence [0-9]*\.[0-9]*\.[0-9]*$' out
check version grep -q '^compiler: ' out
check version grep -q 'jansson 2' out
check version grep -q '^tiers: scalar' out

expect manual 0 '' "$credence" --man
check manual grep -q '^.Dt CREDENCE 1' out
check manual [ "$(grep -c '^\.Bl' out)" -eq "$(grep -c '^\.El' out)" ]
expect completion 2 'expected bash' "$credence" --completion fish
expect completion 0 '' "$credence" --completion bash
if command -v bash >/dev/null; then
    cp out completion.bash
    cat >complete.sh <<'EOF'
. ./completion.bash
COMP_WORDS=(credence cpu --thr) COMP_CWORD=2
_credence
echo "${COMPREPLY[*]}"
COMP_WORDS=(credence to) COMP_CWORD=1
_credence
echo "${COMPREPLY[*]}"
EOF
    bash complete.sh >completed
    same completion completed "--threads --threads-by
tokenize"
fi

# The shell's own redirections make the failing outputs.
closed_output() {
    "$credence" --help >&-
}
closed_reader() { # the reader leaves at once; what is written later is lost
    mkfifo pipe
    (exec 3<pipe) &
    sh -c 'sleep 0.2; "$0" --man "$@"; echo $? >code' "$credence" >pipe
    wait
    return "$(cat code)"
}
if [ -w /dev/full ]; then
    for command in --help --version --man "cpu"; do
        # shellcheck disable=SC2086
        expect CL-18 4 'standard output: ' sh -c "'$credence' $command >/dev/full"
    done
fi
expect CL-18 4 'standard output: ' closed_output
expect CL-18 4 'standard output: ' closed_reader
expect "no error stream" 2 '' sh -c "'$credence' nonsense 2>&-"
finish
