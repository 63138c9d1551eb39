"""Makes LoRA adapters with the real peft, and loads merged ones with it.

make FOLDER                adapters a, b, c and peft's own merges of a and b, each saved by peft
check FOLDER MERGED...     for each merged adapter: keys that peft misses or does not expect, and
                           its deltas' distance to the exact weighted sum and to peft's own merge
"""

import json
import sys
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model, load_peft_weights, set_peft_model_state_dict
from torch import nn
from transformers.pytorch_utils import Conv1D

WEIGHTS = {"a": 0.7, "b": -0.4, "c": 1.1}
METHODS = ["linear", "ties", "magnitude_prune", "cat", "svd", "ties_svd", "magnitude_prune_svd"]


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.q_proj = nn.Linear(24, 20)
        self.v_proj = nn.Linear(24, 16)


class Tiny(nn.Module):
    """Every kind of layer that a LoRA adapter can sit on."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(30, 24)
        self.layers = nn.ModuleList([Block(), Block()])
        self.conv = nn.Conv2d(3, 5, 3)

    def forward(self, x):
        return self.layers[0].q_proj(self.embed(x))


class TinyGpt(nn.Module):
    """A layer that stores its weight transposed (fan_in_fan_out)."""

    def __init__(self):
        super().__init__()
        self.c_attn = Conv1D(36, 12)

    def forward(self, x):
        return self.c_attn(x)


def base(name):
    torch.manual_seed(0)
    return TinyGpt() if name.startswith("gpt") else Tiny()


def config(name):
    common = {"lora_alpha": 6, "r": 4, "bias": "none", "base_model_name_or_path": "tiny"}
    targets = ["q_proj", "v_proj", "embed", "conv"]
    if name.startswith("gpt"):
        return LoraConfig(**common, target_modules=["c_attn"], fan_in_fan_out=True)
    if name == "b":
        return LoraConfig(**{**common, "lora_alpha": 10}, target_modules=targets)
    if name == "c":
        rank = {"v_proj": 3, "conv": 6}
        pattern = {"rank_pattern": rank, "alpha_pattern": {"v_proj": 9}}
        return LoraConfig(**{**common, "r": 8}, use_rslora=True, target_modules=targets, **pattern)
    return LoraConfig(**common, target_modules=targets)


def make(folder):
    for seed, name in enumerate(["a", "b", "c", "gpt-a", "gpt-b"]):
        model = get_peft_model(base(name), config(name))
        torch.manual_seed(seed + 1)
        for key, parameter in model.named_parameters():
            if "lora_" in key:
                parameter.data.normal_()
        model.save_pretrained(folder / name, safe_serialization=True)
    for kind in ("", "gpt-"):
        model = load(folder / f"{kind}a", f"{kind}a")
        model.load_adapter(str(folder / f"{kind}b"), adapter_name="b")
        for method in METHODS:
            options = {} if method in ("linear", "cat", "svd") else {"density": 0.5}
            model.add_weighted_adapter(
                ["default", "b"], [WEIGHTS["a"], WEIGHTS["b"]], method, combination_type=method, **options
            )
            model.save_pretrained(folder / f"peft-{kind}", selected_adapters=[method])


def load(path, kind):
    return PeftModel.from_pretrained(base(kind), str(path))


def deltas(path, kind):
    model = load(path, kind)
    found = {}
    for name, module in model.named_modules():
        if hasattr(module, "get_delta_weight"):
            found[name] = module.get_delta_weight("default").detach().double()
    return found


def distance(got, want):
    error = sum(float((got[name] - want[name]).square().sum()) for name in want)
    return (error / sum(float(value.square().sum()) for value in want.values())) ** 0.5


def check(folder, merged):
    kind = merged["kind"]
    model = get_peft_model(base(kind), PeftModel.from_pretrained(base(kind), merged["path"]).peft_config["default"])
    result = set_peft_model_state_dict(model, load_peft_weights(merged["path"], device="cpu"))
    got = deltas(merged["path"], kind)
    answer = {
        "missing": [key for key in result.missing_keys if "lora_" in key],
        "unexpected": list(result.unexpected_keys),
        "modules": len(got),
    }
    if "inputs" in merged:
        parts = {name: deltas(folder / name, kind) for name in merged["inputs"]}
        names = next(iter(parts.values()))
        exact = {key: sum(WEIGHTS[name[-1]] * part[key] for name, part in parts.items()) for key in names}
        answer["exact"] = distance(got, exact)
    if "like" in merged:
        answer["like"] = distance(got, deltas(folder / merged["like"], kind))
    return answer


def main():
    command, folder = sys.argv[1], Path(sys.argv[2])
    if command == "make":
        make(folder)
    else:
        print(json.dumps([check(folder, json.loads(text)) for text in sys.argv[3:]]))


main()
