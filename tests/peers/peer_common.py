"""What the comparison scripts share: the choice template, examples, and running credence."""
import json
import os
import statistics
import subprocess
import tempfile

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
LEAD_IN = "Select one of the choices that answers the following question: "


def one_thread():
    """Small comparisons on machines that do other work: no library takes more than one core."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    offline()


def offline():
    """Nothing is fetched, and the tokenizer starts no threads of its own."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def prompt(example):
    """Template T1, written here a second time on purpose: a mistake in credence's own must show."""
    parts = []
    for letter, choice in zip(LETTERS, example["choices"]):
        text = choice[0].upper() + choice[1:]
        parts.append(f"{letter}. {text}" + ("" if text.endswith(".") else "."))
    return f"{LEAD_IN}{example['question']} Choices: {' '.join(parts)} Answer:"


def load_examples(path, n):
    """The first n examples; n = 0 takes all."""
    with open(path, encoding="utf-8") as f:
        examples = [json.loads(line) for line in f if line.strip()]
    return examples[:n] if n else examples


def predict(program, model, adapter, examples, cpu, threads=1):
    """One record an example from `credence predict`."""
    with tempfile.TemporaryDirectory() as scratch:
        data = os.path.join(scratch, "examples.jsonl")
        with open(data, "w", encoding="utf-8") as f:
            for example in examples:
                f.write(json.dumps(example, ensure_ascii=False) + "\n")
        command = [program, "predict", "-m", model, "-d", data, "-t", str(threads), "--quiet"]
        command += ["-a", adapter] if adapter else []
        command += ["--cpu", cpu] if cpu else []
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    records = [json.loads(line) for line in output.splitlines()]
    if len(records) != len(examples) or [r["index"] for r in records] != list(range(len(records))):
        raise SystemExit(f"credence predict gave {len(records)} lines for {len(examples)} examples, or out of order")
    return records


def numbers(text):
    """Of a comma list."""
    return [int(part) for part in text.split(",")]


def bench(binary, entries, *flags):
    """Entries of credence-bench whose name matches, run now."""
    command = [binary, "--filter", entries, "--json", "-", *flags]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["benchmarks"]


def rates(binary, entries, *flags):
    """GFLOP/s by the operation in an entry's name."""
    return {b["name"].split("/")[1]: b["flops"] / 1e9 for b in bench(binary, entries, *flags)}


def show_rates(what, rounds):
    """Medians of (ours, theirs) and the median of their ratios."""
    mine, peer = (statistics.median(pair[i] for pair in rounds) for i in range(2))
    ratio = statistics.median(a / b for a, b in rounds)
    print(f"{what}: credence {mine:.0f}, PyTorch {peer:.0f}, ratio {ratio:.2f}", flush=True)
