#!/bin/sh
# What the methods are worth, on a small model and real text: tables of accuracy, NLL, Brier score and ECE in and out of
# domain, made by `credence compare`. Cells are cached and runs go on where they were interrupted.
#
#   bench/methods.sh quick             the main table: 300 tweets, 4 members, 3 seeds, the rows "main" of methods.conf
#   bench/methods.sh full              5 seeds, 8 members; all tweets, prefixes by few examples, BoRA on texts and on
#                                      questions, and, with EXTRA naming a directory of NAME-train.jsonl and
#                                      NAME-test.jsonl, agnews and arc-easy
#   bench/methods.sh search [ROW ...]  the grids of methods.conf, judged by tweets that no table uses (BoRA: by its
#                                      validation texts, which choose tau as well)
#   bench/methods.sh cell ROW SEED     one cell (of the set SET)
#   bench/methods.sh tables [SET ...]  tables and page of the cells that there are
#   bench/methods.sh data              only the data
#
# OUT (~/.cache/credence/methods) keeps everything: data/, SET/runs/ROW-SEED, SET/cells/ROW-SEED.json, SET/tables.md and
# SET/report.html. Further variables: MODEL, BUILD (build/release), THREADS, SEEDS ("1 2 3"), MEMBERS, ROWS (those of the set),
# SET (tweets300), TEXTS (300 test texts a kind), STEPS (instead of the set's epochs, to try it out).
set -eu

here=$(cd "$(dirname "$0")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/credence
out=${OUT:-$cache/methods}
program=${BUILD:-$here/../build/release}/credence
model=${MODEL:-$cache/SmolLM2-135M-Instruct.Q4_1.gguf}
texts=${TEXTS:-300}
conf=$here/methods.conf

say() {
    printf '==> %s\n' "$*"
}

die() {
    printf 'methods.sh: %s\n' "$*" >&2
    exit 1
}

# Data for all sets, made once for a number of test texts; its parts again when methods.py has changed.
make_data() {
    data=$out/data$texts parts=$(cksum <"$here/methods.py")
    [ -f "$data/done" ] && [ "$(cat "$data/done")" = "$parts" ] && return
    [ -f "$data/others.jsonl" ] || "$here/../bootstrap" data "$data" "$texts"
    python3 "$here/methods.py" split "$data" "$texts"
    printf '%s\n' "$parts" >"$data/done"
}

# use_set SET: its files, length, kind of rows, and what its training texts are a sample of.
use_set() {
    set_name=$1 kind=main in_domain= train=$data/$1-train.jsonl valid=$data/$1-valid.jsonl test=$data/test.jsonl
    case $1 in
    tweets300) length='--epochs 13' in_domain=tweets second=$data/$1-seen.jsonl ;;
    tweets) length='--epochs 3' in_domain=tweets second=$data/$1-seen.jsonl ;;
    few*-*) length='--steps 300' kind=few test=$data/few-${1#few*-}-test.jsonl second=$data/$1-seen.jsonl ;;
    bora | bora-choices) length='--epochs 4' kind=$1 in_domain=movies,nyt test=$data/$1-test.jsonl second=$valid ;;
    agnews | arc-easy)
        [ -n "${EXTRA:-}" ] || die "set $1: EXTRA names no directory"
        length='--epochs 3' test=$EXTRA/$1-test.jsonl second=$data/$1-seen.jsonl
        [ -f "$train" ] || python3 "$here/methods.py" holdout "$EXTRA/$1-train.jsonl" "$data/$1"
        ;;
    *) die "no set $1 (tweets300, tweets, few50-TASK, few200-TASK, bora, bora-choices, agnews, arc-easy)" ;;
    esac
    [ -z "${STEPS:-}" ] || length="--steps $STEPS"
    mkdir -p "$out/$1/runs" "$out/$1/cells"
}

# field LINE NUMBER: of a line of methods.conf, without the spaces around it.
field() {
    printf '%s\n' "$1" | cut -d '|' -f "$2" | sed 's/^ *//; s/ *$//'
}

rows_of_kind() {
    awk -F '|' -v kind="$1" '!/^(#|search |LORA)/ && NF > 4 { gsub(/ /, "")
        if (index("," $2 ",", "," kind ",")) print $1 }' "$conf"
}

# use_row ROW: that of the set's kind, if there is a set yet. Sets run, needs, flags and looks (words in capitals replaced
# but for VALID), and name, that of its cells.
use_row() {
    line=$(awk -F '|' -v row="$1" -v kind="${kind:-}" '{ name = $1; kinds = $2; gsub(/ /, "", name); gsub(/ /, "", kinds) }
        name == row && NF > 4 && (kind == "" || index("," kinds ",", "," kind ",")) { print; exit }' "$conf")
    [ -n "$line" ] || die "no row $1 in $conf${kind:+ for sets of the kind $kind}"
    lora=$(sed -n 's/^LORA = //p' "$conf")
    run=$(field "$line" 3) needs=$(field "$line" 4) name=$1
    case "$run $line" in mix* | *MEMBERS*) name=$1$members ;; esac
    flags=$(field "$line" 5 | sed "s/LORA/$lora/; s/MEMBERS/$members/")
    looks=$(field "$line" 6)
}

# Whether the program has what a row needs: a method of finetune, or a command.
has() {
    "$program" finetune --help | sed -n 's/^ *--method //p' | tr '|' '\n' | grep -qx "$1" ||
        "$program" "$1" --help >/dev/null 2>&1
}

# same_key FILE WORD...: whether FILE holds these words and the sum of the training file; else writes them and says so.
same_key() {
    file=$1
    shift
    key="$* $(cksum <"$train")"
    [ -f "$file" ] && [ "$(cat "$file")" = "$key" ] && return
    printf '%s\n' "$key" >"$file"
    return 1
}

# logged DIRECTORY COMMAND...: its output beside the directory, shown when it fails. The number of threads is given here
# and is no part of a key: it changes nothing but the time.
logged() {
    log=$1.log
    shift
    "$@" --quiet ${THREADS:+-t $THREADS} >>"$log" 2>&1 && return
    tail -3 "$log" >&2
    die "failed: $* (see $log)"
}

# train DIRECTORY SEED: by $flags. Nothing to do when it was done with these flags; goes on when it was interrupted.
train() {
    trained=$1
    [ -z "${STEPS:-}" ] || flags=$(printf '%s\n' "$flags" | sed 's/--epochs [^ ]*//')
    # shellcheck disable=SC2086 # lists of words
    set -- -m "$model" -d "$train" -o "$trained" --seed "$2" --batch-size 8 $flags
    case " $flags " in *' --epochs '* | *' --steps '*) ;; *) set -- "$@" $length ;; esac
    case " $flags " in *' --keep '*) ;; *) set -- "$@" --keep last ;; esac
    set -- "$@" --valid "$valid"
    same_key "$trained.key" "$@" || rm -rf "$trained"
    [ ! -f "$trained/summary.json" ] || return 0
    say "$set_name: training ${trained##*/}"
    if ls "$trained"/checkpoints/*.cck >/dev/null 2>&1; then
        set -- "$@" --resume
    else
        rm -rf "$trained"
    fi
    logged "$trained" "$program" finetune "$@"
}

# obtain ROW SEED: trains what it stands on; sets adapters, one directory a line.
obtain() {
    use_row "$1"
    case $run in
    own)
        train "$out/$set_name/runs/$name-$2" "$2"
        adapters=$out/$set_name/runs/$name-$2
        ;;
    like\ *) obtain "${run#like }" "$2" ;;
    mix\ *)
        mixed= member=0 of=${run#mix }
        while [ $member -lt "$members" ]; do
            obtain "$of" $(($2 + 100 * member))
            mixed="$mixed$adapters
"
            member=$((member + 1))
        done
        adapters=$mixed
        ;;
    laplace\ *)
        own=$flags around=$out/$set_name/runs/$name-$2
        obtain "${run#laplace }" "$2"
        # shellcheck disable=SC2086
        set -- -m "$model" -a "$adapters" -d "$train" -o "$around" --seed "$2" \
            $(printf %s "$own" | sed 's/--valid VALID//')
        case $own in *VALID*) set -- "$@" --valid "$valid" ;; esac
        same_key "$around.key" "$@" "$(cat "$adapters.key")" || rm -rf "$around"
        if [ ! -f "$around/posterior.safetensors" ]; then
            rm -rf "$around"
            logged "$around" "$program" laplace "$@"
        fi
        adapters=$around
        ;;
    esac
}

# look FILE.json SEED DATA: evaluates $adapters by $looks.
look() {
    json=$1 on=$3
    # shellcheck disable=SC2086
    set -- -m "$model" -d "$on" --json "$json" --seed "$2" $(printf %s "$looks" | sed 's/--calibrate VALID//')
    case $looks in *VALID*) set -- "$@" --calibrate "$valid" ;; esac
    made_by=
    while read -r adapter; do
        [ -n "$adapter" ] || continue
        set -- "$@" -a "$adapter"
        made_by="$made_by $(cat "$adapter.key")"
    done <<END
$adapters
END
    same_key "$json.key" "$@" "$(cksum <"$on")" "$made_by" || rm -f "$json"
    [ -f "$json" ] || logged "$json" "$program" eval "$@"
}

# cell ROW SEED
cell() {
    use_row "$1"
    has "$needs" || {
        say "$1: left out, this program has no $needs"
        return 0
    }
    obtain "$1" "$2"
    use_row "$1"
    say "$set_name: looking at $name-$2"
    look "$out/$set_name/cells/$name-$2.json" "$2" "$test"
    [ -z "$second" ] || look "$out/$set_name/cells/$name-$2.second.json" "$2" "$second"
}

# use_cells ROW ENDING: uses the row and sets files, a comma list of its cells. Fails unless every seed has one.
use_cells() {
    use_row "$1"
    files=
    for seed in $seeds; do
        file=$out/$set_name/cells/$name-$seed$2
        [ -f "$file" ] || return 1
        files=$files${files:+,}$file
    done
}

# tau_charts FILE ENDING: perplexity (questions: NLL) over tau, of the rows that have a cell for every seed, as a table on
# the output and as charts. Sets charts, empty without any.
tau_charts() {
    charts=$1 ending=$2 what=Perplexity
    [ "$kind" = bora ] || what=NLL
    rm -f "$charts"
    set --
    for row in $rows; do
        use_cells "$row" "$ending" || continue
        tau=$(printf '%s\n' "$flags" | sed -n 's/.*--tau \([^ ]*\).*/\1/p')
        set -- "$@" "${tau:-inf},$files"
    done
    python3 "$here/methods.py" tau "$charts" $what "$in_domain" "$@"
    echo
    [ -f "$charts" ] || charts=
}

# compare_cells ENDING FLAG...: of the rows that have a cell for every seed.
compare_cells() {
    ending=$1
    shift
    n_rows=0
    for row in $rows; do
        use_cells "$row" "$ending" || continue
        case $looks in *VALID*) files=$files@calibrated ;; esac
        set -- "$@" "$row=$files"
        n_rows=$((n_rows + 1))
    done
    if [ $n_rows -lt 2 ]; then
        echo "Fewer than two rows have a cell for each of the seeds $seeds."
    else
        "$program" compare "$@"
    fi
}

# table SET
table() {
    use_set "$1"
    rows=${ROWS:-$(rows_of_kind "$kind")} charts=
    {
        echo "## $set_name"
        echo
        case $kind in bora*)
            echo "\"In domain\" are the tasks with many texts, \"shifted\" those with few; all are trained on."
            echo
            tau_charts "$out/$set_name/tau.json" .json
            ;;
        esac
        compare_cells .json ${in_domain:+--in-domain "$in_domain"} --json "$out/$set_name/tables.json" \
            --report "$out/$set_name/report.html" ${charts:+--charts "$charts"}
        if [ -n "$second" ]; then
            echo "### On ${second##*/}"
            echo
            case $kind in bora*) tau_charts "$out/$set_name/tau-valid.json" .second.json ;; esac
            compare_cells .second.json
        fi
        case "$kind $rows" in bora*pooled*)
            echo "### Against one adapter for all"
            echo
            kept=$rows rows="pooled $(printf '%s\n' $rows | grep -vx pooled | tr '\n' ' ')"
            compare_cells .json --in-domain "$in_domain"
            rows=$kept
            ;;
        esac
        echo "### Cost"
        echo
        set --
        for row in $rows; do
            use_row "$row"
            for seed in $seeds; do
                file=$out/$set_name/cells/$name-$seed.json
                [ ! -f "$file" ] || set -- "$@" "$name-$seed" "$out/$set_name/runs/$name-$seed" "$file"
            done
        done
        python3 "$here/methods.py" cost "$@"
    } >"$out/$set_name/tables.md"
    say "$out/$set_name/tables.md"
}

# whole SET...: every cell, then the tables.
whole() {
    for set in "$@"; do
        use_set "$set"
        for seed in $seeds; do
            for row in ${ROWS:-$(rows_of_kind "$kind")}; do
                cell "$row" "$seed"
            done
        done
        table "$set"
    done
}

# Every combination of a row's grids, judged by texts that no table uses.
search_row() {
    row=$1 kind=
    grep -q "^search $row *|" "$conf" || die "no grid of $row in $conf"
    use_row "$row"
    has "$needs" || {
        say "$row: left out, this program has no $needs"
        return 0
    }
    kinds=$(field "$line" 2)
    case $kinds in
    bora*)
        use_set "${kinds%%,*}"
        judged=$valid
        ;;
    *)
        use_set tweets300
        judged=$data/search.jsonl
        ;;
    esac
    dir=$out/search/$row
    mkdir -p "$dir"
    sed -n "s/^search $row *|//p" "$conf" | while read -r searched; do
        python3 "$here/methods.py" grid "$flags" "$searched"
    done >"$dir/grid"
    set --
    while IFS='	' read -r variant flags <&3; do
        files=
        for seed in $seeds; do
            train "$dir/$variant-$seed" "$seed"
            adapters=$trained
            look "$adapters.json" "$seed" "$judged"
            files=$files${files:+,}$adapters.json
        done
        set -- "$@" "$variant=$files"
    done 3<"$dir/grid"
    [ $# -gt 1 ] || die "one combination of $row: nothing to compare"
    "$program" compare "$@" >"$dir/table.md"
    say "$dir/table.md"
}

command=${1:-}
[ $# -eq 0 ] || shift
[ -x "$program" ] || die "$program: not built (./bootstrap build)"
seeds=${SEEDS:-1 2 3} members=${MEMBERS:-4}
case $command in
quick)
    make_data
    whole tweets300
    ;;
full)
    seeds=${SEEDS:-1 2 3 4 5} members=${MEMBERS:-8}
    make_data
    sets='tweets300 tweets bora bora-choices'
    for task in amazon movies nyt tweets; do
        sets="$sets few50-$task few200-$task"
    done
    [ -n "${EXTRA:-}" ] || say "agnews and arc-easy: left out, EXTRA names no directory"
    # shellcheck disable=SC2086
    whole $sets ${EXTRA:+agnews arc-easy}
    ;;
search)
    seeds=${SEEDS:-1}
    make_data
    # shellcheck disable=SC2046
    [ $# -gt 0 ] || set -- $(sed -n 's/^search *\([^ |]*\).*/\1/p' "$conf")
    for row in "$@"; do
        search_row "$row"
    done
    ;;
cell)
    [ $# -eq 2 ] || die "cell takes a row and a seed"
    make_data
    use_set "${SET:-tweets300}"
    cell "$@"
    ;;
tables)
    make_data
    for set in "${@:-tweets300}"; do
        table "$set"
    done
    ;;
data) make_data ;;
*)
    sed -n '2,/^set/s/^# \{0,1\}//p' "$0" | sed '$d'
    exit 2
    ;;
esac
