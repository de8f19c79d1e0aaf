# workload.sh: the two runs that speeds are quoted for. Sourced by job.sh and tests/peers/speed.sh, which describe them.
# Needs: program, model, threads, scratch (a directory that holds WORKLOAD.jsonl).

# workloads_of WORD: the names that lm, cls or both stand for; ends the script for another word.
workloads_of() {
    case $1 in
    lm | cls) echo "$1" ;;
    both) echo lm cls ;;
    *)
        echo "${0##*/}: no workload $1 (lm, cls, both)" >&2
        exit 2
        ;;
    esac
}

# run_workload WORKLOAD STEPS: a journal line a step in $scratch/out.
run_workload() {
    data=$scratch/$1.jsonl n_steps=$2
    case $1 in
    lm) set -- --targets all --rank 16 --batch-size 4 ;;
    cls) set -- --targets q_proj,v_proj --rank 8 --batch-size 16 ;;
    esac
    "$program" finetune -m "$model" -d "$data" -o "$scratch/out" --force --no-valid --quiet --lr 1e-4 -t "$threads" \
        --steps "$n_steps" --report-every 1 "$@" >/dev/null
}
