#!/usr/bin/env bash
# Puts a CUDA compiler into .cuda/ (git-ignored) from pinned, hash-checked PyPI wheels.
#
#   tools/cuda_toolchain.sh [DIRECTORY]        default: .cuda in the project root
#
# No root, no driver and no GPU are needed; about 300 MB. Running it again does nothing. The
# directory appears whole or not at all. build.rs finds it by itself.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
destination=${1:-$root/.cuda}
python=${PYTHON:-python3}

fail() {
    echo "cuda_toolchain.sh: $*" >&2
    exit 1
}

# One line per wheel: name, version, SHA-256 of the x86_64 wheel.
wheels() {
    cat <<'WHEELS'
nvidia-cuda-nvcc    13.0.88 56fe502eb77625a12f25172caa3cdddb4e4c8ba2c8c17dba44b164761b380f03
nvidia-nvvm         13.0.88 c5f41ffeb6466944a026dfa5317d7d85355c119bbec279205d22f1869d1054e0
nvidia-cuda-crt     13.0.88 2c8043c7c9e02492716426e9919fc78d2c5b3b2a7a768a88e952676b08aa55a4
nvidia-cuda-runtime 13.0.88 422a38f7c739ecbdd3a4b6ec7ed0a1d74db43d8e9bc26685f3d845638922b178
nvidia-cuda-cccl    13.0.85 e0da7ad981f3a8aff08241b5bfc1af868742a63e2762f53a5171c492ef242649
WHEELS
}

pins=$(wheels)
if [ -e "$destination" ] && [ "$(cat "$destination/PINS" 2>/dev/null)" = "$pins" ]; then
    echo "$destination is up to date: $("$destination/bin/nvcc" --version | grep -o 'V[0-9][0-9.]*')"
    exit 0
fi
if [ -e "$destination" ] && [ ! -e "$destination/PINS" ]; then
    fail "$destination exists and was not made by this script; remove it or name another place"
fi
[ "$(uname -sm)" = "Linux x86_64" ] ||
    fail "the pinned wheels are for Linux x86_64, this is $(uname -sm); install CUDA 13 and set CUDA_HOME"
"$python" -m pip --version >/dev/null 2>&1 || fail "needs Python 3 with pip (PYTHON=$python)"
command -v g++ >/dev/null || fail "nvcc needs g++ as its host compiler"

mkdir -p "$(dirname "$destination")"
staging=$(mktemp -d "$(dirname "$destination")/.cuda_toolchain.XXXXXX")
trap 'rm -rf "$staging"' EXIT

echo "$pins" | while read -r name version hash; do
    echo "$name==$version --hash=sha256:$hash"
done >"$staging/requirements.txt"
"$python" -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-compile --no-deps \
    --only-binary :all: --require-hashes --target "$staging/site" -r "$staging/requirements.txt" ||
    fail "pip could not get the wheels (see above)"

toolkit=$staging/site/nvidia/cu13
[ -f "$toolkit/bin/nvcc" ] || fail "the wheels hold no nvidia/cu13/bin/nvcc: their layout changed"
chmod -R u+rwX,go+rX "$toolkit"
find "$toolkit/bin" "$toolkit/nvvm/bin" -type f -exec chmod +x {} +
echo "$pins" >"$toolkit/PINS"

# A compiler that cannot compile is not installed.
echo 'extern "C" __global__ void probe(float* x) { x[threadIdx.x] += 1.0f; }' >"$staging/probe.cu"
"$toolkit/bin/nvcc" -arch=sm_90a -cubin -o "$staging/probe.cubin" "$staging/probe.cu" ||
    fail "the installed nvcc does not work (see above)"

rm -rf "$destination"
mv -T "$toolkit" "$destination"
# build.rs does not watch a directory that was absent: have it look again.
if [ -f "$root/build.rs" ]; then touch "$root/build.rs"; fi
echo "$destination: nvcc $("$destination/bin/nvcc" --version | grep -o 'V[0-9][0-9.]*')"
