#!/usr/bin/env python3
"""Causal attention in bf16: credence-bench against PyTorch's scaled_dot_product_attention, in turn, on one machine.

Four heads with keys and values of their own, so that both do the same work; work is counted for the keys that a query
sees, on both sides. Each round runs our entry once and PyTorch for about as long; a line gives medians of the rounds and
the median of their ratios. With one thread both count processor time of the thread, so that a busy machine does not
decide; with more, the clock on the wall.

usage: attention_torch.py credence-bench [--rounds N] [--threads 1,2] [--lengths 1024] [--sizes 64,128]
"""
import argparse
import statistics
import time

import torch

import peer_common as common

HEADS = 4


def work(length, size, backward):
    return HEADS * length * (length + 1) / 2 * 2 * size * (5 if backward else 2)


def ours(binary, length, size, threads, scores):
    """GFLOP/s of both directions."""
    pattern = f"^attention/(fwd|bwd)/{scores}/T{length}_H{HEADS}_G{HEADS}_D{size}/avx512_bf16$"
    rates = common.rates(binary, pattern, "--threads", str(threads), "--min-time", "0.1")
    return rates["fwd"], rates["bwd"]


def theirs(length, size, threads):
    torch.set_num_threads(threads)
    now = time.thread_time if threads == 1 else time.perf_counter
    q, k, v = (torch.rand(1, HEADS, length, size).mul(2).sub(1).to(torch.bfloat16).requires_grad_() for _ in range(3))
    grad = torch.rand(1, HEADS, length, size).to(torch.bfloat16)
    seconds = [[], []]
    for _ in range(8):
        start = now()
        out = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        middle = now()
        # without the graph engine, whose own thread would not be counted
        torch.autograd.grad(out, (q, k, v), grad)
        seconds[0].append(middle - start)
        seconds[1].append(now() - middle)
    return tuple(work(length, size, i == 1) / statistics.median(seconds[i][1:]) / 1e9 for i in range(2))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("bench", help="credence-bench")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=common.numbers, default=[1, 2])
    parser.add_argument("--lengths", type=common.numbers, default=[1024])
    parser.add_argument("--sizes", type=common.numbers, default=[64, 128])
    parser.add_argument("--scores", default="bf16", choices=("bf16", "f32"), help="operands of our scores")
    args = parser.parse_args()
    print(f"PyTorch {torch.__version__}; GFLOP/s of what is not masked; scores {args.scores}")
    for length in args.lengths:
        for size in args.sizes:
            for threads in args.threads:
                rounds = [(ours(args.bench, length, size, threads, args.scores), theirs(length, size, threads))
                          for _ in range(args.rounds)]
                for i, name in enumerate(("forward", "backward")):
                    common.show_rates(f"T {length} d {size} threads {threads} {name}",
                                      [(a[i], b[i]) for a, b in rounds])


if __name__ == "__main__":
    main()
