"""Whole runs of credence and of PyTorch + PEFT with equal settings, several seeds of each, as evaluations that
`credence compare` reads: are the two programs equivalent by its two one-sided tests?

Both sides of a seed start from the same adapter and take the same batches in the same order, without dropout; IVON draws
its own noise on either side. Warm-up and linear decay are those of credence. Test texts are answered by the point (of
IVON its mean). Runs that are there are not made again, so the seeds can be made in several sittings.
"""
import argparse
import json
import math
import os
import subprocess
import sys

import peer_common as common

common.offline()

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("hf_dir")
parser.add_argument("train", help="JSONL with question, choices, answer")
parser.add_argument("test", help="the same, with tasks")
parser.add_argument("program", help="credence")
parser.add_argument("model", help="GGUF file")
parser.add_argument("out", help="directory of the runs")
parser.add_argument("--method", choices=["adamw", "ivon"], default="adamw")
parser.add_argument("--lr", type=float, required=True)
parser.add_argument("--epochs", type=int, default=4)
parser.add_argument("--batch", type=int, default=8)
parser.add_argument("--warmup", type=float, default=0.06)
parser.add_argument("--ess", type=float, default=3e5)
parser.add_argument("--hess-init", type=float, default=1e-3)
parser.add_argument("--clip-radius", type=float, default=1e-3)
parser.add_argument("--seeds", type=common.numbers, default=[1, 2, 3])
parser.add_argument("--in-domain", default="tweets")
parser.add_argument("--threads", type=int, default=2)
args = parser.parse_args()

import ivon
import torch

from peer_model import Questions, with_adapter
from peer_philox import epoch_order

RANK, ALPHA, SHOWN = 8, 16, 32
torch.set_num_threads(args.threads)


class Peer:
    def __init__(self, seed):
        self.questions = Questions(args.hf_dir)
        self.model = with_adapter(args.hf_dir, torch.bfloat16, seed, RANK, ALPHA)
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.head = self.model.base_model.model.lm_head.weight

    def logits(self, batch):
        """[n][choices] of examples with equally many choices; padding stands in front."""
        prompts = [self.questions.prompt(e) for e in batch]
        length = max(map(len, prompts))
        ids = torch.tensor([[0] * (length - len(p)) + p for p in prompts])
        mask = torch.tensor([[0] * (length - len(p)) + [1] * len(p) for p in prompts])
        body = self.model.base_model.model.model
        last = body(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state[:, -1]
        return torch.nn.functional.linear(last, self.head[self.questions.labels[:len(batch[0]["choices"])]]).float()

    def train(self, examples, seed):
        per_epoch = -(-len(examples) // args.batch)
        n = per_epoch * args.epochs
        warm = math.ceil(args.warmup * n)
        if args.method == "adamw":
            optimiser = torch.optim.AdamW(self.parameters, lr=args.lr, weight_decay=0)
        else:
            optimiser = ivon.IVON(self.parameters, lr=args.lr, ess=args.ess, hess_init=args.hess_init,
                                  clip_radius=args.clip_radius, weight_decay=0, rescale_lr=False)
        self.model.train()
        for step in range(n):
            if step % per_epoch == 0:
                order = epoch_order(len(examples), seed, step // per_epoch)
            batch = [examples[i] for i in order[step % per_epoch * args.batch:][:args.batch]]
            answers = torch.tensor([e["answer"] for e in batch])
            for group in optimiser.param_groups:
                group["lr"] = args.lr * (step / warm if step < warm else (n - step) / (n - warm))
            optimiser.zero_grad()
            if args.method == "adamw":
                torch.nn.functional.cross_entropy(self.logits(batch), answers).backward()
            else:
                with optimiser.sampled_params(train=True):
                    torch.nn.functional.cross_entropy(self.logits(batch), answers).backward()
            optimiser.step()

    @torch.no_grad()
    def answer(self, examples):
        """Probabilities of the choices, example by example."""
        self.model.eval()
        found = [None] * len(examples)
        by_length = sorted(range(len(examples)), key=lambda i: len(examples[i]["question"]))
        for at in range(0, len(by_length), SHOWN):
            part = by_length[at:at + SHOWN]
            for i, probs in zip(part, self.logits([examples[i] for i in part]).double().softmax(-1).tolist()):
                found[i] = probs
        return found


def columns(examples, found, of):
    """What `credence eval --json` keeps of each example; places of tasks and lines as in its own file."""
    rows = []
    for example, probs, line, task in zip(examples, found, of["line"], of["task"]):
        best = max(range(len(probs)), key=probs.__getitem__)
        rows.append({"line": line, "task": task, "nll": -math.log(max(probs[example["answer"]], 1e-300)),
                     "prediction": best, "correct": int(best == example["answer"]), "confidence": probs[best],
                     "brier": sum((p - (i == example["answer"])) ** 2 for i, p in enumerate(probs)),
                     "entropy": -sum(p * math.log(p) for p in probs if p > 0)})
    return {name: [row[name] for row in rows] for name in rows[0]}


def ours(start, seed, name):
    run = os.path.join(args.out, name)
    common_flags = ["-m", args.model, "-t", str(args.threads), "--quiet"]
    command = [args.program, "finetune", *common_flags, "-d", args.train, "-a", start, "-o", run, "--force", "--method",
               args.method, "--lr", str(args.lr), "--epochs", str(args.epochs), "--batch-size", str(args.batch), "--warmup",
               str(args.warmup), "--max-grad-norm", "0", "--no-valid", "--keep", "last", "--seed", str(seed)]
    if args.method == "ivon":
        command += ["--ess", str(args.ess), "--hess-init", str(args.hess_init), "--clip-radius", str(args.clip_radius)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    mean = ["--mean"] if args.method == "ivon" else []
    subprocess.run([args.program, "eval", *common_flags, "-a", run, "-d", args.test, *mean, "--json", run + ".json"],
                   check=True, stdout=subprocess.DEVNULL)


def theirs(peer, seed, own_file, path):
    peer.train(common.load_examples(args.train, 0), seed)
    examples = common.load_examples(args.test, 0)
    own = json.load(open(own_file, encoding="utf-8"))
    record = {"model": own["model"], "method": args.method, "samples": 1, "data": own["data"],
              "examples": columns(examples, peer.answer(examples), own["examples"])}
    with open(path, "w", encoding="utf-8") as f:
        json.dump(record, f)


os.makedirs(args.out, exist_ok=True)
files = {"credence": [], "peft": []}
for seed in args.seeds:
    names = {side: f"{args.method}-{side}-{seed}" for side in files}
    paths = {side: os.path.join(args.out, name + ".json") for side, name in names.items()}
    if not all(map(os.path.exists, paths.values())):
        start = os.path.join(args.out, f"start-{seed}")
        peer = Peer(seed)
        peer.model.save_pretrained(start)
        ours(start, seed, names["credence"])
        theirs(peer, seed, paths["credence"], paths["peft"])
        print(f"seed {seed}: done", flush=True)
    for side in files:
        files[side].append(paths[side])
rows = [f"{side}={','.join(paths)}" for side, paths in files.items()]
sys.exit(subprocess.run([args.program, "compare", *rows, "--in-domain", args.in_domain]).returncode)
