"""An adapter saved by PEFT itself, with both matrices random: for agree_peft.py in the other direction."""
import argparse

import peer_common as common

common.one_thread()

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("hf_dir")
parser.add_argument("output", help="directory to write")
parser.add_argument("--rank", type=int, default=8)
parser.add_argument("--alpha", type=float, default=16)
parser.add_argument("--targets", default="q_proj,v_proj", help="comma list, or all-linear")
parser.add_argument("--rslora", action="store_true")
parser.add_argument("--dtype", default="float32", choices=["float32", "float16", "bfloat16"], help="type of the file")
parser.add_argument("--range", type=float, default=0.02, help="standard deviation of B; A is PEFT's own start")
args = parser.parse_args()

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

torch.set_num_threads(1)
torch.manual_seed(0)
model = AutoModelForCausalLM.from_pretrained(args.hf_dir, dtype=torch.float32)
targets = args.targets if args.targets == "all-linear" else args.targets.split(",")
model = get_peft_model(model, LoraConfig(r=args.rank, lora_alpha=args.alpha, target_modules=targets,
                                         use_rslora=args.rslora, task_type="CAUSAL_LM"))
for name, p in model.named_parameters():
    if "lora_B" in name:
        torch.nn.init.normal_(p, std=args.range)
    if "lora_" in name:
        p.data = p.data.to(getattr(torch, args.dtype))
model.save_pretrained(args.output)
