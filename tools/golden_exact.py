"""A transformers model whose every step is computed in float64.

Loading a checkpoint with dtype=float64 is not enough: transformers computes the norms, the softmax
and the rotary angles in float32 whatever the model's dtype is. The three are replaced here, so
that the difference to the plain float32 model is the rounding error of float32 itself: what a
correct float32 implementation may differ by.
"""

import functools
import math

import torch
from torch.nn import functional
from transformers import AttentionInterface, AutoModelForCausalLM, PreTrainedModel


def load_exact(directory) -> PreTrainedModel:
    """The model of `directory` in float64, without a float32 step left in it."""
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float64)
    model.eval()
    AttentionInterface.register("exact_float64", attention)
    model.config._attn_implementation = "exact_float64"
    for module in model.modules():
        if type(module).__name__.endswith("RMSNorm"):
            module.forward = functools.partial(rms_norm, module)
    rotary = model.model.rotary_emb
    inv_freq = inverse_frequencies(model.config)
    if not torch.allclose(inv_freq, rotary.inv_freq.double(), rtol=1e-5, atol=0.0):
        raise AssertionError("the float64 rotary frequencies are not those of transformers")
    rotary.forward = functools.partial(cos_sin, inv_freq)
    return model


def rms_norm(module: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    """w * x / sqrt(mean(x^2) + eps)"""
    rstd = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + module.variance_epsilon)
    return module.weight * (x * rstd)


def attention(module, query, key, value, attention_mask, scaling, **_):
    """softmax(scale * q k^T, causal) v, every query head with its group's keys and values."""
    repeats = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1)
    scores = query @ key.transpose(2, 3) * scaling
    length = scores.shape[-1]
    future = torch.ones(length, length, dtype=torch.bool).triu(1)
    weights = functional.softmax(scores.masked_fill(future, -math.inf), dim=-1)
    return (weights @ value).transpose(1, 2).contiguous(), weights


def cos_sin(inv_freq: torch.Tensor, x: torch.Tensor, position_ids: torch.Tensor):
    """The rotation of each position, each angle twice as transformers lays it out."""
    angles = position_ids[..., None].double() * inv_freq
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


def inverse_frequencies(config) -> torch.Tensor:
    """theta^(-2i/D), stretched as `rope_type` says."""
    rope = config.rope_parameters
    dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    inv_freq = rope["rope_theta"] ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    kind = rope["rope_type"]
    if kind == "default":
        return inv_freq
    if kind == "linear":
        return inv_freq / rope["factor"]
    if kind == "llama3":
        kept = llama3_kept(inv_freq, rope)
        return kept * inv_freq + (1.0 - kept) * inv_freq / rope["factor"]
    raise ValueError(f"rope_type {kind} has no float64 form here")


def llama3_kept(inv_freq: torch.Tensor, rope: dict) -> torch.Tensor:
    """How much of each frequency Llama 3.1 keeps: 1 for short wavelengths, 0 for long ones."""
    turns = rope["original_max_position_embeddings"] * inv_freq / (2.0 * math.pi)
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    return ((turns - low) / (high - low)).clamp(0.0, 1.0)


def rope_bands(config) -> tuple[bool, bool, bool]:
    """Whether some frequency of a llama3-scaled model is stretched fully, in part, not at all."""
    unscaled = config.rope_parameters["rope_theta"] ** (
        -torch.arange(0, config.head_dim, 2, dtype=torch.float64) / config.head_dim
    )
    kept = llama3_kept(unscaled, config.rope_parameters)
    partly = (kept > 0.0) & (kept < 1.0)
    return bool((kept == 0.0).any()), bool(partly.any()), bool((kept == 1.0).any())
