#!/bin/sh
# A posterior from outside: training, draws, means, exports, mixtures, refusals.
. "$(dirname "$0")/lib.sh"
"$make_model" model m.gguf || exit 1
questions 0 20 'Is % even or is it odd?' >d.jsonl
i=0
while [ $i -lt 12 ]; do
    echo "{\"question\": \"$i?\", \"choices\": [\"a\", \"b\", \"c\"], \"answer\": $((i % 3))}"
    i=$((i + 1))
done >o.jsonl

tune() {
    "$credence" finetune -m m.gguf -d d.jsonl --steps 4 -t 2 "$@"
}
score() {
    command=$1
    shift
    "$credence" "$command" -m m.gguf -d d.jsonl -t 1 "$@"
}

expect train 0 'sigma0' tune -o ivon --method ivon
for file in adapter_config.json adapter_model.safetensors adapter.gguf posterior.safetensors summary.json; do
    check train [ -s "ivon/$file" ]
done
check facts grep -q '"sigma0_over_std_a"' ivon/summary.json
share=$(sed -n 's/.*"clipped_share": \([0-9.e-]*\).*/\1/p' ivon/summary.json)
share=$(awk "BEGIN { printf \"%.2f\", 100 * $share }")
check facts grep -q "sigma0 .* times the spread of A; ess .* times the targets; $share % of the updates were cut" err
expect train 0 'train 4/4' tune -o point
check train [ ! -e point/posterior.safetensors ]
expect resume 0 'nothing to do' tune -o ivon --method ivon --resume
expect preset 0 'ess 1e+06' tune -o paper --method ivon --preset paper

expect info 0 '' "$credence" info ivon
check info grep -q '^posterior  supported$' out
check info grep -q '^ *ivon, ess 300000 for A and 300000 for B, weight decay 0$' out
expect swag 0 '3 snapshots' tune -o swag --method swag --swag-start 0.25 --swag-every 1 --swag-rank 2
expect info 0 '' "$credence" info swag
check info grep -q '^ *swag, 3 snapshots, rank 2 of 2, scale \(0.5\|1\)$' out
expect swag 0 '3 sets of weights' score eval -a swag --samples 3
expect swag 2 'no spread' tune -o none --method swag --swag-start 0.7
expect swag 0 '2 snapshots, one every 1 steps after step 2, rate 0.0005$' \
    tune -o few --method swag --swag-start 0.5 --swag-schedule cosine
check swag grep -q '"swag-schedule": "cosine"' few/summary.json
check swag grep -q '"head": "frozen"' few/summary.json

# The paper's: an epoch is three steps, of the twelve six come before the snapshots.
as_paper() {
    "$credence" finetune -m m.gguf --steps 12 --batch-size 8 -t 2 --method swag --preset paper --report-every 1 "$@"
}
expect paper 0 'one every 3 steps after step 6, rate 3e-05, from the best validation before on, label rows trained' \
    as_paper -d d.jsonl -o heads
check paper grep -q 'without the trained label rows' err
check paper [ ! -e heads/adapter.gguf ]
check paper grep -q 'back to the weights of step [36], validation loss' err
check paper grep -q '"nll_model_head"' heads/summary.json
expect paper 0 'nothing to do' as_paper -d d.jsonl -o heads --resume
expect paper 0 '3 sets of weights' score eval -a heads --samples 3
check paper grep -q '^method swag, ' out
expect paper 0 '1 set of weights' score eval -a heads --mean
expect info 0 '' "$credence" info heads
check info grep -q '^ *swag, 2 snapshots, rank 1 of 5, scale 1, 2 label rows$' out
expect paper 2 'for which a GGUF adapter has no place: --drop-head' \
    "$credence" export -a heads --mean --format gguf -o none.gguf
expect paper 0 'held-out NLL of the mean [0-9.]* with them, [0-9.]* without' \
    "$credence" export -a heads --sample 1 --drop-head --format gguf -o half.gguf
expect paper 0 'label rows of its own, which are not here' tune -o on -a heads --no-valid
printf '{"text": "one two three %d"}\n' 1 2 3 4 5 6 7 8 9 >t.jsonl
expect paper 0 'from the best validation before on$' as_paper -d t.jsonl -o plain
expect head 2 't.jsonl: trained label rows need questions with choices, not texts' as_paper -d t.jsonl -o none --swag-head trained
expect head 2 '--head-lr 0.1: the label rows of the model stay frozen' tune -o none --method swag --head-lr 0.1
expect from 2 '--no-valid leaves nothing for --swag-from best' tune -o none --method swag --swag-from best --no-valid
expect from 2 '--swag-from best: no validation in the first 2' tune -o none --method swag --swag-start 0.5 --swag-from best --eval-every 4
check head [ ! -e none ]
check forced [ -e few/adapter.gguf ]
expect forced 0 'label rows trained' tune -o few --method swag --swag-start 0.5 --swag-head trained --force
check forced [ ! -e few/adapter.gguf ]

expect blob 0 'prior sigma 0.2' tune -o blob --method blob
check blob grep -q '"sigma_over_rms_a"' blob/summary.json
expect blob 0 'the paper adapts the output head too' tune -o blob-paper --method blob --preset paper
expect info 0 '' "$credence" info blob
check info grep -q '^ *blob, prior sigma 0.2$' out
expect blob 0 '3 sets of weights' score eval -a blob --samples 3
expect blob 0 '' "$credence" export -a blob --sample 1 --format gguf -o blob.gguf
expect blob 0 '' "$credence" export -a blob --mean -o blob-mean
expect blob 0 '1 set of weights' score eval -a blob-mean
check blob grep -q '^method blob-mean, ' out
expect blob 2 '--dropout 0.1: method blob' tune -o none --method blob --dropout 0.1
expect blob 2 '--prior-std: expected a number above 0' tune -o none --method blob --prior-std 0
expect blob 2 '--kl-lr' tune -o none --kl-lr 0.1

lay() {
    "$credence" laplace -m m.gguf -d d.jsonl -t 1 "$@"
}
expect laplace 0 'point/valid.jsonl, held out by the run of the adapter, chooses the prior precision' lay -a point -o laplace
check laplace grep -q '^curvature of 18 examples, ' out # of 20: the run held out a tenth
check laplace grep -q '^prior precision .*, log-likelihood .*, evidence ' out
check laplace grep -q '^validation NLL .*, of the point ' out
expect laplace 0 'eval 18/18' lay -a point -o by-evidence --no-valid
check laplace sh -c '! grep -q "^validation NLL" out && grep -q "\"evidence\"" by-evidence/summary.json'
expect laplace 2 '--valid and --no-valid exclude each other' lay -a point -o none --valid o.jsonl --no-valid
for file in adapter_config.json adapter_model.safetensors adapter.gguf posterior.safetensors summary.json; do
    check laplace [ -s "laplace/$file" ]
done
check laplace cmp -s laplace/adapter.gguf point/adapter.gguf
expect info 0 '' "$credence" info laplace
check info grep -q '^ *laplace, curvature of 18 examples, prior precision ' out
expect laplace 0 '1 set of weights' score eval -a laplace --json j.json
check laplace grep -q '^  "samples": 10000,' j.json
expect laplace 0 '3 sets of weights' score eval -a laplace --weights --samples 3
expect laplace 0 'eval 20/20' score predict -a laplace --calibrate o.jsonl
check laplace [ "$(grep -c '"calibrated":' out)" -eq 20 ]
expect laplace 0 '' "$credence" export -a laplace --sample 1 -o laplace-draw
expect laplace 0 '1 set of weights' score eval -a laplace-draw
check laplace grep -q '^method laplace-sample, ' out
expect laplace 0 '' score eval -a laplace --quiet
check laplace grep -q '^10000 draws of the linearised model: entropy [0-9.]*, of which [0-9.]* by their disagreement' out
check laplace [ "$(grep -c '"mutual_information": [0-9]' j.json)" -ge 1 ]
expect laplace 2 '--force' lay -a point -o laplace
expect laplace 4 'its parent does not exist' lay -a point -o nowhere/laplace
expect laplace 2 'of method ivon; Laplace wants' lay -a ivon -o none
expect laplace 2 'adapter' lay -o none
expect laplace 2 '--prior-precision: expected a number above 0' lay -a point -o none --prior-precision 0
expect laplace 2 'exclude each other' lay -a point -o none --prior-precision 1 --valid o.jsonl
expect laplace 2 '--valid is the same file as --data' lay -a point -o none --valid ./d.jsonl
expect laplace 2 '--weights: point is no Laplace posterior' score eval -a point --weights
expect laplace 2 'answers alone' score eval -a laplace -a point
check laplace [ ! -e none ]

expect samples 0 '4 sets of weights' score eval -a ivon --samples 4 --ood o.jsonl --json j.json
check samples grep -q '^4 sets of weights: entropy ' out
check samples grep -q '^elsewhere: 12 examples, AUROC ' out
check samples grep -q '^  "samples": 4,' j.json
expect own 0 '10 sets of weights' score eval -a ivon
expect mean 0 '1 set of weights' score eval -a ivon --mean
expect mixture 0 '2 sets of weights' score eval -a ivon -a point --mean --report r.html
check mixture grep -q -- '--adapter ivon' r.html
check mixture grep -q -- '--adapter point' r.html
expect predict 0 '3 sets' score predict -a ivon --samples 3 --posterior-temperature 2 --seed 4
check predict [ "$(grep -c '"members":3' out)" -eq 20 ]
mv out first
expect predict 0 '3 sets' score predict -a ivon --samples 3 --posterior-temperature 2 --seed 4 --batch-size 3
check predict cmp -s first out

head -n 8 d.jsonl | sed 's/even or/odd or/' >v.jsonl
expect calibrate 0 'eval 20/20' score eval -a ivon --calibrate v.jsonl --json j.json
check calibrate grep -q '^calibrated: temperature .* fitted on 8 examples (their NLL ' out
check calibrate [ "$(grep -c '^all  *20 ' out)" -eq 2 ]
check calibrate grep -q '^  "calibration": ' j.json
expect calibrate 0 '' "$credence" compare raw=j.json cooler=j.json@calibrated
check calibrate grep -q '^| against raw |' out
expect calibrate 0 'eval 20/20' score predict -a point --calibrate v.jsonl
check calibrate [ "$(grep -c '"calibrated":\[' out)" -eq 20 ]
expect calibrate 2 'same file as --data' score eval -a ivon --calibrate ./d.jsonl
expect calibrate 4 'nowhere' score eval -a ivon --calibrate nowhere

expect export 0 '' "$credence" export -a ivon --mean --format gguf -o mean.gguf
check export cmp -s mean.gguf ivon/adapter.gguf
expect export 0 '' "$credence" export -a ivon --sample 2 -o draw
check export [ -s draw/adapter_model.safetensors ]
expect draw 0 '1 set of weights' score eval -a draw
check draw grep -q '^method ivon-sample, ' out

for value in 0 -1 x; do expect S 2 '--samples: expected a whole number from 1' score eval -a ivon --samples $value; done
for value in 0 -1 nan; do
    expect T 2 '--posterior-temperature: expected a number above 0' score eval -a ivon --posterior-temperature $value
done
expect point 2 '--samples 2: point is one set of weights' score eval -a point --samples 2
expect mean 2 '--mean is one set of weights' score eval -a ivon --mean --samples 2
expect uneven 2 'a mixture needs as many of each' score eval -a ivon -a point
expect export 2 '--sample: point is one set' "$credence" export -a point --sample 0 -o none
expect export 2 'exclude each other' "$credence" export -a ivon --sample 0 --mean -o none
expect twice 2 '--adapter is given twice' "$credence" export -a ivon -a point -o none
check export [ ! -e none ]

expect prefix 0 'prefix: 3 vertices of 4 rows a layer and of label rows' \
    tune -o prefix --method prefix --prefix-length 4 --valid-draws 2 --eval-every 2
check prefix grep -q 'label rows are in its posterior.safetensors' err
check prefix [ ! -e prefix/adapter.gguf ]
for file in adapter_config.json adapter_model.safetensors posterior.safetensors; do
    check prefix [ -s "prefix/$file" ]
done
check prefix grep -q '"path": \[' prefix/summary.json
expect prefix 0 'nothing to do' \
    tune -o prefix --method prefix --prefix-length 4 --valid-draws 2 --eval-every 2 --resume
expect page 0 'eval 20/20' score eval -a prefix --report p.html --json p.json
check page [ "$(grep -o 'vertex [0-2] to [0-2]' p.html | sort -u | wc -l)" -eq 3 ]
expect page 0 '' "$credence" compare one=p.json two=p.json --report both.html
check page grep -q 'two: between the vertices' both.html
cp -R prefix odd
sed 's/"vertex": 1/"vertex": 7/' prefix/summary.json >odd/summary.json
expect page 0 'eval 20/20' score eval -a odd --report odd.html
check page [ "$(grep -c 'vertex 0 to 1' odd.html)" -eq 0 ]
expect single 0 'prefix: 1 vertex of 40 rows a layer and of label rows, [0-9]* weights; validation at the centroid' \
    tune -o single --method prefix --vertices 1
expect turned 0 'prefix: 3 vertices' tune -o turned --method prefix --prefix-length 4 --lambda-per step --cosine-weight 1
check turned grep -q '"lambda-per": "step"' turned/summary.json
check turned grep -q '"cosine-weight": 1.0' turned/summary.json
check turned grep -q '"cosine_term": ' turned/summary.json
expect turned 8 'cosine-weight 1.0, now absent' \
    tune -o turned --method prefix --prefix-length 4 --lambda-per step --resume
expect turned 0 '2 sets of weights' score predict -a turned --samples 2
expect info 0 '' "$credence" info prefix
check info grep -q '^ *prefix, 3 vertices, 2 label rows each$' out
for flag in '--rank 8' '--alpha 16' '--dropout 0' '--targets all'; do
    expect lora 2 "${flag% *} has no meaning for --method prefix" tune -o none --method prefix $flag
done
expect flags 2 '--vertices belongs to --method prefix, not to adamw' tune -o none --vertices 2
expect flags 2 '--vertices: expected a whole number from 1 to 8' tune -o none --method prefix --vertices 0
expect preset 2 'name no settings' tune -o none --method prefix --preset paper
expect start 2 'starts from training texts' tune -o none --method prefix -a point
expect start 2 'cannot go on from' tune -o none -a prefix
expect centroid 0 '1 set of weights' score predict -a prefix
mv out first
expect centroid 0 '1 set of weights' score predict -a prefix --mean --seed 7
check centroid cmp -s first out
expect draws 0 '3 sets of weights' score predict -a prefix --samples 3
mv out first
expect draws 0 '3 sets of weights' "$credence" predict -m m.gguf -d d.jsonl -t 2 -a prefix --samples 3 --batch-size 1
check draws cmp -s first out
expect vertex 0 '1 set of weights' score eval -a prefix --vertex 2 --report r.html
check vertex grep -q '3 vertices of 4 rows' r.html
expect vertex 2 'has 3, counted from 0' score eval -a prefix --vertex 3
expect vertex 2 '--vertex 0: point is no prefix' score eval -a point --vertex 0
expect S 2 '--samples: expected a whole number from 1' score eval -a prefix --samples 0
expect S 2 '--samples 2: single is one set of weights' score eval -a single --samples 2
expect laplace 2 'Laplace wants an adapter that was trained to a point' "$credence" laplace -m m.gguf -d d.jsonl -a prefix -o none
expect gguf 2 'no GGUF form' "$credence" export -a prefix --format gguf -o none
expect export 0 'trained label rows have no place' "$credence" export -a prefix -o centroid
check export grep -q PREFIX_TUNING centroid/adapter_config.json
expect export 0 '1 set of weights' score eval -a centroid
check export grep -q '^method prefix-mean, ' out
check export [ ! -e none ]

cp paper/posterior.safetensors ivon/
expect info 0 '' "$credence" info ivon
check info grep -q '^posterior  not supported: .*its means are not the adapter' out
expect foreign 3 'its means are not the adapter beside it' score eval -a ivon
finish
