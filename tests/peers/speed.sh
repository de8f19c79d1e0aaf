#!/bin/sh
# speed.sh: credence finetune and a PEFT timing script by turns on equal work; tokens a second and peak memory of both.
#
#   speed.sh CREDENCE MODEL.gguf PEFT_SCRIPT HF_DIR [lm|cls|both]
#
# PEFT_SCRIPT takes --model --mode --targets --r --loss --T --B --steps --threads and ends with one line of JSON that
# has tok_s (best step), tok_s_med (median step) and rss_mb. HF_DIR is the same model as a Hugging Face folder.
# Environment: PYTHON [python3] with torch, transformers, peft; ROUNDS [3]; STEPS timed in a round [6]; THREADS [all];
# MODE of the peer [bf16]; PEER_FLAGS more flags for it, such as --compile.
#
# Workloads: lm   4 x 512 tokens a step, rank 16, all seven projections, loss on every token
#            cls  16 x 48 tokens a step, rank 8, q_proj and v_proj, loss on the label
# Both sides leave out two steps of warming up. Only ratios of one sitting mean something: absolute numbers drift.
set -eu

if [ $# -lt 4 ] || [ $# -gt 5 ]; then
    sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
program=$1 model=$2 peer=$3 hf=$4 which=${5:-both}
here=$(dirname "$0")
python=${PYTHON:-python3} rounds=${ROUNDS:-3} steps=${STEPS:-6} threads=${THREADS:-$(nproc)} mode=${MODE:-bf16}
. "$here/../../bench/workload.sh"
workloads=$(workloads_of "$which")
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT TERM

# run_ours WORKLOAD: one line of JSON like the peer's
run_ours() {
    run_workload "$1" $((steps + 2))
    "$python" - "$scratch/out" <<'PY'
import json, statistics, sys
speeds = [json.loads(line)["tok_s"] for line in open(sys.argv[1] + "/train.jsonl")][2:]
peak = json.load(open(sys.argv[1] + "/summary.json"))["peak_rss_mb"]
print(json.dumps({"tok_s": max(speeds), "tok_s_med": statistics.median_high(speeds), "rss_mb": peak}))
PY
}

run_peer() {
    case $1 in
    lm) set -- --loss lm --targets all --r 16 --B 4 --T 512 ;;
    cls) set -- --loss cls --targets q_proj,v_proj --r 8 --B 16 --T 48 ;;
    esac
    # shellcheck disable=SC2086
    "$python" "$peer" --model "$hf" --mode "$mode" --threads "$threads" --steps "$steps" "$@" ${PEER_FLAGS:-} \
        >"$scratch/peer.out" 2>"$scratch/peer.err" || {
        tail -n 5 "$scratch/peer.err" >&2
        return 1
    }
    tail -n 1 "$scratch/peer.out"
}

for workload in $workloads; do
    "$python" "$here/make_workload.py" "$program" "$model" "$workload" "$scratch/$workload.jsonl"
    : >"$scratch/rounds"
    round=1
    while [ "$round" -le "$rounds" ]; do
        ours=$(run_ours "$workload")
        theirs=$(run_peer "$workload")
        printf '%s\t%s\n' "$ours" "$theirs" >>"$scratch/rounds"
        round=$((round + 1))
    done
    "$python" - "$workload" "$mode" "$scratch/rounds" <<'PY'
import json, statistics, sys
workload, mode, path = sys.argv[1:]
ratios = []
print(f"{workload}: tokens a second (best step, median step), peak memory in MiB; {mode} is the peer")
for line in open(path):
    ours, theirs = map(json.loads, line.split("\t"))
    ratios.append(ours["tok_s_med"] / theirs["tok_s_med"])
    cells = [f"{x['tok_s']:8.1f} {x['tok_s_med']:8.1f} {x['rss_mb']:7.0f}" for x in (ours, theirs)]
    memory = ours["rss_mb"] / theirs["rss_mb"]
    print(f"  credence {cells[0]}   peer {cells[1]}   speed x{ratios[-1]:.2f}, memory x{memory:.2f}")
print(f"  median of the ratios of {len(ratios)} round(s): x{statistics.median(ratios):.2f}")
PY
done
