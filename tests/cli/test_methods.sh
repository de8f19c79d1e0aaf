#!/bin/sh
# bench/methods.sh from end to end on a tiny model: every row that the program can make, cells that are kept, tables.
bench=$(dirname "$0")/../../bench
. "$(dirname "$0")/lib.sh"
command -v python3 >/dev/null || exit 77
"$make_model" model m.gguf || exit 1
mkdir -p kept/data8
python3 - kept/data8 <<'END' || exit 1
import json, sys

def write(name, tasks, n):
    with open(sys.argv[1] + "/" + name + ".jsonl", "w") as out:
        for task in tasks:
            for i in range(n):
                out.write(json.dumps({"task": task, "question": f"is {i * 7 % 13} in {task}?",
                                      "choices": ["negative", "positive"], "answer": i % 3 % 2}) + "\n")

write("train", ["tweets"], 400)
write("others", ["amazon", "movies", "nyt"], 60)
write("test", ["tweets", "amazon", "movies", "nyt"], 8)
END
export OUT="$work/kept" MODEL="$work/m.gguf" TEXTS=8 STEPS=60 SEEDS=1 MEMBERS=2 THREADS=1
BUILD=$(dirname "$credence")
export BUILD

methods() {
    sh "$bench/methods.sh" "$@"
}
cells=kept/tweets300/cells
expect cell 0 '' methods cell ivon 1
check cell [ -s $cells/ivon-1.json ]
check cell [ -s $cells/ivon-1.second.json ]
check cell grep -q 'training ivon-1' out
expect again 0 '' methods cell ivon 1
check again [ "$(grep -c training out)" -eq 0 ]
STEPS=61
expect other 0 '' methods cell ivon 1
check other grep -q 'training ivon-1' out
cp $cells/ivon-1.json before
rm kept/tweets300/runs/ivon-1/summary.json
expect resumed 0 '' methods cell ivon 1
check resumed grep -q 'training ivon-1' out
check resumed cmp -s before $cells/ivon-1.json

expect quick 0 '' methods quick
check quick [ "$(grep -c 'ivon: left out' out)" -eq 0 ]
for row in adamw adamw-early adamw-temp mc-dropout deep2 laplace blob ivon ivon-mean swag ensemble2 prefix; do
    check $row [ -s $cells/$row-1.json ]
done
table=kept/tweets300/tables.md
check table [ "$(grep -c '^| against adamw ' $table)" -eq 8 ] # four kinds, shifted, all; of seen texts: tweets, all
check table [ "$(grep -c '^| adamw-temp ' $table)" -eq 16 ]
check table grep -q '^\*\*shifted\*\*, 24 examples' $table
check table grep -Eq '^\| ivon-1 \| 61 \| [0-9.e-]+ \|' $table
check page grep -q '</html>' kept/tweets300/report.html
expect again 0 '' methods quick
check again [ "$(grep -c training out)" -eq 0 ]

# What stands on a run is made again when the run is.
cp $cells/laplace-1.json before
expect based 0 '' env STEPS=3 sh "$bench/methods.sh" cell laplace 1
check based grep -q 'training adamw-1' out
check based [ "$(cmp -s before $cells/laplace-1.json; echo $?)" -eq 1 ]

expect search 0 '' env STEPS=3 sh "$bench/methods.sh" search blob
check search [ "$(grep -c '^| 1.5e-3_4 ' kept/search/blob/table.md)" -gt 0 ]
expect bora 0 '' env SET=bora sh "$bench/methods.sh" cell tau100 1
check bora grep -q '"perplexity"' kept/bora/cells/tau100-1.json
expect bora 0 '' env SET=bora sh "$bench/methods.sh" cell separate 1
expect bora 0 '' methods tables bora
check bora grep -q '^| against separate ' kept/bora/tables.md
check bora grep -q 'How close should the tasks be?' kept/bora/report.html
check bora [ "$(python3 -c 'import json
charts = json.load(open("kept/bora/tau.json"))["charts"]
print([c["title"] for c in charts], {line["name"] for c in charts for line in c["lines"]} == {"by tau", "apart"})')" = \
    "['the small tasks', 'tweets', 'amazon', 'movies', 'nyt'] True" ]
for row in separate tau1 tau10 tau100 tau1000 pooled; do
    expect choices 0 '' env SET=bora-choices sh "$bench/methods.sh" cell $row 1
done
expect choices 0 '' methods tables bora-choices
table=kept/bora-choices/tables.md
check choices [ "$(grep -c '^| NLL, tau | the small tasks | ' $table)" -eq 2 ] # of the tests, and to choose by
check choices [ "$(grep -c '^| one for all | [0-9.]* | ' $table)" -eq 2 ]
check choices [ "$(grep -c '^| against pooled ' $table)" -gt 0 ]
check choices grep -q 'How close should the tasks be?' kept/bora-choices/report.html
check choices [ "$(python3 -c 'import json
rows = [json.loads(line) for line in open("kept/data8/bora-choices-train.jsonl")]
print(sorted({row["task"] for row in rows}), all("choices" in row for row in rows))')" = \
    "['amazon', 'movies', 'nyt', 'tweets'] True" ]
# A pooled run is one adapter that answers for every task by its own loss, the mean over texts.
check pooled grep -q '"bora-mode": *"global"' kept/bora-choices/runs/pooled-1/summary.json
expect row 1 'no row nothing' methods cell nothing 1
expect set 1 'no set nothing' env SET=nothing sh "$bench/methods.sh" cell ivon 1
finish
