"""Training data whose every example has exactly the tokens of a timing workload, by the model's own tokenizer.

  lm   text of T tokens, the end token included: all but the first are predicted    [512]
  cls  a question with two choices, T tokens in all: the label after the last one   [48]

Words are short strings of letters that are one token with a space in front, drawn at random; `credence tokenize` is
asked for every finished example again, and one of another length is drawn anew.
"""
import argparse
import itertools
import json
import random
import string
import subprocess

import peer_common as common

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("program", help="credence")
parser.add_argument("model", help="GGUF file")
parser.add_argument("kind", choices=["lm", "cls"])
parser.add_argument("output", help="JSONL file to write")
parser.add_argument("--tokens", type=int, help="tokens an example")
parser.add_argument("-n", type=int, default=32, help="examples")
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()
tokens = args.tokens or {"lm": 512, "cls": 48}[args.kind]
CHOICES = ["no", "yes"]


def lengths(texts):
    """Tokens of each text, without begin and end tokens."""
    lines = "".join(json.dumps(t) + "\n" for t in texts)
    command = [args.program, "tokenize", "-m", args.model, "--jsonl", "-"]
    output = subprocess.run(command, input=lines, check=True, stdout=subprocess.PIPE, text=True).stdout
    counts = [len(line.split()) for line in output.splitlines()]
    if len(counts) != len(texts):
        raise SystemExit(f"credence tokenize gave {len(counts)} lines for {len(texts)} texts")
    return counts


def example(words):
    """The example and the text whose tokens the model reads, but for the end token of a text."""
    if args.kind == "lm":
        text = " " + " ".join(words)
        return {"text": text}, text
    made = {"question": " ".join(words), "choices": CHOICES, "answer": draw.randrange(len(CHOICES))}
    return made, common.prompt(made)


draw = random.Random(args.seed)
candidates = ["".join(c) for n in (2, 3) for c in itertools.product(string.ascii_lowercase, repeat=n)]
words = [w for w, n in zip(candidates, lengths([" " + w for w in candidates])) if n == 1]
if len(words) < 100:
    raise SystemExit(f"{args.model}: only {len(words)} short words of one token")

# what stands around the words: the end token of a text, the template of a question
n_around = 1 if args.kind == "lm" else lengths([example(words[:1])[1]])[0] - 1
n_words = tokens - n_around
if n_words < 1:
    raise SystemExit(f"{tokens} tokens: the template alone takes {n_around}")
goal = tokens - 1 if args.kind == "lm" else tokens
finished = []
for attempt in range(20):
    drafts = [example(draw.choices(words, k=n_words)) for _ in range(args.n - len(finished))]
    counts = lengths([text for _, text in drafts])
    finished += [made for (made, _), n in zip(drafts, counts) if n == goal]
    if len(finished) == args.n:
        break
else:
    raise SystemExit(f"only {len(finished)} of {args.n} examples came out at {tokens} tokens")
with open(args.output, "w", encoding="utf-8") as f:
    f.writelines(json.dumps(e) + "\n" for e in finished)
