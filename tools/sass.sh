#!/usr/bin/env bash
# What the compiler made of the kernels: registers, shared memory, occupancy, instruction mix.
#
#   tools/sass.sh [--arch 80,90a] [--kernel NAME] [--code] [FILE.cu ...]     default: all kernels
#
# --kernel: only kernels whose name contains NAME. --code: their SASS, annotated, after the table.
# Needs the compiler of tools/cuda_toolchain.sh (or NVCC, CUDA_HOME). The disassembler comes from
# pinned, hash-checked PyPI wheels (5 MB) and stays in target/. No GPU is needed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=${PYTHON:-python3}
archs=80,90a
kernel= code= files=()

fail() {
    echo "sass.sh: $*" >&2
    exit 1
}

while [ $# -gt 0 ]; do
    case $1 in
    --arch) archs=${2:?--arch needs a list such as 80,90a} && shift 2 ;;
    --kernel) kernel=${2:?--kernel needs a name} && shift 2 ;;
    --code) code=--code && shift ;;
    -h | --help) sed -n '2,8s/^# \{0,1\}//p' "$0" && exit 0 ;;
    -*) fail "unknown option $1; see --help" ;;
    *) files+=("$1") && shift ;;
    esac
done
[ ${#files[@]} -gt 0 ] || files=(kernels/*.cu)

if [ -n "${NVCC:-}" ]; then
    nvcc=$NVCC
elif [ -n "${CUDA_HOME:-}" ]; then
    nvcc=$CUDA_HOME/bin/nvcc
elif [ -x .cuda/bin/nvcc ]; then
    nvcc=.cuda/bin/nvcc
else
    nvcc=$(command -v nvcc) || fail "no nvcc: run tools/cuda_toolchain.sh, or set CUDA_HOME"
fi
[ -x "$nvcc" ] || fail "$nvcc is not a program"

# The oldest published wheels; a disassembler reads what older compilers wrote.
wheels() {
    cat <<'WHEELS'
nvidia-cuda-cuobjdump 13.2.51 95c69d3ddf0c2c1f535ec44c3433a66aeee19f588d9d22f73356e20b25f12b50
nvidia-cuda-nvdisasm  13.2.51 5a7acf77c55d6d2911ed6155d4d5bc156ffadf9df7a68a89b0c1155f4b13688c
WHEELS
}
# Appears whole or not at all.
disassembler=target/cuda-disassembler
if [ "$(cat "$disassembler/PINS" 2>/dev/null)" != "$(wheels)" ]; then
    mkdir -p target
    staging=$(mktemp -d target/.cuda-disassembler.XXXXXX)
    trap 'rm -rf "$staging"' EXIT
    wheels | while read -r name version hash; do
        echo "$name==$version --hash=sha256:$hash"
    done >"$staging/requirements.txt"
    "$python" -m pip install --quiet --disable-pip-version-check --root-user-action=ignore \
        --no-compile --no-deps --only-binary :all: --require-hashes \
        --target "$staging/site" -r "$staging/requirements.txt" ||
        fail "pip could not get the wheels (see above)"
    [ -f "$staging/site/nvidia/cu13/bin/nvdisasm" ] || fail "the wheels' layout changed"
    chmod +x "$staging"/site/nvidia/cu13/bin/*
    wheels >"$staging/site/nvidia/cu13/bin/PINS"
    rm -rf "$disassembler"
    mv -T "$staging/site/nvidia/cu13/bin" "$disassembler"
fi

work=$(mktemp -d)
trap 'rm -rf "$work" ${staging:+"$staging"}' EXIT
for arch in ${archs//,/ }; do
    for file in "${files[@]}"; do
        [ -f "$file" ] || fail "$file does not exist"
        name=$(basename "$file" .cu)
        # As build.rs: instructions of sm_90 only where they exist.
        case $name in *_sm90) [ "${arch%%[a-z]*}" -ge 90 ] || continue ;; esac
        cubin=$work/$name.sm_$arch.cubin
        "$nvcc" -std=c++17 -O3 -lineinfo -Ikernels "-arch=sm_$arch" -cubin -o "$cubin" "$file"
        "$disassembler/nvdisasm" -c "$cubin" >"$cubin.sass"
        PATH=$disassembler:$PATH "$disassembler/cuobjdump" -res-usage "$cubin" >"$cubin.usage" 2>&1
        PATH=$disassembler:$PATH "$disassembler/cuobjdump" -elf "$cubin" >"$cubin.elf" 2>&1
    done
    "$python" tools/sass_report.py --arch "$arch" ${kernel:+--kernel "$kernel"} $code \
        "$work"/*.sm_"$arch".cubin
done
