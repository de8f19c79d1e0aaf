"""The GGUF adapter in llama.cpp (llama-cpp-python, lora_path=): label probabilities against `credence predict`.

llama.cpp quantises activations to 8 bits for its integer products, so it agrees only roughly: the mean difference of a
probability must stay below the bound. No BOS is added. Exit 1 otherwise.
"""
import argparse
import math
import os
import sys

import peer_common as common

common.one_thread()

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("adapter_dir", help="directory with adapter.gguf")
parser.add_argument("data", help="JSONL with question, choices, answer")
parser.add_argument("program", help="credence")
parser.add_argument("model", help="GGUF file")
parser.add_argument("-n", type=int, default=32, help="examples compared, from the top of the file; 0 = all")
parser.add_argument("--cpu", default=None, help="tier of credence [the best one]")
parser.add_argument("--bound", type=float, default=0.06)
parser.add_argument("--base", action="store_true", help="leave the adapter away on both sides: isolates the base model")
args = parser.parse_args()
adapter = None if args.base else os.path.join(args.adapter_dir, "adapter.gguf")
if adapter and not os.path.isfile(adapter):
    sys.exit(f"{adapter}: no such file")  # llama-cpp-python crashes on it

from llama_cpp import Llama

examples = common.load_examples(args.data, args.n)
ours = common.predict(args.program, args.model, None if args.base else args.adapter_dir, examples, args.cpu)


def softmax(logits):
    top = max(logits)
    powers = [math.exp(z - top) for z in logits]
    return [p / sum(powers) for p in powers]


def label_probabilities(lora_path):
    """Restricted softmax over the labels of every example."""
    llama = Llama(model_path=args.model, lora_path=lora_path, n_ctx=2048, n_batch=512, n_threads=1, n_threads_batch=1,
                  logits_all=True, verbose=False)
    labels = [llama.tokenize((" " + letter).encode(), add_bos=False, special=False) for letter in common.LETTERS]
    out = []
    for example in examples:
        ids = llama.tokenize(common.prompt(example).encode(), add_bos=False, special=False)
        llama.reset()
        llama.eval(ids)
        last = llama.scores[len(ids) - 1]
        out.append(softmax([float(last[labels[i][0]]) for i in range(len(example["choices"]))]))
    return out


theirs = label_probabilities(adapter)
plain = theirs if args.base else label_probabilities(None)
differences, shifts, same = [], [], 0
for record, them, without in zip(ours, theirs, plain):
    differences += [abs(a - b) for a, b in zip(record["probs"], them, strict=True)]
    shifts += [abs(a - b) for a, b in zip(them, without)]
    same += record["prediction"] == them.index(max(them))
mean = sum(differences) / len(differences)
print(f"{len(examples)} examples, {len(differences)} label probabilities, same prediction in {same}")
if not args.base:
    print(f"the adapter moves them by {sum(shifts) / len(shifts):.3g} in the mean, {max(shifts):.3g} at most")
print(f"mean |difference| {mean:.3g}, max {max(differences):.3g}, bound on the mean {args.bound:.3g}")
sys.exit(0 if mean <= args.bound else 1)
