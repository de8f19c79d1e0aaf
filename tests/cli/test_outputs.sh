#!/bin/sh
# Output directories that hold something already: inputs in them, another process, an older run; and the trace.
. "$(dirname "$0")/lib.sh"
"$make_model" model m.gguf || exit 1
questions 0 24 'Is % even?' >d.jsonl
questions 30 6 'Is % even?' >v.jsonl

tune() {
    "$credence" finetune -m m.gguf -d d.jsonl -t 1 --steps 2 "$@"
}

# keeps ID FILE COMMAND...: refused, with the flag and the file named, before a byte of the directory changes.
sums() {
    find "$1" -type f ! -name .lock | LC_ALL=C sort | xargs cksum
}
keeps() {
    id=$1 words=$2
    shift 2
    sums . >../before
    expect "$id" 2 "$words" "$@"
    rm -f out err
    sums . >../after
    check "$id: nothing has changed" cmp -s ../before ../after
}

# Inputs that a run in their own directory would write over or remove.
mkdir own && cd own || exit 1
cp ../d.jsonl train.jsonl
cp ../d.jsonl valid.jsonl
cp ../m.gguf adapter.gguf
cp ../m.gguf m.gguf
ln -s ../v.jsonl summary.json
echo '{"quiet": true}' >adapter_config.json
own="$credence finetune -m m.gguf -t 1 --steps 1 --no-valid -o . --force"
# shellcheck disable=SC2086 # words
{
    keeps journal '--data train.jsonl would be lost: --output \. .* its train.jsonl' $own -d train.jsonl
    keeps held-out '--data ../own/valid.jsonl would be lost' $own -d ../own/valid.jsonl
    keeps summary '--data \./summary.json .* its summary.json' $own -d ./summary.json
    keeps model '--model adapter.gguf would be lost' "$credence" finetune -m adapter.gguf -d ../d.jsonl -t 1 -o . --force
    keeps trace '--trace train.jsonl would be lost' $own -d ../d.jsonl --trace train.jsonl
    keeps config '--config adapter_config.json would be lost' $own -d ../d.jsonl --config adapter_config.json
    rm summary.json
    keeps valid '--valid train.jsonl would be lost' "$credence" finetune -m m.gguf -d ../d.jsonl --valid train.jsonl -t 1 -o . --force
}
cd ..
expect sets 0 'train 2/2' tune -o sets --method ensemble --members 2 --no-valid
expect sets 2 '--adapter sets/members/00 would be lost: --output sets .* its members' tune -a sets/members/00 -o sets --force
expect step 2 '--adapter .*step-.* its checkpoints' tune -a sets/checkpoints/step-00000002.cck -o sets --force
expect sets 0 '' "$credence" export -a sets/members/00 -o linked
mkdir links && for file in adapter_config.json adapter_model.safetensors; do ln -s "../linked/$file" links/; done
expect links 2 '--adapter links would be lost: --output linked .* its adapter_config.json' tune -a links -o linked --force
check links [ -s linked/adapter_config.json ]

# What is exported, or fitted, leaves nothing of the run before it, and its input as it is.
expect old 0 'train 2/2' tune -o old --method ivon --no-valid
expect point 0 'train 2/2' tune -o point --no-valid
expect export 2 '--output and --adapter are the same' "$credence" export -a old --mean -o ./old --force
expect export 2 '--output and --model are the same' "$credence" export -m m.gguf -a old --mean --format gguf -o m.gguf --force
expect export 2 'a file of --adapter' "$credence" export -a old --mean --format gguf -o old/adapter_model.safetensors --force
expect export 2 '--adapter old/adapter.gguf would be lost' "$credence" export -a old/adapter.gguf -o old --force
expect laplace 2 '--adapter point/adapter.gguf would be lost' \
    "$credence" laplace -m m.gguf -d d.jsonl -a point/adapter.gguf -o point --force
check export [ -s old/posterior.safetensors ]
cp -R old new && cp -R sets both && rm new/.lock both/.lock
expect export 0 '' "$credence" export -a point -o new --force
for file in posterior.safetensors adapter.gguf summary.json; do check export [ ! -e new/$file ]; done
check export [ -s new/train.jsonl ]
expect export 0 '1 set of weights' "$credence" eval -m m.gguf -d d.jsonl -t 1 -a new
expect export 0 '' "$credence" export -a old/checkpoints/step-00000002.cck -o old --force
check export [ -s old/adapter_model.safetensors ]
expect laplace 0 '' "$credence" laplace -m m.gguf -d d.jsonl -t 1 -a point -o both --force --quiet
check laplace [ ! -e both/members ]
for dir in new both; do check lock [ -e $dir/.lock ]; done # taken while they wrote
expect laplace 0 '1 set of weights' "$credence" eval -m m.gguf -d d.jsonl -t 1 -a both

if command -v flock >/dev/null; then
    expect busy 8 'new: in use by another process' flock new/.lock "$credence" export -a point -o new --force
    expect busy 8 'new: in use by another process' flock new/.lock \
        "$credence" laplace -m m.gguf -d d.jsonl -a point -o new --force
fi

# An adapter of another base: export takes it when it is told to, as all commands do.
"$make_model" model-untied m2.gguf || exit 1
expect inexact 8 'allow-inexact accepts it' "$credence" export -m m2.gguf -a point -o none
expect inexact 0 'trained on base' "$credence" export -m m2.gguf -a point -o inexact --allow-inexact
check inexact [ -s inexact/adapter_model.safetensors ]

# A trace is no reason to lose the adapter.
expect trace 4 '--trace nowhere/t.json: its directory' tune -o never --trace nowhere/t.json
expect trace 4 '--trace never/t.json: its directory' tune -o never --trace never/t.json --dry-run
check trace [ ! -e never ]
expect trace 0 'train 2/2' tune -o traced --trace traced/t.json
check trace [ -s traced/t.json ]
# A directory so deep that its file has a name, and the longer one that it is written under first has none: the reason
# shows at the end.
deep=$(printf '%0200d/' 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0)$(printf '%059d' 0)
if mkdir -p "$deep" 2>/dev/null; then
    expect late 4 'cannot create: File name too long' tune -o late --trace "$deep/t.json" --quiet
    check late [ -s late/adapter_model.safetensors ]
    check late [ -s late/summary.json ]
fi

# What links below an output lead to is somebody else's.
mkdir mine && cp old/adapter_config.json old/adapter_model.safetensors mine && mkdir -p linking/members
ln -s ../../mine linking/members/00
expect links 0 'train 2/2' tune -o linking --no-valid --force
for file in adapter_config.json adapter_model.safetensors; do check links cmp -s mine/$file old/$file; done
check links [ -L linking/members/00 ]

# Outputs that are no files, or whose names leave no room for the one they are written under first: before the work.
look="$credence eval -m m.gguf -d d.jsonl -t 1"
mkfifo fifo && ln -s fifo link
long=$(printf '%0240d' 0)
# shellcheck disable=SC2086 # words
{
    expect fifo 4 '--report fifo: exists and is no regular file' $look --report fifo
    expect fifo 4 '--json link: exists and is no regular file' $look --json link
    expect long 4 '--json 0.*: File name too long' $look --json "$long"
}
check fifo [ -p fifo ]
check fifo [ -L link ]

# shellcheck disable=SC2086 # words
{
    expect own 2 '--json old/adapter_model.safetensors is a file of --adapter' $look -a old --json old/adapter_model.safetensors
    expect own 2 '--report ./old/posterior.safetensors is a file of --adapter' $look -a old --report ./old/posterior.safetensors
    expect own 2 '--json sets/members/01/adapter_config.json is a file of --adapter' $look -a sets --json sets/members/01/adapter_config.json
    expect own 0 '' $look -a old --mean --quiet --json old/eval.json
    if [ -d "$deep" ]; then # the figures are not lost
        expect late 4 'cannot create: File name too long' $look --quiet --json "$deep/t.json"
        check late grep -q '^all ' out
    fi
    if [ "$(id -u)" -ne 0 ]; then
        mkdir closed && chmod 555 closed
        expect closed 4 '--json closed/t.json: its directory: Permission denied' $look --quiet --json closed/t.json
    fi
}
expect export 4 '--output fifo: exists and is no regular file' "$credence" export -a point --format gguf -o fifo --force
check export [ -p fifo ]

# A line as long as its names is still one line.
name=$(printf '%0200d' 0 | tr 0 '\377').jsonl
cat d.jsonl d.jsonl >"$name"
expect name 0 '1 set of weights' "$credence" eval -m m.gguf -d "$name" -t 1
check name [ "$(wc -l <err)" -eq "$(grep -c '^credence: \|^eval ' err)" ]

# After --force with other settings the checkpoints of the run before are still there.
expect again 0 'train 3/3' "$credence" finetune -m m.gguf -d d.jsonl -t 1 -o again --steps 3 --no-valid
expect again 0 'train 1/1' \
    "$credence" finetune -m m.gguf -d d.jsonl -t 1 -o again --steps 1 --rank 2 --no-valid --force
expect info 0 '' "$credence" info again
check info grep -q '^checkpoints 2, newest of step 1$' out
check info grep -q '^ *1 of other runs$' out
rm again/summary.json
expect info 0 '' "$credence" info again
check info grep -q '^checkpoints 2, newest of step 1$' out
finish
