"""Helpers of methods.sh: parts of the data, combinations of a grid, what runs cost, perplexity over tau."""
import itertools
import json
import math
import os
import re
import sys


def read(path):
    with open(path, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def write(path, rows):
    with open(path + ".part", "w", encoding="utf-8") as out:
        out.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    os.replace(path + ".part", path)


def spread(rows, n):
    """n of the rows, evenly over all of them, and the rest."""
    n = min(n, len(rows))
    taken = {i * len(rows) // n for i in range(n)}
    return [r for i, r in enumerate(rows) if i in taken], [r for i, r in enumerate(rows) if i not in taken]


def write_parts(name, train, valid, n_seen=100):
    """What is trained on, what is validated on, and texts trained on whose NLL shows how far training went."""
    write(name + "-train.jsonl", train)
    write(name + "-valid.jsonl", valid)
    write(name + "-seen.jsonl", spread(train, min(100, int(n_seen)))[0])


def of_task(rows, task):
    return [row for row in rows if row.get("task") == task]


def texts(rows):
    return [{"task": row["task"], "text": row["question"]} for row in rows]


def split(directory, n_seen):
    """Parts of train.jsonl (tweets), others.jsonl (the rest) and test.jsonl for every set of methods.sh."""
    tweets, others, test = (read(os.path.join(directory, name + ".jsonl")) for name in ("train", "others", "test"))
    kinds = {"tweets": tweets, **{task: of_task(others, task) for task in ("amazon", "movies", "nyt")}}

    def put(name, rows):
        write(os.path.join(directory, name + ".jsonl"), rows)

    def put_parts(name, train, valid):
        write_parts(os.path.join(directory, name), train, valid, n_seen)

    part, rest = spread(tweets, 300)
    valid, rest = spread(rest, 60)
    put_parts("tweets300", part, valid)
    put("search", spread(rest, 300)[0])  # what a search may look at: neither trained on nor tested on
    valid, part = spread(tweets, 240)
    put_parts("tweets", part, valid)
    train, valid = [], []
    for task, n in (("movies", 1000), ("nyt", 500), ("amazon", 200), ("tweets", 100)):
        part, rest = spread(kinds[task], n)
        train.extend(part)
        valid.extend(spread(rest, 100)[0])
    put_parts("bora", texts(train), texts(valid))
    put("bora-test", texts(test))
    put_parts("bora-choices", train, valid)
    put("bora-choices-test", test)
    for task, rows in kinds.items():
        put(f"few-{task}-test", of_task(test, task))
        for n in (50, 200):
            part, rest = spread(rows, n)
            put_parts(f"few{n}-{task}", part, spread(rest, max(20, n // 5))[0])


def holdout(path, name):
    """The parts of a training file, a tenth of it for validation."""
    valid, train = spread(read(path), len(read(path)) // 10)
    write_parts(name, train, valid)


def settings(words):
    """Flags with their values, those of switches None."""
    found = {}
    for i, word in enumerate(words):
        if word.startswith("--"):
            value = words[i + 1] if i + 1 < len(words) and not words[i + 1].startswith("--") else None
            found[word] = value
    return found


def grid(own, searched):
    """One line a combination: a name for it, a tab, the row's own flags with those of the grid in their place."""
    choices = {flag: re.sub(r"[{}]", "", values).split(",") for flag, values in settings(searched.split()).items()}
    for picked in itertools.product(*choices.values()):
        merged = {**settings(own.split()), **dict(zip(choices, picked))}
        words = [word for flag, value in merged.items() for word in (flag, value) if word is not None]
        print("_".join(picked) + "\t" + " ".join(words))


def cost(runs):
    """What training and looking took: markdown, one line a run (directory of finetune) and evaluation (file)."""
    print("| row | steps | training s | tokens/s | peak MiB | training loss | evaluation s |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    for name, run, evaluation in zip(runs[0::3], runs[1::3], runs[2::3]):
        summary = json.load(open(run + "/summary.json")) if os.path.exists(run + "/summary.json") else {}
        looked = json.load(open(evaluation))
        cells = [summary.get(key) for key in ("steps", "seconds", "tok_s", "peak_rss_mb", "final_loss")]
        cells[0] = cells[0] if cells[0] is not None else summary.get("settings", {}).get("steps")
        cells.append(looked["seconds"])
        shown = ["-" if cell is None else f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in cells]
        print(f"| {name} | " + " | ".join(shown) + " |")


def by_task(files, large):
    """Perplexity of each task (questions: NLL) and of those that are not large together; means over the seeds, one a file."""
    found = {}
    for name in files:
        groups = json.load(open(name))["groups"]
        sums = {group["task"]: (group["nll"] * group["n"], group["n"]) for group in groups}
        small = [sums[task] for task in sums if task not in large]
        sums = {"the small tasks": tuple(map(sum, zip(*small))), **sums}
        for task, (nll, n) in sums.items():
            found.setdefault(task, []).append(math.exp(nll / n) if "perplexity" in groups[0] else nll / n)
    return {task: sum(values) / len(values) for task, values in found.items()}


def over_tau(path, what, large, *rows):
    """Prints what the tasks have by tau, a line for each of the rows TAU,FILE,..., where TAU is 0 (apart), inf (one for
    all) or between; writes it as charts for `credence compare`."""
    curve, levels = {}, {}
    for row in rows:
        tau, *files = row.split(",")
        found = by_task(files, large.split(","))
        if not curve and not levels:
            print(f"| {what}, tau | " + " | ".join(found) + " |\n|---" + "|--:" * len(found) + "|")
        if 0 < float(tau) < math.inf:
            name, curve[math.log10(float(tau))] = tau, found
        else:
            name = "apart" if float(tau) == 0 else "one for all"
            levels[name] = found
        print(f"| {name} | " + " | ".join(f"{value:.4g}" for value in found.values()) + " |")
    if not curve:
        return
    ends = min(curve), max(curve)
    charts = []
    for task in next(iter(curve.values())):
        lines = [{"name": "by tau", "points": [[x, curve[x][task]] for x in sorted(curve)]}]
        lines += [{"name": name, "points": [[x, found[task]] for x in ends]} for name, found in levels.items()]
        charts.append({"title": task, "x": "tau, as a power of ten", "lines": lines})
    note = f"{what} of each task, tasks apart (tau 0) and with one adapter for all as level lines."
    json.dump({"title": "How close should the tasks be?", "note": note, "charts": charts}, open(path, "w"))


if __name__ == "__main__":
    commands = {"split": split, "holdout": holdout, "grid": grid, "cost": lambda *runs: cost(runs), "tau": over_tau}
    commands[sys.argv[1]](*sys.argv[2:])
