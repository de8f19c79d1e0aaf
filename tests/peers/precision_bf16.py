"""How far PyTorch's own bfloat16 is from float32 reference numbers: logits, losses and adapter gradients.

Answers what a bf16 implementation can be asked for. The model is loaded in --dtype, adapters stay float32 as PEFT keeps
them, filled by the formula of the reference file, no dropout. Gradients are compared by norm and probe with the
reference file and, with --full, element by element with a float32 run of the same code.
"""
import argparse

import peer_common as common

common.one_thread()

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("hf_dir")
parser.add_argument("reference", help="smollm2.json")
parser.add_argument("passage", help="JSONL whose first 14 questions, joined by one space, are the passage")
parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
parser.add_argument("--attn", default="sdpa", choices=["sdpa", "eager"])
parser.add_argument("--full", action="store_true", help="also element by element against a float32 run")
parser.add_argument("--each", action="store_true", help="one line a matrix")
args = parser.parse_args()

import torch

from reference_case import Case, Elements, name, rms

torch.set_num_threads(1)
dtype = getattr(torch, args.dtype)
case = Case(args.hf_dir, args.reference, args.passage, args.attn)


def report_forward():
    """Last-position logits of the reference texts and the mean NLL of the passage."""
    model = case.load(dtype).eval()
    head = model.lm_head.weight.detach().float()
    worst = {False: 0.0, True: 0.0}
    with torch.inference_mode():
        for want in case.reference["logits"]:
            hidden = model.model(input_ids=torch.tensor([want["ids"]])).last_hidden_state[0, -1]
            for f32_head in worst:
                z = (head @ hidden.float() if f32_head else model.lm_head(hidden)).float()
                ids = want["top_ids"] + case.reference["label_ids_A_to_E"]
                expected = want["top_logits"] + want["label_logits"]
                off = max(abs(z[i].item() - e) for i, e in zip(ids, expected))
                off = max(off, abs(torch.logsumexp(z, 0).item() - want["logsumexp"]))
                worst[f32_head] = max(worst[f32_head], off)
        ids = torch.tensor([case.passage])
        loss = model(input_ids=ids, labels=ids).loss.item()
    print(f"logits: off by at most {worst[False]:.3g}; with the last product in float32 {worst[True]:.3g}")
    error = abs(loss / case.reference["lm"]["mean_nll_next_token"] - 1)
    print(f"mean NLL of {len(case.passage)} tokens: {loss:.6f}, off by {error:.2e} relative")


def report_gradients(kind, title):
    want = case.reference[kind]
    loss, logits, grads = case.gradients(dtype, kind)
    exact = case.gradients(torch.float32, kind)[2] if args.full else None
    print(f"{title}: loss {loss:.6f}, off by {abs(loss / want['loss'] - 1):.2e} relative")
    if logits:
        off = max(abs(a - b) for x, y in zip(logits, want["label_logits"]) for a, b in zip(x, y))
        print(f"{title}: label logits off by {off:.3g}")
    elements = Elements(grads, exact) if exact else None
    errors = case.errors(kind, grads)
    for _, norm, probe, key in errors if args.each else []:
        more = f"  elements {elements.each[key]:.2e}" if elements else ""
        print(f"  {name(key):22} norm {norm:.2e}  probe {probe:.2e}{more}")
    worst = max(errors)
    above = sum(e[0] > 3e-2 for e in errors)
    print(f"{title}: gradients worst {worst[0]:.3g} ({name(worst[3])}), rms {rms(e[0] for e in errors):.3g}, "
          f"{above} of {len(errors)} above 3e-2")
    if elements:
        print(f"{title}: {elements}")


print(f"PyTorch {torch.__version__}, {args.dtype}, attention {args.attn}")
report_forward()
report_gradients("classification_grad", "classification")
report_gradients("lm_grad", "language model")
