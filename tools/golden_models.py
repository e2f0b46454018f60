"""The models of tests/golden: one tiny random checkpoint per family and per trait of config.json.

The sizes are small so that every tensor of a reference fits in a few hundred kilobytes, and uneven
so that two dimensions swapped by mistake do not cancel out. The config.json files are written the
way published checkpoints write them (transformers 4: `rope_theta`, `rope_scaling`, `torch_dtype`),
except where `Spec.modern` says so, which is the newer form (`rope_parameters`, `dtype`).
"""

import json
import math
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import torch
from golden_files import stable_bytes
from transformers import AutoConfig, AutoModelForCausalLM

ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}

LLAMA3_SCALING = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


@dataclass(frozen=True)
class Spec:
    """One golden model: the keys of config.json that differ from `BASE`, and how it is stored.

    `seed` is not 0 where seed 0 gives a training run that float32 itself cannot follow closely.
    """

    name: str
    model_type: str
    overrides: dict = field(default_factory=dict)
    dtype: torch.dtype = torch.float32
    modern: bool = False
    seed: int = 0


BASE = {
    "hidden_act": "silu",
    "hidden_size": 32,
    "intermediate_size": 52,
    "max_position_embeddings": 128,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    # Larger than published models have it: 1e-6 taken for 1e-5 would pass for rounding error.
    "rms_norm_eps": 1e-3,
    "rope_theta": 10000.0,
    "rope_scaling": None,
    "tie_word_embeddings": False,
    "vocab_size": 101,
    "bos_token_id": 1,
    "eos_token_id": 2,
}

SPECS = (
    Spec("llama", "llama", seed=1),
    Spec("llama-tied-head-dim", "llama", {"tie_word_embeddings": True, "head_dim": 12}),
    Spec("llama-bias", "llama", {"attention_bias": True, "mlp_bias": True}),
    Spec(
        "llama-rope-llama3",
        "llama",
        {"head_dim": 16, "rope_scaling": LLAMA3_SCALING, "eos_token_id": [2, 5, 7]},
    ),
    Spec(
        "llama-rope-llama3-modern",
        "llama",
        {"head_dim": 16, "rope_theta": 500000.0, "rope_scaling": LLAMA3_SCALING},
        modern=True,
    ),
    Spec("llama-rope-linear", "llama", {"rope_scaling": {"type": "linear", "factor": 4.0}}),
    Spec("llama-mqa", "llama", {"num_key_value_heads": 1, "num_hidden_layers": 3}, seed=1),
    Spec(
        "llama-ffn-341",
        "llama",
        {"hidden_size": 24, "num_hidden_layers": 1, "intermediate_size": 341},
    ),
    Spec("qwen2", "qwen2", {"rope_theta": 1000000.0, "rms_norm_eps": 3e-4}),
    Spec("qwen2-tied", "qwen2", {"tie_word_embeddings": True, "num_key_value_heads": 4}),
    Spec("qwen3", "qwen3", {"tie_word_embeddings": True, "head_dim": 14, "rms_norm_eps": 5e-3}),
    Spec("qwen3-modern", "qwen3", {"head_dim": 8}, modern=True),
    Spec("llama-f16", "llama", {"num_attention_heads": 2, "num_key_value_heads": 1}, torch.float16),
    Spec("qwen2-bf16", "qwen2", {"num_key_value_heads": 1}, torch.bfloat16),
)


def write_model(spec: Spec, directory: Path) -> None:
    """Writes config.json and model.safetensors, the weights a function of name and seed."""
    directory.mkdir(parents=True, exist_ok=True)
    config_path = directory / "config.json"
    config_path.write_text(config_json(spec), encoding="utf-8")
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(directory))
    generator = torch.Generator()
    generator.manual_seed(spec.seed + zlib.crc32(spec.name.encode()))
    weights = {
        name: random_tensor(name, tensor.shape, generator).to(spec.dtype)
        for name, tensor in sorted(model.state_dict().items())
        if not (name == "lm_head.weight" and model.config.tie_word_embeddings)
    }
    data = stable_bytes(weights, {"format": "pt"})
    (directory / "model.safetensors").write_bytes(data)


def config_json(spec: Spec) -> str:
    """The text of config.json, in the old or in the new spelling."""
    dtype = str(spec.dtype).removeprefix("torch.")
    head = {"architectures": [ARCHITECTURES[spec.model_type]], "model_type": spec.model_type}
    body = {**BASE, **spec.overrides}
    if spec.modern:
        scaling = body.pop("rope_scaling") or {"rope_type": "default"}
        body["rope_parameters"] = {"rope_theta": body.pop("rope_theta"), **scaling}
        body["dtype"] = dtype
    else:
        body["torch_dtype"] = dtype
    return json.dumps({**head, **body}, indent=2) + "\n"


def random_tensor(name: str, shape: torch.Size, generator: torch.Generator) -> torch.Tensor:
    """Weights far from any initialisation a wrong implementation could get away with.

    Norm weights scatter around 1 (a forgotten one shows), biases are not zero, and the query and
    key projections are large enough that attention is peaked: near-uniform attention would hide a
    wrong scale, mask or rotation.
    """
    noise = torch.randn(shape, generator=generator)
    if "norm" in name:
        return 1.0 + 0.3 * noise
    if name.endswith("bias"):
        return 0.4 * noise
    if "embed_tokens" in name:
        return 0.6 * noise
    gain = 2.0 if "q_proj" in name or "k_proj" in name else 1.2
    return gain / math.sqrt(shape[-1]) * noise
