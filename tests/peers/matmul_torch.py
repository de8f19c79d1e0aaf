#!/usr/bin/env python3
"""Products with a matrix of a model in bf16: credence-bench on its blocks against PyTorch (its oneDNN) on dense weights.

Forward is Y = X W^T, dX = dY W; tokens M, outputs N, inputs K. Each round runs our entry once and PyTorch for about as
long; a line gives medians of the rounds and the median of their ratios. With one thread both count processor time of
the thread, so that a busy machine does not decide; with more, the clock on the wall. PyTorch packs the weights in each
call; `packed` has it done beforehand (forward only: MKLDNN layout), `plain` is what PEFT calls.

usage: matmul_torch.py credence-bench [--rounds N] [--threads 1,2] [--type q4_1] [--shapes 1024x2048x2048,...]
"""
import argparse
import re
import statistics
import time

import torch
from torch.utils import mkldnn

import peer_common as common


def ours(binary, kind, m, n, k, threads):
    """GFLOP/s of both directions."""
    pattern = f"^qgemm/(fwd|dx)/{kind}/M{m}_N{n}_K{k}/avx512_bf16$"
    rates = common.rates(binary, pattern, "--threads", str(threads), "--min-time", "0.3")
    return {"forward plain": rates["fwd"], "forward packed": rates["fwd"], "dX plain": rates["dx"]}


@torch.no_grad()
def theirs(m, n, k, threads):
    torch.set_num_threads(threads)
    now = time.thread_time if threads == 1 else time.perf_counter
    layer = torch.nn.Linear(k, n, bias=False).to(torch.bfloat16)
    packed = mkldnn.to_mkldnn(layer, torch.bfloat16)
    x, dy = (torch.rand(m, width).mul(2).sub(1).to(torch.bfloat16) for width in (k, n))
    x_packed = x.to_mkldnn()
    calls = {"forward plain": lambda: layer(x), "forward packed": lambda: packed(x_packed),
             "dX plain": lambda: dy @ layer.weight}
    rates = {}
    for name, call in calls.items():
        call()
        seconds = []
        while len(seconds) < 5 or sum(seconds) < 0.5:
            start = now()
            call()
            seconds.append(now() - start)
        rates[name] = 2 * m * n * k / statistics.median(seconds) / 1e9
    return rates


def shapes(text):
    return [tuple(int(part) for part in shape.split("x")) for shape in text.split(",")]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("bench", help="credence-bench")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=common.numbers, default=[1])
    parser.add_argument("--type", default="q4_1", help="of our blocks")
    parser.add_argument("--shapes", type=shapes,
                        default=[(1024, 2048, 2048), (128, 2048, 2048), (512, 1536, 576), (512, 576, 1536)])
    args = parser.parse_args()
    onednn = re.search(r"DNN v([0-9.]+)", torch.__config__.show())
    print(f"PyTorch {torch.__version__}, oneDNN {onednn.group(1) if onednn else 'unknown'}; GFLOP/s")
    for m, n, k in args.shapes:
        for threads in args.threads:
            rounds = [(ours(args.bench, args.type, m, n, k, threads), theirs(m, n, k, threads))
                      for _ in range(args.rounds)]
            for name in rounds[0][0]:
                common.show_rates(f"M {m} N {n} K {k} threads {threads} {name}",
                                  [(a[name], b[name]) for a, b in rounds])


if __name__ == "__main__":
    main()
