#!/usr/bin/env bash
# Trains the same steps with hooke and with PyTorch, side by side.
#
#   benches/peers/run.sh --model DIR [options of train_step.py]
#
# Makes benches/peers/.venv at the first call (PyPI's torch for Linux brings its CUDA libraries:
# 6 GB; PEERS_VENV names another directory). Build first: cargo build --release. HOOKE names another
# binary; HOOKE= (empty) measures PyTorch alone.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
venv=${PEERS_VENV:-$here/.venv}
hooke=${HOOKE-${CARGO_TARGET_DIR:-$root/target}/release/hooke}
PACKAGES=(torch==2.15.0 transformers==5.24.0 tokenizers==0.23.3 safetensors==0.8.0 numpy==2.4.6)

if [ -n "$hooke" ] && [ ! -x "$hooke" ]; then
  echo "run.sh: $hooke is not there; cargo build --release" >&2
  exit 1
fi
if ! "$venv/bin/python" -c "import torch, transformers" 2>/dev/null; then
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check "${PACKAGES[@]}"
fi
exec "$venv/bin/python" "$here/train_step.py" ${hooke:+--hooke "$hooke"} \
  --text "$root/tests/data/movie-snippets/train.jsonl" "$@"
