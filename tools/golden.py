"""Writes tests/golden: what transformers computes, so that hooke can be held against it.

    python3 -m venv /tmp/golden-venv
    /tmp/golden-venv/bin/pip install torch==2.15.0 transformers==5.24.0 tokenizers==0.23.3 \
        safetensors==0.8.0 numpy==2.4.6 jinja2==3.1.6
    /tmp/golden-venv/bin/python tools/golden.py            # models: references
    /tmp/golden-venv/bin/python tools/golden_chat.py       # chat templates: texts, ids, masks

Everything runs on the CPU in one thread, float32, eager attention. Running it again on the same
machine gives the same bytes; another CPU or BLAS may change the last bits, which the `f64/` tensors
and the metadata entry `float32_error` put into proportion: they come from the same model computed
in float64 throughout (golden_exact.py).

The format is described in src/checkpoint/reference.rs. Documents are run through the model one by
one: that no attention crosses them and positions restart is what packing means.
"""

import argparse
import itertools
import json
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from golden_batch import IGNORE, Batch, random_batch, text_batch
from golden_exact import load_exact, rope_bands
from golden_files import sample, stable_bytes
from golden_models import SPECS, write_model
from tokenizers import Tokenizer
from torch.nn import functional
from transformers import AutoModelForCausalLM, PreTrainedModel

REPOSITORY = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Training:
    """The optimizer run stored in a reference."""

    learning_rate: float
    steps: int = 30
    beta1: float = 0.9
    beta2: float = 0.95
    epsilon: float = 1e-8
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0


def forward(model: PreTrainedModel, batch: Batch) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Every `hidden/...`, `logits` and `nll` of the batch, and the mean loss to differentiate."""
    rows: dict[str, list[torch.Tensor]] = {}
    hooks = [
        module.register_forward_hook(recorder(rows.setdefault(name, [])))
        for name, module in hooked_modules(model).items()
    ]
    logits = torch.cat(
        [model(input_ids=ids[None], use_cache=False).logits[0] for ids in batch.documents()]
    )
    for hook in hooks:
        hook.remove()
    nll = functional.cross_entropy(logits, batch.targets, ignore_index=IGNORE, reduction="none")
    loss = nll.double().sum() / (batch.targets != IGNORE).sum()
    hidden = {name: torch.cat(parts) for name, parts in rows.items()}
    return {**hidden, "logits": logits, "nll": nll}, loss


def hooked_modules(model: PreTrainedModel) -> dict[str, torch.nn.Module]:
    """Reference name -> module whose output it is.

    Hooks and not `output_hidden_states`, whose last entry is taken after the final norm, so that
    the output of the last layer is not in it.
    """
    layers = {f"hidden/{i}": layer for i, layer in enumerate(model.model.layers, start=1)}
    return {"hidden/0": model.model.embed_tokens, **layers, "hidden/final": model.model.norm}


def recorder(rows: list[torch.Tensor]):
    """A forward hook that appends the output's rows."""

    def hook(_module, _inputs, output):
        rows.append((output[0] if isinstance(output, tuple) else output)[0])

    return hook


def gradients(model: PreTrainedModel, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    """d loss / d parameter under the checkpoint's names."""
    model.zero_grad()
    loss.backward()
    return {f"grad/{name}": p.grad.clone() for name, p in model.named_parameters()}


def train(model: PreTrainedModel, batch: Batch, hyper: Training) -> dict[str, torch.Tensor]:
    """AdamW on the same batch; losses and gradient norms before each step, weights after all."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": hyper.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    betas = (hyper.beta1, hyper.beta2)
    optimizer = torch.optim.AdamW(
        groups, lr=hyper.learning_rate, betas=betas, eps=hyper.epsilon, foreach=False
    )
    losses, norms = [], []
    for _ in range(hyper.steps):
        optimizer.zero_grad()
        _, loss = forward(model, batch)
        loss.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(parameters, hyper.max_grad_norm)))
        losses.append(loss.item())
        optimizer.step()
    weights = {f"weight/{name}": p.detach().clone() for name, p in model.named_parameters()}
    curves = {"adamw/losses": losses, "adamw/grad_norms": norms}
    return {k: torch.tensor(v, dtype=torch.float64) for k, v in curves.items()} | weights


def compute(model: PreTrainedModel, batch: Batch, hyper: Training) -> dict[str, torch.Tensor]:
    """Everything a reference holds except the inputs, unsampled."""
    model.eval()
    outputs, loss = forward(model, batch)
    results = {name: tensor.detach() for name, tensor in outputs.items()}
    results["loss"] = loss.detach().reshape(1)
    results |= gradients(model, loss)
    return results | train(model, batch, hyper)


def check_meaningful(model: PreTrainedModel, batch: Batch, results: dict) -> None:
    """Fails when the reference could not tell a wrong implementation from a right one."""
    longest = max(batch.documents(), key=len)
    out = model(input_ids=longest[None], output_hidden_states=True, output_attentions=True)
    start = next(a for a, b in itertools.pairwise(batch.cu_seqlens) if b - a == len(longest))
    layers = len(model.model.layers)
    names = [*(f"hidden/{i}" for i in range(layers)), "hidden/final"]
    for name, states in zip(names, out.hidden_states, strict=True):
        if not torch.equal(states[0], results[name][start : start + len(longest)]):
            raise AssertionError(f"{name} is not what output_hidden_states says")
    attention = torch.stack(out.attentions)[:, 0, :, 8:, :]
    entropy = -(attention * attention.clamp_min(1e-30).log()).sum(-1)
    uniform = torch.arange(9, len(longest) + 1).log()
    if (entropy / uniform).mean() > 0.9:
        raise AssertionError("attention is almost uniform: it would hide a wrong rotation")
    if model.config.rope_parameters["rope_type"] == "llama3" and not all(rope_bands(model.config)):
        raise AssertionError("a band of the llama3 scaling is empty")
    if results["adamw/losses"][-1] > results["adamw/losses"][0] - 0.1:
        raise AssertionError("30 steps hardly changed the loss")


def float32_error(results: dict, exact: dict) -> dict[str, float]:
    """Largest |float32 - float64| / largest |float64| in each group of tensors."""
    errors: dict[str, float] = {}
    for name, truth in exact.items():
        difference = float((results[name].double() - truth.double()).abs().max())
        relative = difference / max(float(truth.abs().max()), 1e-30)
        group = name.split("/")[0] if name.startswith(("hidden", "grad/", "weight")) else name
        errors[group] = max(errors.get(group, 0.0), float(f"{relative:.2e}"))
    return errors


def write_reference(model_dir: Path, out: Path, batch: Batch, hyper: Training, limit: int) -> None:
    """Runs the model of `model_dir` and writes `out`/reference.safetensors."""
    model = AutoModelForCausalLM.from_pretrained(
        model_dir, dtype=torch.float32, attn_implementation="eager"
    )
    pristine = {name: p.detach().clone() for name, p in model.state_dict().items()}
    results = compute(model, batch, hyper)
    model.load_state_dict(pristine)
    check_meaningful(model, batch, results)
    exact = compute(load_exact(model_dir), batch, hyper)
    errors = float32_error(results, exact)
    if max(errors.values()) > 1e-4:
        raise AssertionError(f"float32 cannot follow this model closely: {errors}")
    inputs = {
        "tokens": batch.tokens.int(),
        "targets": batch.targets.int(),
        "cu_seqlens": torch.tensor(batch.cu_seqlens, dtype=torch.int32),
        "f64/loss": exact["loss"],
        "f64/adamw/losses": exact["adamw/losses"],
    }
    metadata = {
        "hooke_reference": "1",
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "float32_error": json.dumps(errors),
        **{key: repr(value) for key, value in vars(hyper).items()},
    }
    out.mkdir(parents=True, exist_ok=True)
    path = out / "reference.safetensors"
    path.write_bytes(stable_bytes(inputs | sample(results, limit), metadata))
    curve = results["adamw/losses"]
    print(f"{out.name:25} {path.stat().st_size:7} B  loss {curve[0]:.4f} -> {curve[-1]:.4f}")
    print(" " * 25, errors)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=REPOSITORY / "tests/golden")
    parser.add_argument("--glassllm", type=Path, default=REPOSITORY / "tests/data/glassllm-en")
    parser.add_argument("--only", metavar="NAME", help="write this reference alone")
    args = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for spec in SPECS:
        if args.only in (None, spec.name):
            directory = args.out / spec.name
            write_model(spec, directory)
            batch = random_batch(vocab_size=101)
            write_reference(directory, directory, batch, Training(1e-3), limit=1 << 20)
    if args.only in (None, "glassllm-en"):
        batch = text_batch(Tokenizer.from_file(str(args.glassllm / "tokenizer.json")))
        out = args.out / "glassllm-en"
        write_reference(args.glassllm, out, batch, Training(1e-4), limit=3000)


if __name__ == "__main__":
    main()
