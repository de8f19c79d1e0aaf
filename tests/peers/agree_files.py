"""The two files of one adapter, read by the gguf and safetensors packages: equal bits up to the row map of q and k.

Exit 1 when a tensor is missing in one of them or a value differs, or when alpha differs (llama.cpp divides alpha by the
rank, never by its root: the root of an rsLoRA adapter stands in the GGUF file's alpha).
"""
import argparse
import json
import os
import sys

import peer_common as common

common.one_thread()

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("adapter_dir", help="directory that credence wrote")
parser.add_argument("model", help="GGUF file of the base")
args = parser.parse_args()

import gguf
import numpy as np
from safetensors.numpy import load_file

NAMES = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
         "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
         "ffn_down": "mlp.down_proj"}


def value(reader, key):
    return reader.get_field(key).contents()


base = gguf.GGUFReader(args.model)
arch = value(base, "general.architecture")
heads = {"attn_q": value(base, f"{arch}.attention.head_count"),
         "attn_k": value(base, f"{arch}.attention.head_count_kv")}
adapter = gguf.GGUFReader(os.path.join(args.adapter_dir, "adapter.gguf"))
peft = load_file(os.path.join(args.adapter_dir, "adapter_model.safetensors"))
with open(os.path.join(args.adapter_dir, "adapter_config.json"), encoding="utf-8") as f:
    config = json.load(f)

faults = []
alpha = config["lora_alpha"] * (config["r"] ** 0.5 if config["use_rslora"] else 1)
expected = {"general.type": "adapter", "adapter.type": "lora", "general.architecture": arch,
            "adapter.lora.alpha": np.float32(alpha)}
faults += [f"{k}: {value(adapter, k)}, expected {v}" for k, v in expected.items() if value(adapter, k) != v]
for tensor in adapter.tensors:
    _, layer, leaf, weight, side = tensor.name.split(".")
    name = f"base_model.model.model.layers.{layer}.{NAMES[leaf]}.lora_{side[-1].upper()}.weight"
    want = peft.pop(name, None)
    if want is not None and arch == "llama" and side == "lora_b" and leaf in heads:
        # halves of a head side by side become pairs
        want = want.reshape(heads[leaf], 2, -1, want.shape[1]).swapaxes(1, 2).reshape(want.shape)
    if want is None or not np.array_equal(np.asarray(tensor.data), want):
        faults.append(f"{tensor.name}: " + ("not in the safetensors file" if want is None else "values differ"))
faults += [f"{name}: not in the GGUF file" for name in peft]
print(f"{len(adapter.tensors)} tensors compared, {len(faults)} fault(s)")
for fault in faults[:10]:
    print(f"  {fault}")
sys.exit(1 if faults or not adapter.tensors else 0)
