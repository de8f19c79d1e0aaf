"""Random numbers and orders of credence, written a second time from their documented definitions
(include/credence/kernels/rng.h, runtime/data/batch.h)."""
import numpy as np

TRAINING_NOISE, ORDER, PERMUTATION = 0x69766F6E, 0x6F726472, 0x7065726D


def philox(counter, key):
    """Philox4x32-10 (Salmon et al. 2011): counter [4] of arrays or numbers, key [2]; four words each."""
    c = [np.asarray(x, dtype=np.uint64) for x in np.broadcast_arrays(*counter)]
    k0, k1 = key
    for _ in range(10):
        low, high = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
        mask, shift = np.uint64(0xFFFFFFFF), np.uint64(32)
        c = [(high >> shift) ^ c[1] ^ np.uint64(k0), high & mask, (low >> shift) ^ c[3] ^ np.uint64(k1), low & mask]
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c


assert [int(w) for w in philox([0, 0, 0, 0], [0, 0])] == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]


def normals(n, key, step, sample, tensor):
    """Elements 0 ... n-1 of a stream: 16 counters give 64 elements, words 0 and 1 a pair of normals, 2 and 3 another."""
    blocks = np.arange((n + 63) // 64 * 16, dtype=np.uint64)
    words = philox([blocks, np.uint64(step), np.uint64(sample), np.uint64(tensor)], key)
    out = np.empty((len(blocks) // 16, 4, 16))
    for pair in (0, 2):
        a, b = (w.astype(np.int64).reshape(-1, 16) for w in words[pair:pair + 2])
        r = np.sqrt(-2 * np.log((a % 2**31 + 0.5) / 2**31)) * np.where(a >= 2**31, -1, 1)
        theta = np.pi * np.where(b >= 2**31, b - 2**32, b) / 2**32
        out[:, pair], out[:, pair + 1] = r * np.cos(theta), r * np.sin(theta)
    return out.reshape(-1)[:n].astype(np.float32)


def epoch_order(n, seed, epoch):
    """Fisher-Yates from the end with unbiased draws (Lemire 2019)."""
    key = [seed & 0xFFFFFFFF, (seed >> 32) ^ ORDER]
    taken = 0

    def word():
        nonlocal taken
        block = philox([taken // 4, 0, epoch, PERMUTATION], key)
        taken += 1
        return int(block[(taken - 1) % 4])

    order = list(range(n))
    for bound in range(n, 1, -1):
        product = word() * bound
        while product % 2**32 < (2**32 - bound) % bound:
            product = word() * bound
        at = product >> 32
        order[bound - 1], order[at] = order[at], order[bound - 1]
    return order
