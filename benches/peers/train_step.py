"""hooke against PyTorch: the same training steps, in turns, on the same machine.

Every side starts from the same checkpoint and takes the same optimizer steps on the same batch of
documents with the same threads, once per round; sides alternate so that a change in the machine's
load or clock hits all of them. The batch is the same at every step because the cost of a step does
not depend on its tokens, and so the order in which a trainer visits its rows cannot matter.

That they do the same work is checked, not assumed: token counts must be equal and every loss of
hooke must be within --max-loss-difference of PyTorch's float32.

Tokens per second are input tokens over the time of a step, median over all rounds without the
first --warmup steps. Peak memory is the process's maximum resident set (wait4), model included.
run.sh makes the environment.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path

from peer_data import make_documents, read_text, write_documents
from peer_machine import machine, versions
from peer_run import HYPER, Side, run_side


def largest_loss_difference(side: Side, reference: Side) -> float:
    """Over all steps of all rounds; refuses sides whose steps are not the same work."""
    differences = []
    for run, other in zip(side.steps, reference.steps, strict=True):
        for a, b in zip(run, other, strict=True):
            for key in ("step", "input_tokens", "trained_tokens"):
                if a[key] != b[key]:
                    raise SystemExit(f"{side.name}: {key} {a[key]}, {reference.name}: {b[key]}")
            differences.append(abs(a["loss"] - b["loss"]))
    return max(differences)


def summarize(sides: list[Side], args: argparse.Namespace) -> list[dict]:
    """One row per side."""
    reference = next((side for side in sides if side.name == "torch-f32"), sides[0])
    rows = []
    for side in sides:
        rates = side.rates(args.warmup)
        rows.append(
            {
                "side": side.name,
                "tokens_per_s": statistics.median(rates),
                "tokens_per_s_min": min(rates),
                "tokens_per_s_max": max(rates),
                "peak_gib": max(side.peak_kib) / 2**20,
                "process_s": statistics.median(side.wall_s),
                "first_loss": side.steps[0][0]["loss"],
                "last_loss": side.steps[0][-1]["loss"],
                "loss_difference": largest_loss_difference(side, reference),
                "steps": side.steps,
            }
        )
    return rows


def print_table(rows: list[dict]) -> None:
    head = ("side", "tok/s", "min", "max", "peak GiB", "first loss", "last loss", "max loss diff")
    print(("{:12}" + "{:>14}" * 7).format(*head))
    for row in rows:
        print(
            f"{row['side']:12}{row['tokens_per_s']:14.1f}{row['tokens_per_s_min']:14.1f}"
            f"{row['tokens_per_s_max']:14.1f}{row['peak_gib']:14.2f}{row['first_loss']:14.5f}"
            f"{row['last_loss']:14.5f}{row['loss_difference']:14.1e}"
        )
    by_name = {row["side"]: row for row in rows}
    if "hooke" not in by_name:
        return
    hooke = by_name.pop("hooke")
    for name, row in by_name.items():
        speed = hooke["tokens_per_s"] / row["tokens_per_s"]
        memory = hooke["peak_gib"] / row["peak_gib"]
        print(f"hooke / {name}: {speed:.2f}x tokens/s, {memory:.2f}x peak memory")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="Hugging Face directory")
    parser.add_argument("--text", type=Path, required=True, help="plain text or JSONL with text")
    parser.add_argument("--hooke", type=Path, help="the release binary; without it only PyTorch")
    parser.add_argument("--dtypes", default="f32,bf16", help="PyTorch runs; default f32,bf16")
    parser.add_argument("--attention", default="sdpa", help="PyTorch's: sdpa (default) or eager")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=1024, help="tokens in a step")
    parser.add_argument("--documents", type=int, default=1, help="documents the tokens are in")
    parser.add_argument("--steps", type=int, default=10, help="steps in a run")
    parser.add_argument("--warmup", type=int, default=2, help="steps not counted in each run")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--max-loss-difference", type=float, default=1e-3)
    parser.add_argument("--json", type=Path, help="write everything measured to this file")
    args = parser.parse_args()
    if args.tokens % args.documents or args.steps <= args.warmup:
        parser.error("--documents must divide --tokens, and --steps exceed --warmup")
    return args


def main() -> None:
    args = parse_args()
    names = (["hooke"] if args.hooke else []) + [f"torch-{d}" for d in args.dtypes.split(",")]
    sides = [Side(name) for name in names]
    length = args.tokens // args.documents
    documents = make_documents(args.model, read_text(args.text), args.documents, length)
    before = machine()
    print("; ".join(f"{key} {value}" for key, value in before.items()))
    print("; ".join(f"{key} {value}" for key, value in versions(args.hooke).items()))
    print(
        f"{args.tokens} tokens a step in {args.documents} document(s), {args.threads} thread(s), "
        f"{args.rounds} round(s) of {args.steps} steps, the first {args.warmup} not counted"
    )
    with tempfile.TemporaryDirectory(prefix="hooke-peers-") as directory:
        work = Path(directory)
        rows, ids = write_documents(documents, work)
        for _ in range(args.rounds):
            for side in sides:
                run_side(side, args, rows, ids, work)
    results = summarize(sides, args)
    print_table(results)
    if args.json:
        write_json(args, before, results)
    for row in results:
        if row["side"] == "hooke" and not row["loss_difference"] <= args.max_loss_difference:
            raise SystemExit("hooke's losses are not PyTorch's: the comparison is void")


def write_json(args: argparse.Namespace, before: dict, results: list[dict]) -> None:
    """Everything needed to judge or repeat the run."""
    options = {key: str(v) if isinstance(v, Path) else v for key, v in vars(args).items()}
    report = {
        "options": options | HYPER,
        "machine": before,
        "load_after": machine()["load"],
        "versions": versions(args.hooke),
        "results": results,
    }
    args.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
