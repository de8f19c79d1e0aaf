"""Twenty training steps of credence in float32 against ivon-opt's IVON and torch's AdamW over a PyTorch model.

Both sides start from the same adapter, take the same batches in the same order, without dropout, and IVON sees the same
noise (peer_philox.py). The base is a Hugging Face folder with the weights of the GGUF file dequantised to float32.
Compared are means and, of IVON, Hessians: norm of the difference over the norm of the peer's, over all matrices (this is
what the bound is for) and for the worst one; beside it what twenty steps changed and the difference over that. A step of
IVON is clipped nearly everywhere, so where a gradient lies within rounding of 0 its sign decides a whole step: that is
most of what differs in the mean. Exit 1 when a mean or Hessian differs by more than the bound.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile

import peer_common as common

common.one_thread()

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("hf_dir")
parser.add_argument("data", help="JSONL with question, choices, answer")
parser.add_argument("program", help="credence")
parser.add_argument("model", help="GGUF file")
parser.add_argument("--steps", type=int, default=20)
parser.add_argument("--batch", type=int, default=4)
parser.add_argument("--epoch", type=int, default=12, help="examples, a multiple of the batch")
parser.add_argument("--seed", type=int, default=7)
parser.add_argument("--cpu", default="avx2", help="tier of credence; one that computes in float32 [avx2]")
parser.add_argument("--bound", type=float, default=1e-4)
parser.add_argument("--method", choices=["ivon", "adamw", "both"], default="both")
args = parser.parse_args()
if args.epoch % args.batch:
    sys.exit("--epoch is no multiple of --batch")

import ivon
import torch
from safetensors.torch import load_file

from peer_model import Questions, with_adapter
from peer_philox import TRAINING_NOISE, epoch_order, normals

PROJ = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
RANK, ALPHA, IVON_LR, ADAMW_LR, ESS, HESS_INIT, CLIP = 8, 16, 0.2, 2e-4, 3e5, 1e-3, 1e-3

torch.set_num_threads(1)


class Peer:
    """The PyTorch side: model, adapter, batches."""

    def __init__(self):
        questions = Questions(args.hf_dir)
        self.model = with_adapter(args.hf_dir, torch.float32, 0, RANK, ALPHA)
        self.head_dim = self.model.config.hidden_size // self.model.config.num_attention_heads
        self.parameters = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        for name, p in self.parameters.items():
            if "lora_B" in name:  # at 0 it would leave A without a gradient
                torch.nn.init.normal_(p, std=0.02)
        self.start = {name: p.detach().clone() for name, p in self.parameters.items()}
        self.examples = common.load_examples(args.data, args.epoch)
        self.labels = questions.labels
        self.prompts = [questions.prompt(e) for e in self.examples]

    def reset(self):
        for name, p in self.parameters.items():
            p.data = self.start[name].clone()

    def batch_gradient(self, step):
        """Leaves the gradient of the mean loss of a step's batch; texts go one a pass, so no padding enters."""
        per_epoch = args.epoch // args.batch
        order = epoch_order(args.epoch, args.seed, step // per_epoch)
        for p in self.parameters.values():
            p.grad = None
        for i in order[step % per_epoch * args.batch:][:args.batch]:
            labels = self.labels[:len(self.examples[i]["choices"])]
            logits = self.model(input_ids=torch.tensor([self.prompts[i]]), logits_to_keep=1).logits[0, -1, labels]
            answer = torch.tensor(self.examples[i]["answer"])
            (torch.nn.functional.cross_entropy(logits, answer) / args.batch).backward()

    def noise(self, step):
        """Unit normals of a step in the order of the parameters; rows of q's B stand otherwise in the GGUF file."""
        out = []
        for name, p in self.parameters.items():
            parts = name.split(".")
            layer, proj = int(parts[parts.index("layers") + 1]), parts[-4]
            tensor = 2 * (7 * layer + PROJ.index(proj)) + ("lora_B" in name)
            eps = torch.from_numpy(normals(p.numel(), [args.seed, TRAINING_NOISE], step, 0, tensor)).view(p.shape)
            if "lora_B" in name and proj == "q_proj":  # gguf_row[2j + s] = hf_row[s d/2 + j] in every head
                eps = eps.view(-1, self.head_dim // 2, 2, RANK).transpose(1, 2).reshape(p.shape)
            out.append(eps.flatten())
        return torch.cat(out)

    def adamw(self):
        self.reset()
        optimiser = torch.optim.AdamW(self.parameters.values(), lr=ADAMW_LR, weight_decay=0)
        for step in range(args.steps):
            self.batch_gradient(step)
            optimiser.step()
        return {name: p.detach().clone() for name, p in self.parameters.items()}, None

    def ivon(self):
        self.reset()
        optimiser = ivon.IVON(self.parameters.values(), lr=IVON_LR, ess=ESS, hess_init=HESS_INIT, clip_radius=CLIP,
                              weight_decay=0, rescale_lr=False)
        randn = torch.randn
        for step in range(args.steps):
            torch.randn = lambda *_, step=step, **__: self.noise(step)
            with optimiser.sampled_params(train=True):
                self.batch_gradient(step)
            optimiser.step()
        torch.randn = randn
        hess, at, found = optimiser.param_groups[0]["hess"], 0, {}
        for name, p in self.parameters.items():
            found[name] = hess[at:at + p.numel()].view(p.shape)
            at += p.numel()
        return {name: p.detach().clone() for name, p in self.parameters.items()}, found


def ours(method, peer, scratch):
    """Means and Hessians of the same run by credence, by PEFT's names of its model."""
    start, output, data = (os.path.join(scratch, name) for name in ("start", method, "data.jsonl"))
    with open(data, "w", encoding="utf-8") as f:
        f.writelines(json.dumps(e, ensure_ascii=False) + "\n" for e in peer.examples)
    peer.reset()
    peer.model.save_pretrained(start)
    command = [args.program, "finetune", "-m", args.model, "-d", data, "-a", start, "-o", output, "--method", method,
               "--steps", str(args.steps), "--batch-size", str(args.batch), "--lr-schedule", "constant", "--warmup", "0", "--max-grad-norm", "0",
               "--no-valid", "--keep", "last", "--seed", str(args.seed), "--cpu", args.cpu, "-t", "1", "--quiet"]
    if method == "ivon":
        command += ["--lr", str(IVON_LR), "--ess", str(ESS), "--hess-init", str(HESS_INIT), "--clip-radius", str(CLIP)]
    else:
        command += ["--lr", str(ADAMW_LR)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    mean = load_file(os.path.join(output, "adapter_model.safetensors"))
    posterior = load_file(os.path.join(output, "posterior.safetensors")) if method == "ivon" else {}
    means, hessians = {}, {}
    for name in peer.parameters:
        plain = name.replace(".default", "")
        means[name] = mean[plain]
        if method == "ivon":
            hessians[name] = posterior[plain + ".hess"]
    return means, hessians or None


def norm(tensors):
    return float(sum(t.double().square().sum() for t in tensors) ** 0.5)


def compare(what, own, theirs, start):
    """Prints how far they are from each other; returns the difference over all matrices."""
    names = list(theirs)
    apart = {n: own[n].double() - theirs[n].double() for n in names}
    moved = {n: theirs[n].double() - start[n].double() for n in names}
    whole = norm(apart.values()) / norm(theirs.values())
    each = {n: norm([apart[n]]) / norm([theirs[n]]) for n in names}
    worst = max(each, key=each.get)
    change = norm(moved.values())
    print(f"{what}: differs by {whole:.2e} of its norm, worst matrix {each[worst]:.2e} ({worst.split('layers.')[1]}); "
          f"{change / norm(start.values()):.2e} of it changed, {norm(apart.values()) / change:.2e} of that differs",
          flush=True)
    return whole


peer = Peer()
failed = False
print(f"{args.steps} steps of {args.batch}, {len(peer.parameters)} matrices, credence --cpu {args.cpu}, "
      f"torch {torch.__version__}", flush=True)
with tempfile.TemporaryDirectory() as scratch:
    for method in ("ivon", "adamw") if args.method == "both" else (args.method,):
        means, hessians = ours(method, peer, scratch)
        their_means, their_hessians = getattr(peer, method)()
        apart = compare(f"{method} mean", means, their_means, peer.start)
        if hessians:
            flat = {n: torch.full_like(h, HESS_INIT) for n, h in their_hessians.items()}
            apart = max(apart, compare(f"{method} Hessian", hessians, their_hessians, flat))
        failed = failed or not apart <= args.bound
print(f"bound {args.bound:.1e}: {'exceeded' if failed else 'kept'}")
sys.exit(failed)
