"""Starts one trainer as a process and reads what its steps were."""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
HYPER = {
    "learning-rate": 1e-5,
    "weight-decay": 0.01,
    "adam-beta1": 0.9,
    "adam-beta2": 0.95,
    "adam-epsilon": 1e-8,
    "max-grad-norm": 1.0,
}


@dataclass
class Side:
    """What one trainer did over all rounds."""

    name: str
    steps: list[list[dict]] = field(default_factory=list)
    peak_kib: list[int] = field(default_factory=list)
    wall_s: list[float] = field(default_factory=list)

    def rates(self, warmup: int) -> list[float]:
        """Tokens per second of every step that counts."""
        return [s["input_tokens"] / s["seconds"] for run in self.steps for s in run[warmup:]]


def hyper_flags() -> list[str]:
    """The same options for both sides."""
    return [f"--{name}={value!r}" for name, value in HYPER.items()]


def hooke_command(args: argparse.Namespace, rows: Path, output: Path) -> list[str]:
    return [
        str(args.hooke),
        f"--threads={args.threads}",
        "finetune",
        f"--model={args.model}",
        f"--train={rows}",
        f"--output-dir={output}",
        f"--max-steps={args.steps}",
        f"--per-device-train-batch-size={args.documents}",
        "--gradient-accumulation-steps=1",
        f"--max-seq-length={args.tokens // args.documents}",
        "--lr-scheduler-type=constant",
        *hyper_flags(),
    ]


def torch_command(args: argparse.Namespace, ids: Path, dtype: str) -> list[str]:
    return [
        sys.executable,
        str(HERE / "torch_worker.py"),
        f"--model={args.model}",
        f"--ids={ids}",
        f"--dtype={dtype}",
        f"--attention={args.attention}",
        f"--threads={args.threads}",
        f"--max-steps={args.steps}",
        *hyper_flags(),
    ]


def run_process(command: list[str], threads: int, log: Path) -> tuple[str, int, float]:
    """(stdout, peak resident KiB, wall seconds) of a command; its failure is ours."""
    env = os.environ | {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    start = time.perf_counter()
    with log.open("w+") as out, (log.with_suffix(".err")).open("w+") as err:
        process = subprocess.Popen(command, stdout=out, stderr=err, env=env)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        wall = time.perf_counter() - start
        if process.returncode != 0:
            err.seek(0)
            raise SystemExit(f"{' '.join(command)}\nfailed:\n{err.read()[-4000:]}")
        out.seek(0)
        return out.read(), usage.ru_maxrss, wall


def run_side(side: Side, args: argparse.Namespace, rows: Path, ids: Path, work: Path) -> None:
    """One run of one side, its steps appended to it."""
    if side.name == "hooke":
        output = work / f"out-{len(side.steps)}"
        _, peak, wall = run_process(hooke_command(args, rows, output), args.threads, work / "hooke")
        text = (output / "metrics.jsonl").read_text()
    else:
        command = torch_command(args, ids, side.name.removeprefix("torch-"))
        text, peak, wall = run_process(command, args.threads, work / side.name)
    steps = [json.loads(line) for line in text.splitlines()]
    for step in steps:
        step.setdefault("seconds", step["input_tokens"] / step.get("tokens_per_s", float("nan")))
    if sum(step["seconds"] for step in steps) > wall:
        raise SystemExit(f"{side.name} claims more time in its steps than the process lived")
    side.steps.append(steps)
    side.peak_kib.append(peak)
    side.wall_s.append(wall)
    rate = statistics.median(s["input_tokens"] / s["seconds"] for s in steps[args.warmup :])
    print(f"{side.name}: {rate:.0f} tok/s, {peak / 2**20:.2f} GiB, {wall:.1f} s", file=sys.stderr)
