"""Adapters that credence writes, loaded unmodified by PEFT: label logits must agree with `credence predict`.

The base is a Hugging Face folder with the weights of the GGUF file dequantised to float32. Exit 1 when the largest
difference of a label logit exceeds the bound.
"""
import argparse
import sys

import peer_common as common

common.one_thread()

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("hf_dir")
parser.add_argument("adapter_dir")
parser.add_argument("data", help="JSONL with question, choices, answer")
parser.add_argument("program", help="credence")
parser.add_argument("model", help="GGUF file")
parser.add_argument("-n", type=int, default=32, help="examples compared, from the top of the file; 0 = all")
parser.add_argument("--cpu", default="avx2", help="tier of credence; bf16 tiers need a larger bound [avx2]")
parser.add_argument("--bound", type=float, default=1e-3)
parser.add_argument("--base", action="store_true", help="leave the adapter away on both sides: isolates the base model")
args = parser.parse_args()

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from peer_model import Questions

torch.set_num_threads(1)
examples = common.load_examples(args.data, args.n)
questions = Questions(args.hf_dir)
model = AutoModelForCausalLM.from_pretrained(args.hf_dir, dtype=torch.float32)
if not args.base:
    model = PeftModel.from_pretrained(model, args.adapter_dir)
model.eval()

ours = common.predict(args.program, args.model, None if args.base else args.adapter_dir, examples, args.cpu)
worst, worst_at, total, n_labels, shift = 0.0, -1, 0.0, 0, 0.0
with torch.inference_mode():
    for index, (example, record) in enumerate(zip(examples, ours)):
        n = len(example["choices"])
        ids = questions.prompt(example)
        theirs = model(input_ids=torch.tensor([ids])).logits[0, -1]
        theirs = [theirs[questions.labels[i]].item() for i in range(n)]
        differences = [abs(a - b) for a, b in zip(theirs, record["logits"], strict=True)]
        total += sum(differences)
        n_labels += n
        if max(differences) > worst:
            worst, worst_at = max(differences), index
        if not args.base:
            with model.disable_adapter():
                without = model(input_ids=torch.tensor([ids])).logits[0, -1]
            shift = max(shift, max(abs(theirs[i] - without[questions.labels[i]].item()) for i in range(n)))

print(f"{len(examples)} examples, {n_labels} label logits, credence --cpu {args.cpu}")
if not args.base:
    print(f"the adapter moves them by up to {shift:.3g}")
print(f"max |difference| {worst:.3g} (example {worst_at}), mean {total / n_labels:.3g}, bound {args.bound:.3g}")
if not args.base and shift < 10 * args.bound:
    sys.exit("the adapter changes too little for agreement to mean anything: train it longer")
sys.exit(0 if worst <= args.bound else 1)
