"""What each rounding to bf16 costs the adapter gradients, everything else float32: the floor of bf16 operands.

Sources, switched on one by one and together:
  weights    W of every linear layer (the head too, for the language model)
  inputs     X of every linear layer, as the products and dA see it
  gradients  dY where it is multiplied by W^T (dA and dB see it unrounded)
  saved      gate and up as the backward of silu(gate) * up sees them
A single matrix is one draw of the rounding noise. --draws N repeats each row with values scaled by another constant in
[1, 2) before rounding and back after it (same size of errors, other errors), so that chance shows: the first draw
is plain rounding, then the median and the largest over the draws are printed.
"""
import argparse

import peer_common as common

common.one_thread()

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("hf_dir")
parser.add_argument("reference", help="smollm2.json")
parser.add_argument("passage", help="JSONL whose first 14 questions, joined by one space, are the passage")
parser.add_argument("--kind", default="classification_grad", choices=["classification_grad", "lm_grad"])
parser.add_argument("--only", help="one combination, such as weights+inputs")
parser.add_argument("--draws", type=int, default=1)
parser.add_argument("--matrix", default="29,q_proj,A", help="a matrix shown on its own: layer,proj,A or B")
args = parser.parse_args()

import statistics

import torch

from reference_case import Case, Elements, rms

torch.set_num_threads(1)
SOURCES = ["weights", "inputs", "gradients", "saved"]
ROWS = [[s] for s in SOURCES] + [["weights", "inputs"], ["weights", "inputs", "gradients"], SOURCES]


class Round:
    """Rounding to bf16 of values times `scale`."""

    def __init__(self, scale):
        self.scale = scale

    def __call__(self, x):
        return (x * self.scale).bfloat16().float() / self.scale


class RoundForward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, rounding):
        return rounding(x)

    @staticmethod
    def backward(ctx, g):
        return g, None


class RoundBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, rounding):
        ctx.rounding = rounding
        return x.view_as(x)

    @staticmethod
    def backward(ctx, g):
        return ctx.rounding(g), None


class SwiGLU(torch.autograd.Function):
    """silu(g) * u whose backward sees rounded g and u."""

    @staticmethod
    def forward(ctx, g, u, rounding):
        ctx.save_for_backward(rounding(g), rounding(u))
        return torch.nn.functional.silu(g) * u

    @staticmethod
    def backward(ctx, dh):
        g, u = ctx.saved_tensors
        s = torch.sigmoid(g)
        return dh * u * s * (1 + g * (1 - s)), dh * g * s, None


def install(model, sources, rounding, with_head):
    """Hooks on the outermost module of every projection: X; on the plain product inside it: W and dY."""
    modules = dict(model.named_modules())
    leaves = {n: m for n, m in modules.items() if type(m) is torch.nn.Linear and "lora_" not in n}
    for leaf, module in leaves.items():
        if leaf.endswith("lm_head") and not with_head:
            continue
        if "weights" in sources:
            # a new parameter: the head shares its storage with the embedding, which is not rounded
            module.weight = torch.nn.Parameter(rounding(module.weight.detach()), requires_grad=False)
        if "gradients" in sources:
            module.register_forward_hook(lambda m, x, y: RoundBackward.apply(y, rounding))
        if "inputs" in sources:
            outer = modules[leaf.removesuffix(".base_layer")]
            outer.register_forward_pre_hook(lambda m, x: (RoundForward.apply(x[0], rounding), *x[1:]))
    for module in modules.values():
        if "saved" in sources and type(module).__name__ == "LlamaMLP":
            module.forward = lambda x, m=module: m.down_proj(SwiGLU.apply(m.gate_proj(x), m.up_proj(x), rounding))


case = Case(args.hf_dir, args.reference, args.passage)
layer, proj, mat = args.matrix.split(",")
shown = int(layer), proj, mat
exact_loss, _, exact = case.gradients(torch.float32, args.kind)
print(f"{args.kind}, errors relative; norm/probe over the reference matrices, elements over all, {args.draws} draw(s): "
      "plain rounding / median / largest")
print(f"{'rounded':36} {'loss':26} {'norm/probe worst':24} {'norm/probe rms':24} {args.matrix + ' norm/probe':24} "
      f"{args.matrix + ' elements':24} {'elements, whole':24}")
for sources in [args.only.split("+")] if args.only else ROWS:
    columns = []
    for draw in range(args.draws):
        rounding = Round(2 ** (draw / args.draws))
        loss, _, grads = case.gradients(torch.float32, args.kind,
                                        lambda m: install(m, sources, rounding, args.kind == "lm_grad"))
        errors = case.errors(args.kind, grads)
        elements = Elements(grads, exact)
        one = [e[0] for e in errors if e[3] == shown]
        columns.append([abs(loss / exact_loss - 1), max(errors)[0], rms(e[0] for e in errors), *one,
                        elements.each[shown], elements.whole])
    cells = [f"{c[0]:.2g} / {statistics.median(c):.2g} / {max(c):.2g}" for c in zip(*columns)]
    print(f"{'+'.join(sources):36} {cells[0]:26} " + " ".join(f"{c:24}" for c in cells[1:]), flush=True)
