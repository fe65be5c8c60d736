#!/usr/bin/env bash
# Installs the project's environment on a node of a cluster, once: from requirements/lock.txt, or on a machine with an
# NVIDIA GPU from requirements/gpu.txt. Does nothing where that very lock file is installed already.
#
#   LOCK               `lock` or `gpu`, to choose the file by name (an image is built where no GPU is)
#   DRIVER_SECONDS     how long NVIDIA's driver, which comes up late on a first boot, is waited for
#   PYTHON             the interpreter to use; else uv's own build of the version below, the same on every node, since
#                      Ray joins no nodes whose Pythons differ even in the third number
#   UV_TORCH_BACKEND   where machines without a GPU get torch: `cpu` is PyTorch's own index
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
    # With the other file its jobs would fail only once they ask for the GPU.
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
    # On its first boot a machine updates itself, and holds apt's locks for some minutes.
    for ((try = 1; ; try++)); do
      if sudo apt-get update -qq && sudo apt-get install -y -qq python3-venv; then break; fi
      if ((try == 30)); then exit 1; fi
      sleep 10
    done
    python3 -m venv --clear "$home/uv"
  fi
  "$home/uv/bin/pip" install --quiet --disable-pip-version-check "uv==$UV_VERSION"
fi

echo "installing $(grep -c == "$lock") packages of $(basename "$lock") into $home/venv, some minutes"
"$uv" venv --quiet --clear --python "${PYTHON:-$PYTHON_VERSION}" "$home/venv"
if [[ $lock == */gpu.txt ]]; then
  "$uv" pip install --quiet --python "$home/venv/bin/python" --no-deps --requirement "$lock"
else
  # What the lock file leaves out is not needed, so nothing is resolved.
  UV_TORCH_BACKEND=${UV_TORCH_BACKEND:-cpu} \
    "$uv" pip install --quiet --python "$home/venv/bin/python" --no-deps --requirement "$lock"
fi
touch "$ready"
