"""How transformers reads weights: from safetensors alone, since its older format is pickle, which can run anything."""

from typing import Any, Final

SAFE: Final[dict[str, Any]] = {"use_safetensors": True, "trust_remote_code": False}
