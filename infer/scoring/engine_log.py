"""What a process of Ray said before it died, from Ray's logs."""

import re
from pathlib import Path

import ray
from ray.exceptions import RayError
from ray.util import get_node_ip_address

# "RuntimeError: no room", also where vLLM puts its process's name or its place in the code before it.
_ERROR = re.compile(r"(?:^|\) |\] )((?:\w+\.)*\w*(?:Error|Exception): \S.*)$", re.MULTILINE)
_ELSEWHERE = "root cause"  # in what vLLM says of an error that it has printed before


def cause(error: RayError) -> str:
    """Why an actor died: the last error in its log, and what Ray says, if the log is on this machine.

    Else the last error in what Ray says, or all of it if there is none.
    """
    said = str(error)
    process, place = (re.search(rf"\b{name}[:=] ?([\w.:]+)", said) for name in ("pid", "ip"))
    if process and place and ray.is_initialized() and place[1] == get_node_ip_address():
        context = ray.get_runtime_context()
        folder = Path(context.get_temp_dir(), context.get_session_name(), "logs")
        for file in sorted(folder.glob(f"worker-*-{context.get_job_id()}-{process[1]}.*")):
            found = last_error(file.read_text("utf-8", errors="replace"))
            if found:
                return f"{found} (last in {file}). Ray says: {said}"
    return last_error(said) or said


def last_error(text: str) -> str:
    """The last error that a log names; empty if there is none."""
    found = [line for line in _ERROR.findall(text) if _ELSEWHERE not in line]
    return found[-1].strip() if found else ""
