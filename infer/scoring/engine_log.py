"""Find the cause of an actor's death in its log."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import ray
from ray.util import get_node_ip_address

if TYPE_CHECKING:
    from ray.exceptions import RayError

# "RuntimeError: no room", also where vLLM puts its process's name or its place in the code before it.
_ERROR = re.compile(r"(?:^|\) |\] )((?:\w+\.)*\w*(?:Error|Exception): \S.*)$", re.MULTILINE)
_ELSEWHERE = "root cause"  # in what vLLM logs of an error that it has logged before


def death_cause(error: RayError) -> str:
    """Return why an actor died: the last error in its local log, with Ray's message. Without a local log, return the
    last error in Ray's message, or the whole message.
    """
    message = str(error)
    process, node = (re.search(rf"\b{name}[:=] ?([\w.:]+)", message) for name in ("pid", "ip"))
    if process and node and ray.is_initialized() and node[1] == get_node_ip_address():
        context = ray.get_runtime_context()
        folder = Path(context.get_temp_dir(), context.get_session_name(), "logs")
        for file in sorted(folder.glob(f"worker-*-{context.get_job_id()}-{process[1]}.*")):
            last = last_error(file.read_text("utf-8", errors="replace"))
            if last:
                return f"{last} (last in {file}). Ray says: {message}"
    return last_error(message) or message


def last_error(text: str) -> str:
    """Return the last error that a log names; empty if there is none."""
    errors = [line for line in _ERROR.findall(text) if _ELSEWHERE not in line]
    return errors[-1].strip() if errors else ""
