"""Optimiser steps, posterior draws and normals: credence-bench and the Python libraries by turns, ns a parameter.

Peers: torch.optim.AdamW(fused=True); ivon-opt's IVON (price, one sample, its own noise); a SWAG draw in tensor code with
20 deviations in float32; torch.randn. Medians of --rounds rounds; the ratio is that of the medians.
"""
import argparse
import statistics
import time

import peer_common as common

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("bench", help="credence-bench")
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--cpu", default="avx512", help="tier of the entries")
args = parser.parse_args()

import ivon
import torch

torch.set_num_threads(args.threads)


def timed(step, n):
    """Median ns an element of a step over n elements: a second of steps, at least five."""
    step()
    times = []
    while len(times) < 5 or sum(times) < 1:
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return 1e9 * statistics.median(times) / n


def adamw(n):
    w = torch.nn.Parameter(torch.randn(n))
    w.grad = torch.randn(n)
    return timed(torch.optim.AdamW([w], lr=1e-4, weight_decay=0, fused=True).step, n)


def ivon_step(n):
    w = torch.nn.Parameter(torch.randn(n))
    grad = torch.randn(n)
    optimiser = ivon.IVON([w], lr=0.03, ess=1e7, hess_init=1e-3, clip_radius=1e-3, rescale_lr=False)

    def step():
        with optimiser.sampled_params(train=True):
            w.grad = grad
        optimiser.step()

    return timed(step, n)


def swag_draw(n):
    mean, second, rows = torch.randn(n), torch.rand(n), torch.randn(20, n)
    second += mean * mean

    @torch.no_grad()
    def draw():
        var = torch.clamp(second - mean * mean, 1e-30)
        noise = var.sqrt() * torch.randn_like(var) + rows.t().matmul(torch.randn(20, 1)).view(-1) / 19**0.5
        return mean + 0.5**0.5 * noise

    return timed(draw, n)


def normals(n):
    out = torch.empty(n)
    return timed(out.normal_, n)


def ours(entry):
    found = common.bench(args.bench, f"^{entry}/{args.cpu}$", "--threads", str(args.threads), "--min-time", "1")
    if len(found) != 1:
        raise SystemExit(f"{entry}: {len(found)} entries")
    return 1e9 / found[0]["items_per_second"], found[0]


print(f"torch {torch.__version__}, {args.threads} threads; ns a parameter")
for name, entry, n, peer in (("AdamW step", "adamw/step/f32/D11272192", 11272192, adamw),
                             ("IVON step", "ivon/step/price_next/D11272192", 11272192, ivon_step),
                             ("draw, K 20", "dplr/sample/philox/D4884480_K20_S1", 4884480, swag_draw),
                             ("16 draws, K 20", "dplr/sample/philox/D4884480_K20_S16", 4884480, None),
                             ("normals", "rng/normals/f32/D1048576", 1048576, normals)):
    own, other, last = [], [], {}
    for _ in range(args.rounds):
        ns, last = ours(entry)
        own.append(ns)
        if peer is not None:
            other.append(peer(n))
    shares = {k: round(last[k], 3) for k in ("peak_share", "stream_share", "cycles_per_item") if k in last}
    line = f"{name:15} {statistics.median(own):7.3f}"
    if other:
        line += f"  peer {statistics.median(other):7.3f}  ratio {statistics.median(other) / statistics.median(own):6.1f}"
    print(line, shares, flush=True)
