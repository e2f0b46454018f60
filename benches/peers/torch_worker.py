"""One PyTorch training run, a process of its own so that its peak memory is its own.

Prints a JSON line per optimizer step: {"step", "loss", "grad_norm", "input_tokens",
"trained_tokens", "seconds"}. Started by train_step.py.

It is set up as a knowledgeable user would on a CPU: transformers' default attention (sdpa), fused
AdamW, no padding, gradients freed between steps, nothing recomputed. bf16 means autocast over
float32 weights, which is how PyTorch trains in bf16 without losing small updates.
"""

import argparse
import contextlib
import json
import time
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel


def make_optimizer(model: PreTrainedModel, args: argparse.Namespace) -> torch.optim.Optimizer:
    """AdamW as hooke has it: decay on matrices only."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": args.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    betas = (args.adam_beta1, args.adam_beta2)
    return torch.optim.AdamW(
        groups, lr=args.learning_rate, betas=betas, eps=args.adam_epsilon, fused=True
    )


def train_step(model, optimizer, ids: torch.Tensor, args) -> tuple[float, float]:
    """Forward, backward, clip, update; loss and gradient norm, read back so that all is done."""
    autocast = torch.autocast("cpu", dtype=torch.bfloat16)
    with autocast if args.dtype == "bf16" else contextlib.nullcontext():
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), args.max_grad_norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.item(), norm.item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--ids", type=Path, required=True, help="JSON: rows of equal length")
    parser.add_argument("--dtype", choices=("f32", "bf16"), required=True)
    parser.add_argument("--attention", default="sdpa")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--max-steps", type=int, required=True)
    for name in ("learning-rate", "weight-decay", "adam-beta1", "adam-beta2", "adam-epsilon"):
        parser.add_argument(f"--{name}", type=float, required=True)
    parser.add_argument("--max-grad-norm", type=float, required=True)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = AutoModelForCausalLM.from_pretrained(
        args.model, dtype=torch.float32, attn_implementation=args.attention
    )
    model.train()
    optimizer = make_optimizer(model, args)
    # Documents of one length need neither padding nor a mask: a rectangle is PyTorch's best case.
    ids = torch.tensor(json.loads(args.ids.read_text()))
    for step in range(1, args.max_steps + 1):
        start = time.perf_counter()
        loss, norm = train_step(model, optimizer, ids, args)
        record = {
            "step": step,
            "loss": loss,
            "grad_norm": norm,
            "input_tokens": ids.numel(),
            "trained_tokens": ids.numel() - ids.shape[0],
            "seconds": time.perf_counter() - start,
        }
        print(json.dumps(record), flush=True)


if __name__ == "__main__":
    main()
