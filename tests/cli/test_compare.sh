#!/bin/sh
# compare from outside: operands, tables, JSON, page, refusals that leave nothing behind.
. "$(dirname "$0")/lib.sh"
"$make_model" model m.gguf || exit 1
questions 0 12 'Is % even?' ', "task": "t#"' >d.jsonl
head -n 11 d.jsonl >e.jsonl

evaluate() {
    "$credence" eval -m m.gguf -t 1 --quiet "$@" >/dev/null
}
for name in a b c d; do
    check evaluate evaluate -d d.jsonl --json $name.json
done
check evaluate evaluate -d e.jsonl --json other.json
check evaluate evaluate -d d.jsonl --json bare.json --no-examples
check bare [ "$(grep -c '"examples"' a.json bare.json | tr '\n' ' ')" = 'a.json:1 bare.json:0 ' ]

expect two 0 '' "$credence" compare a.json b.json --json cmp.json --report r.html
check two grep -q '^d.jsonl: 12 examples\. Intervals of 95 % by 2000 resamples of examples\.' out
check two [ "$(grep -c '^\*\*' out)" -eq 3 ]
check two grep -q '^| against a.json |' out
check two grep -q '^| b.json .* equivalent | equivalent |$' out
check two grep -q '"low90": 0.0' cmp.json
check page grep -q '</html>' r.html
check page grep -q 'a.json said <b>' r.html
cp cmp.json lines.json
expect charts 2 '--json and --charts are the same' "$credence" compare a.json b.json --charts lines.json --json lines.json
expect charts 2 '--report and --charts are the same' "$credence" compare a.json b.json --charts lines.json --report lines.json
check charts cmp -s cmp.json lines.json
expect seeds 0 '' "$credence" compare one=a.json,b.json two=c.json,d.json --in-domain t1 --margin-nll 1e-9
check seeds grep -q '12 examples, 2 seeds\. .* resamples of seeds and examples\.' out
check seeds grep -q '^\*\*shifted\*\*, 6 examples$' out
check seeds grep -q '^| against one |' out
cp a.json 'x=y,z.json'
expect plain 0 '' "$credence" compare 'x=y,z.json' b.json
check plain grep -q '^| against x=y,z.json |' out

expect one 2 'compare' "$credence" compare a.json
expect uneven 2 'as many seeds as the first' "$credence" compare a.json,b.json c.json
expect twice 2 'a.json stands twice' "$credence" compare a.json,a.json b.json,c.json
expect other 3 'other.json is of another test file than a.json' "$credence" compare a.json other.json
expect bare 3 'bare.json: no examples in it' "$credence" compare a.json bare.json
expect model 3 'm.gguf' "$credence" compare a.json m.gguf
expect absent 4 'nowhere.json' "$credence" compare a.json b=nowhere.json
expect margin 2 'margin-nll' "$credence" compare a.json b.json --margin-nll 0
expect domain 2 'no task "t7"' "$credence" compare a.json b.json --in-domain t0,t7
cp a.json before
expect kept 2 'the same file' "$credence" compare a.json b.json --json a.json
check kept cmp -s before a.json
expect full 4 'standard output' sh -c "'$credence' compare a.json b.json >/dev/full"
check temporaries [ "$(find . -name '*.tmp.*' | wc -l)" -eq 0 ]
finish
