#!/usr/bin/env bash
# Install the project's environment on a node of a cluster, once: from requirements/lock.txt, or on a machine with an
# NVIDIA GPU from requirements/gpu.txt. Do nothing if this lock file is already installed.
#
#   LOCK               `lock` or `gpu`: choose the lock file (images are built on machines without a GPU)
#   DRIVER_SECONDS     seconds to wait for NVIDIA's driver, which loads late on a first boot
#   PYTHON             the interpreter; default: uv's build of the version below, the same on every node, since Ray
#                      refuses nodes whose Python versions differ, even in the patch number
#   UV_TORCH_BACKEND   source of torch on machines without a GPU: `cpu` is PyTorch's own index
set -euo pipefail

PYTHON_VERSION=3.11.13
UV_VERSION=0.13.9

home=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
if [[ -z ${LOCK:-} ]]; then
  LOCK=lock
  if lspci 2>/dev/null | grep -i nvidia >/dev/null; then
    for ((second = 0; second < ${DRIVER_SECONDS:-120}; second++)); do
      if nvidia-smi >/dev/null 2>&1; then break; fi
      sleep 1
    done
    # With lock.txt, jobs would fail only when they request the GPU.
    if ! nvidia-smi >/dev/null 2>&1; then
      echo "error: this machine has an NVIDIA GPU, but nvidia-smi does not answer. Fix: install its driver, or set" \
        "LOCK=lock to use the machine without the GPU." >&2
      exit 1
    fi
  fi
  if nvidia-smi >/dev/null 2>&1; then LOCK=gpu; fi
fi
lock=$home/requirements/$LOCK.txt
ready=$home/venv/.ready-$(sha256sum "$lock" | cut -c1-16)
if [[ -e $ready ]]; then
  echo "$home/venv is as $(basename "$lock") says"
  exit 0
fi

uv=$home/uv/bin/uv
if [[ ! -x $uv ]]; then
  if ! python3 -m venv --clear "$home/uv" >/dev/null 2>&1; then
    # On its first boot a machine updates itself and holds apt's locks for a few minutes.
    for ((try = 1; ; try++)); do
      if sudo apt-get update -qq && sudo apt-get install -y -qq python3-venv; then break; fi
      if ((try == 30)); then exit 1; fi
      sleep 10
    done
    python3 -m venv --clear "$home/uv"
  fi
  "$home/uv/bin/pip" install --quiet --disable-pip-version-check "uv==$UV_VERSION"
fi

echo "installing $(grep -c == "$lock") packages of $(basename "$lock") into $home/venv; this takes a few minutes"
"$uv" venv --quiet --clear --python "${PYTHON:-$PYTHON_VERSION}" "$home/venv"
if [[ $lock == */gpu.txt ]]; then
  "$uv" pip install --quiet --python "$home/venv/bin/python" --no-deps --requirement "$lock"
else
  # The lock file is complete, so nothing needs to be resolved.
  UV_TORCH_BACKEND=${UV_TORCH_BACKEND:-cpu} \
    "$uv" pip install --quiet --python "$home/venv/bin/python" --no-deps --requirement "$lock"
fi
touch "$ready"
