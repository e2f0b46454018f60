"""What a measurement was made on and with."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent.parent


def machine() -> dict[str, str]:
    """Processor, its wide instructions, cores, memory and load."""
    info = dict(
        line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line
    )
    info = {key.strip(): value.strip() for key, value in info.items()}
    wide = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
    flags = [flag for flag in wide if flag in info.get("flags", "").split()]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cpu": info.get("model name", platform.processor()),
        "flags": "+".join(flags),
        "cores": str(os.cpu_count()),
        "memory": f"{memory:.0f} GiB",
        "load": " ".join(f"{x:.2f}" for x in os.getloadavg()),
        "kernel": platform.release(),
    }


def versions(hooke: Path | None) -> dict[str, str]:
    """Of everything that was measured."""
    names = ("torch", "transformers")
    found = {"python": platform.python_version()} | {name: version(name) for name in names}
    found["commit"] = output(["git", "-C", str(REPOSITORY), "rev-parse", "--short=12", "HEAD"])
    if output(["git", "-C", str(REPOSITORY), "status", "--porcelain", "--untracked-files=no"]):
        found["commit"] += " with changes"
    if hooke:
        found["hooke"] = output([str(hooke), "--version"]).removeprefix("hooke ")
    return found


def output(command: list[str]) -> str:
    """What a command prints, or why it could not."""
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError) as error:
        return f"unknown ({error})"
