"""A PyTorch model that answers questions through an adapter: what the scripts that train or read one share."""
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

import peer_common as common


class Questions:
    """Questions as tokens, in the form that credence gives them."""

    def __init__(self, hf_dir):
        self.tokenizer = AutoTokenizer.from_pretrained(hf_dir)
        self.labels = [self.encode(" " + letter)[0] for letter in common.LETTERS]

    def encode(self, text):
        return self.tokenizer(text, add_special_tokens=False).input_ids

    def prompt(self, example):
        return self.encode(common.prompt(example))


def with_adapter(hf_dir, dtype, seed, rank, alpha):
    """The base in dtype with a fresh adapter on q and v."""
    torch.manual_seed(seed)
    base = AutoModelForCausalLM.from_pretrained(hf_dir, dtype=dtype)
    return get_peft_model(base, LoraConfig(r=rank, lora_alpha=alpha, target_modules=["q_proj", "v_proj"],
                                           task_type="CAUSAL_LM"))
