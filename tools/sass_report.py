#!/usr/bin/env python3
"""Tables from disassembled kernels; called by tools/sass.sh.

For each kernel: registers, threads, spills, blocks and warps per multiprocessor that registers and
threads allow, the dynamic shared memory per block that still allows as many, instructions by class,
and the same for its hottest loop: the innermost loop with most matrix instructions, or else with
most instructions.
"""

import argparse
import re
import sys
from dataclasses import dataclass, field

# Per multiprocessor: warps, blocks, shared memory in KiB; per block: KiB (CUDA programming guide).
LIMITS = {80: (64, 32, 164, 163), 86: (48, 16, 100, 99), 89: (48, 24, 100, 99), 90: (64, 32, 228, 227)}
REGISTERS = 65536

# First match wins.
CLASSES = [
    ("mma", r"HGMMA|HMMA|IMMA|WGMMA"),
    ("ldmatrix", r"LDSM|STSM|MOVM"),
    ("async", r"LDGSTS|UTMA|UBLKCP|LDGDEPBAR|DEPBAR|ARRIVES|SYNCS|WARPGROUP|UTMACMDFLUSH"),
    ("global", r"LDG|STG|LD\b|ST\b|RED|ATOM"),
    ("shared", r"LDS|STS"),
    ("local", r"LDL|STL"),
    ("barrier", r"BAR|WARPSYNC|BSYNC|BSSY|MEMBAR|FENCE|ELECT|UCGABAR"),
    ("shuffle", r"SHFL|VOTE|REDUX|MATCH"),
    ("special", r"MUFU"),
    ("float", r"F2FP|F2F|FFMA|FADD|FMUL|FSETP|FSEL|FMNMX|FCHK|HADD|HFMA|HMUL|HSET|I2F|F2I|D(FMA|ADD|MUL)"),
    ("branch", r"BRA|EXIT|CALL|RET|BREAK|BRX|JMP|YIELD|NOP|BMOV|WARPSYNC"),
    ("integer", r".*"),
]


@dataclass
class Kernel:
    name: str
    registers: int = 0
    stack: int = 0
    shared: int = 0
    local: int = 0
    threads: int = 0
    # (address, opcode, text, target label or None) and label -> address
    code: list = field(default_factory=list)
    labels: dict = field(default_factory=dict)


def read_usage(path, kernels):
    """Registers and memory of `cuobjdump -res-usage`."""
    name = None
    for line in open(path):
        if found := re.match(r"\s*Function ([\w$]+):", line):
            name = found[1]
        elif name and "REG:" in line:
            value = lambda key: int(re.search(key + r":(\d+)", line)[1])
            kernels[name] = Kernel(name, value("REG"), value("STACK"), value("SHARED"), value("LOCAL"))
            name = None


def read_threads(path, kernels):
    """Launch bounds of `cuobjdump -elf`: the product of MAX_THREADS (or REQNTID)."""
    name = attribute = None
    for line in open(path):
        if found := re.match(r"\.nv\.info\.([\w$]+)", line):
            name = found[1]
        elif line.startswith("."):
            name = None
        elif found := re.search(r"Attribute:\s+(\w+)", line):
            attribute = found[1]
        elif name in kernels and attribute in ("EIATTR_MAX_THREADS", "EIATTR_REQNTID"):
            if found := re.search(r"Value:\s+(0x[0-9a-f]+) (0x[0-9a-f]+) (0x[0-9a-f]+)", line):
                kernels[name].threads = int(found[1], 16) * int(found[2], 16) * int(found[3], 16)


def read_code(path, kernels):
    """Instructions and labels of `nvdisasm -c`."""
    kernel, pending = None, []
    for line in open(path):
        if found := re.match(r"\.text\.([\w$]+):", line):
            kernel, pending = kernels.get(found[1]), []
        elif found := re.match(r"(\.L[\w$]+):", line):
            pending.append(found[1])
        elif kernel and (found := re.match(r"\s+/\*([0-9a-f]+)\*/\s+(.*?)\s*;", line)):
            address, text = int(found[1], 16), found[2]
            kernel.labels.update(dict.fromkeys(pending, address))
            pending = []
            opcode = re.sub(r"^@!?U?P\w+\s+", "", text).split()[0]
            jump = re.search(r"`\((\.L[\w$]+)\)", text) if opcode.startswith("BRA") else None
            kernel.code.append((address, opcode, text, jump and jump[1]))


def class_of(opcode):
    return next(name for name, pattern in CLASSES if re.match(r"U?(?:%s)" % pattern, opcode))


def mix_of(code):
    counts = {}
    for _, opcode, *_ in code:
        counts[class_of(opcode)] = counts.get(class_of(opcode), 0) + 1
    return counts


def show_mix(counts):
    order = [name for name, _ in CLASSES if name in counts]
    return ", ".join(f"{counts[name]} {name}" for name in order)


def hottest_loop(kernel):
    """The innermost loop with most matrix instructions, else the longest innermost one."""
    loops = []
    for address, _, _, target in kernel.code:
        start = kernel.labels.get(target)
        # A branch to itself is the padding behind the end of a kernel.
        if start is not None and start < address:
            loops.append((start, address))
    inner = [a for a in loops if not any(b != a and a[0] <= b[0] and b[1] <= a[1] for b in loops)]
    bodies = [[i for i in kernel.code if start <= i[0] <= end] for start, end in inner]
    # A loop that only drains a tail may be innermost while the busy one holds it: prefer matrices.
    with_mma = [[i for i in kernel.code if start <= i[0] <= end] for start, end in loops]
    with_mma = [body for body in with_mma if mix_of(body).get("mma")]
    if with_mma:
        most = max(mix_of(body)["mma"] for body in with_mma)
        return min((body for body in with_mma if mix_of(body)["mma"] == most), key=len)
    return max(bodies, key=len, default=[])


def report(kernel, arch):
    max_warps, max_blocks, shared_sm, shared_block = LIMITS.get(arch, LIMITS[80])
    warps = -(-kernel.threads // 32) or 1
    # Registers are given out per warp in units of 256.
    per_warp = -(-kernel.registers * 32 // 256) * 256
    blocks = min(max_blocks, max_warps // warps, REGISTERS // per_warp // warps)
    # Each block also costs 1 KiB of the system's.
    room = min(shared_block, shared_sm // blocks - 1) if blocks else 0
    spills = f", {kernel.stack} B stack, {kernel.local} B local" if kernel.stack + kernel.local else ""
    real = [i for i in kernel.code if i[1] != "NOP"]
    print(f"{kernel.name}")
    print(
        f"  {kernel.registers} registers, {kernel.threads} threads{spills}: {blocks} blocks, "
        f"{blocks * warps} of {max_warps} warps with up to {room} KiB of shared memory each"
    )
    print(f"  {len(real)} instructions: {show_mix(mix_of(real))}")
    if loop := hottest_loop(kernel):
        print(f"  hottest loop, {len(loop)}: {show_mix(mix_of(loop))}")
    return bool(spills) or "local" in mix_of(real)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", required=True)
    parser.add_argument("--kernel", default="")
    parser.add_argument("--code", action="store_true")
    parser.add_argument("cubins", nargs="+")
    options = parser.parse_args()
    arch = int(options.arch.rstrip("abcdefghijklmnopqrstuvwxyz"))
    spilled = []
    for cubin in options.cubins:
        kernels = {}
        read_usage(cubin + ".usage", kernels)
        read_threads(cubin + ".elf", kernels)
        read_code(cubin + ".sass", kernels)
        chosen = [kernels[name] for name in sorted(kernels) if options.kernel in name]
        if chosen:
            print(f"== {re.sub(r'.*/', '', cubin)}")
        for kernel in chosen:
            if report(kernel, arch):
                spilled.append(kernel.name)
            if options.code:
                marks = {address: label for label, address in kernel.labels.items()}
                for address, _, text, _ in kernel.code:
                    if address in marks:
                        print(f"{marks[address]}:")
                    print(f"    {address:04x}  {text}")
    if spilled:
        sys.exit(f"local memory is used by {', '.join(spilled)}")


if __name__ == "__main__":
    main()
