"""The reference gradients (smollm2.json) as PyTorch computes them; for the precision scripts."""
import json
import math

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

import peer_common as common

PROJ = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
N_LM = 128  # tokens of the passage whose gradient the reference file holds


class Case:
    """Reference file, tokenizer and passage, and the model in a type asked for."""

    def __init__(self, hf_dir, reference, passage, attention="sdpa"):
        self.hf_dir, self.attention = hf_dir, attention
        with open(reference, encoding="utf-8") as f:
            self.reference = json.load(f)
        self.tokenizer = AutoTokenizer.from_pretrained(hf_dir)
        questions = [e["question"] for e in common.load_examples(passage, 14)]
        self.passage = self.encode(" ".join(questions))[:512]
        lm = self.reference["lm"]
        if self.passage[:8] != lm["first_ids"] or self.passage[-4:] != lm["last_ids"]:
            raise SystemExit(f"{passage}: not the passage of {reference}, or another tokenizer")

    def encode(self, text):
        return self.tokenizer(text, add_special_tokens=False).input_ids

    def load(self, dtype):
        return AutoModelForCausalLM.from_pretrained(self.hf_dir, dtype=dtype, attn_implementation=self.attention)

    def adapted(self, dtype, kind):
        """Model with adapters filled by the reference formula, and {(layer, proj, matrix): parameter}."""
        want = self.reference[kind]
        config = LoraConfig(r=want["rank"], lora_alpha=want["alpha"], lora_dropout=0.0,
                            target_modules=want["targets"], task_type="CAUSAL_LM")
        model = get_peft_model(self.load(dtype), config).train()
        found = {}
        for name, p in model.named_parameters():
            if not p.requires_grad:
                continue
            parts = name.split(".")
            layer, proj, mat = int(parts[parts.index("layers") + 1]), parts[-4], parts[-3][-1]
            i, j = np.indices(tuple(p.shape), dtype=np.float64)
            t = layer + PROJ.index(proj)
            value = 0.02 * (np.cos(0.7 * i + 0.3 * j + t) if mat == "A" else np.sin(0.5 * i + 0.9 * j + t))
            if p.dtype != torch.float32:
                raise SystemExit(f"{name}: PEFT keeps adapters in {p.dtype}, expected float32")
            p.data = torch.from_numpy(value.astype(np.float32))
            found[layer, proj, mat] = p
        return model, found

    def run(self, model, kind):
        """Loss of the case; gradients are left in the parameters. Texts go one a pass: no padding enters."""
        if kind == "lm_grad":
            ids = torch.tensor([self.passage[:N_LM]])
            loss = model(input_ids=ids, labels=ids).loss
            loss.backward()
            return loss.item(), None
        want, total, logits = self.reference[kind], 0.0, []
        label_ids = self.reference["label_ids_A_to_E"][:2]
        for text, answer in zip(want["texts"], want["answers"]):
            z = model(input_ids=torch.tensor([self.encode(text)])).logits[0, -1, label_ids].float()
            loss = torch.nn.functional.cross_entropy(z, torch.tensor(answer)) / len(want["texts"])
            loss.backward()
            total += loss.item()
            logits.append(z.tolist())
        return total, logits

    def gradients(self, dtype, kind, prepare=None):
        """(loss, label logits, {key: gradient}); prepare(model) may change the model first."""
        model, found = self.adapted(dtype, kind)
        if prepare:
            prepare(model)
        loss, logits = self.run(model, kind)
        return loss, logits, {key: p.grad.double().numpy() for key, p in found.items()}

    def errors(self, kind, grads):
        """[(error, norm error, probe error, key)] of the reference matrices, relative to the reference norm."""
        out = []
        for g in self.reference[kind]["grads_for_layers_0_1_14_29"]:
            key = g["layer"], g["proj"], g["mat"]
            mine = grads[key]
            i, j = np.indices(mine.shape)
            norm = abs(np.linalg.norm(mine) - g["norm"]) / g["norm"]
            probe = abs((mine * np.cos(0.11 * i + 0.07 * j)).sum() - g["probe"]) / g["norm"]
            out.append((max(norm, probe), norm, probe, key))
        return out


def rms(values):
    values = list(values)
    return math.sqrt(sum(v * v for v in values) / len(values))


def name(key):
    return f"layer {key[0]} {key[1]} {key[2]}"


class Elements:
    """Element-by-element comparison of two sets of gradients, relative to the second."""

    def __init__(self, grads, exact):
        self.each = {k: float(np.linalg.norm(grads[k] - exact[k]) / np.linalg.norm(exact[k])) for k in exact}
        self.worst = max(self.each, key=self.each.get)
        a, b = (np.concatenate([x[k].ravel() for k in sorted(exact)]) for x in (grads, exact))
        self.cosine = float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
        self.whole = float(np.linalg.norm(a - b) / np.linalg.norm(b))

    def __str__(self):
        return (f"elements of all {len(self.each)} matrices: worst {self.each[self.worst]:.3g} ({name(self.worst)}), "
                f"rms {rms(self.each.values()):.3g}; whole gradient {self.whole:.3g}, cosine {self.cosine:.6f}")
