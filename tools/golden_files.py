"""How a reference becomes a file: large tensors sampled, bytes reproducible."""

import itertools
import json
import math
import struct

import torch
from safetensors.torch import save


def sample(tensors: dict[str, torch.Tensor], limit: int) -> dict[str, torch.Tensor]:
    """Keeps every k-th element of tensors with more than `limit`, under the name NAME#every=k."""
    stored = {}
    for name, tensor in tensors.items():
        if tensor.numel() <= limit:
            stored[name] = tensor
        else:
            stride = sampling_stride(tensor, limit)
            stored[f"{name}#every={stride}"] = tensor.flatten()[::stride]
    return {name: tensor.contiguous() for name, tensor in stored.items()}


def sampling_stride(tensor: torch.Tensor, limit: int) -> int:
    """The first prime that leaves at most `limit` elements and visits every column."""
    first = math.ceil(tensor.numel() / limit)
    return next(k for k in itertools.count(first) if is_prime(k) and tensor.shape[-1] % k)


def is_prime(k: int) -> bool:
    return k > 1 and all(k % d for d in range(2, math.isqrt(k) + 1))


def stable_bytes(tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> bytes:
    """A safetensors file whose bytes do not depend on the hash order of its metadata."""
    data = save(tensors)
    (size,) = struct.unpack("<Q", data[:8])
    header = {"__metadata__": dict(sorted(metadata.items())), **json.loads(data[8 : 8 + size])}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data[8 + size :]
