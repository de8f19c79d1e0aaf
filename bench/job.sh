#!/bin/sh
# job.sh: whole fine-tuning runs on made-up text: tokens a second, share of the bound, peak memory.
#
#   job.sh MODEL.gguf [lm|cls|both]
#
# Environment: BUILD [build/release beside this folder]; ROUNDS [3]; STEPS timed in a round [4], after two to warm up;
# THREADS [all]; CPU caps the tier; GFLOP_LM, GFLOP_CLS a token [0.60, 0.42: SmolLM2-135M].
#
# Workloads: lm   4 x 512 tokens a step, rank 16, all seven projections, loss on every token
#            cls  16 x 48 tokens a step, rank 8, q_proj and v_proj, loss on the label
# Bound: the arithmetic that cannot be left out, at the peak of the cores used, which credence-bench measures before
# and after each round. lm: 4 operations a weight, the vocabulary's too (0.54 GFLOP), and attention (0.06). cls: no
# vocabulary; the last layer's o and ffn for one token of a question, nothing below the first layer's q and v (0.42).
# Recomputing, adapters, norms and the optimiser are our cost and not in it.
#
# Every round runs twice, with the timed steps and without: the difference of their processor times, spread over the
# threads, gives the second rate, which other programs on the machine disturb less than the clock on the wall.
set -eu

if [ $# -lt 1 ] || [ $# -gt 2 ]; then
    sed -n '2,/^set/s/^# \{0,1\}//p' "$0" | sed '$d' >&2
    exit 2
fi
here=$(cd "$(dirname "$0")" && pwd)
model=$1 which=${2:-both}
build=${BUILD:-$here/../build/release} program=$build/credence
rounds=${ROUNDS:-3} steps=${STEPS:-4} threads=${THREADS:-$(nproc)}
. "$here/workload.sh"
workloads=$(workloads_of "$which")
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT TERM
[ -z "${CPU:-}" ] || export CREDENCE_CPU="$CPU"

# Operations a second of the unit that the products use.
peak() {
    "$build/credence-bench" --peaks --threads "$threads" | awk '
        /^bf16 dot product/ { bf16 = $(NF - 1) }
        /^f32 / { if ($(NF - 1) + 0 > f32 + 0) f32 = $(NF - 1) }
        END { print bf16 != "" ? bf16 : f32 }'
}

# Processor seconds of all programs that this script has run so far.
processor_time() {
    times >"$scratch/times"
    awk 'NR == 2 { for (i = 1; i <= 2; i++) { split($i, t, "[ms]"); total += 60 * t[1] + t[2] } print total }' "$scratch/times"
}

for workload in $workloads; do
    python3 "$here/../tests/peers/make_workload.py" "$program" "$model" "$workload" "$scratch/$workload.jsonl"
    case $workload in
    lm) gflop=${GFLOP_LM:-0.60} step_tokens=2048 ;;
    cls) gflop=${GFLOP_CLS:-0.42} step_tokens=768 ;;
    esac
    echo "$workload: threads $threads, $gflop GFLOP a token"
    round=1
    : >"$scratch/rounds"
    while [ "$round" -le "$rounds" ]; do
        before=$(peak)
        processor_time >"$scratch/t0"
        run_workload "$workload" 2
        processor_time >"$scratch/t1"
        run_workload "$workload" $((steps + 2))
        processor_time >"$scratch/t2"
        after=$(peak)
        python3 - "$scratch" "$gflop" "$before" "$after" "$((steps * step_tokens))" "$threads" <<'PY'
import json, statistics, sys
scratch, gflop, before, after, tokens, threads = sys.argv[1], *map(float, sys.argv[2:])
speeds = [json.loads(line)["tok_s"] for line in open(scratch + "/out/train.jsonl")][2:]
memory = json.load(open(scratch + "/out/summary.json"))["peak_rss_mb"]
bound = (before + after) / 2 / (gflop * 1e9)
typical = statistics.median(speeds)
t0, t1, t2 = (float(open(f"{scratch}/t{i}").read()) for i in range(3))
spent = (t2 - t1 - (t1 - t0)) / threads
busy = tokens / spent if spent > 0 else float("nan")
print(f"  {typical:7.1f} tokens/s (best step {max(speeds):.1f}), share {typical / bound:.3f} of {bound:.0f}; "
      f"by processor time {busy:.1f}, share {busy / bound:.3f}; peak memory {memory:.0f} MiB")
with open(scratch + "/rounds", "a") as f:
    f.write(f"{typical / bound} {busy / bound}\n")
PY
        round=$((round + 1))
    done
    python3 - "$workload" "$scratch/rounds" <<'PY'
import statistics, sys
wall, busy = zip(*(map(float, line.split()) for line in open(sys.argv[2])))
print(f"{sys.argv[1]}: median share of the bound {statistics.median(wall):.3f}, by processor time "
      f"{statistics.median(busy):.3f}")
PY
done
