"""The shell commands of the files that `ray up` takes, as Ray sends them."""

import shlex
import subprocess

import pytest
from ray.autoscaler._private.command_runner import _with_environment_variables, _with_interactive
from ray.autoscaler._private.util import prepare_config

from tests.helpers.cluster_files import LAUNCHED, read


@pytest.mark.parametrize("path", LAUNCHED, ids=lambda path: path.name)
def test_commands_are_sound_as_ray_sends_them(path):
    config = prepare_config(read(path))
    for kind in ("setup_commands", "head_start_ray_commands", "worker_start_ray_commands"):
        for command in config[kind]:
            line = _with_interactive(_with_environment_variables(command, {"RAY_HEAD_IP": "192.0.2.1"}))
            subprocess.run(["bash", "-n", "-c", shlex.split(line[-1])[0]], check=True)
