"""What the wrappers start beside their training process is cheap."""

import subprocess
import sys
from pathlib import Path

from train.wrapper_calls import local_stop


def test_the_wrappers_event_actor_does_not_import_the_wrapper(tmp_path: Path) -> None:
    import xgboost_ray.util
    from ray import cloudpickle

    local_stop()
    path = tmp_path / "event"
    path.write_bytes(cloudpickle.dumps(xgboost_ray.util._EventActor))
    script = (
        "import pathlib, sys\nfrom ray import cloudpickle\n"
        f"event = cloudpickle.loads(pathlib.Path({str(path)!r}).read_bytes())\n"
        "print(event.__name__, 'xgboost_ray' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["_EventActor", "False"], done.stderr
