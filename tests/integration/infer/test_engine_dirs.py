"""What engines that are gone leave in the temporary folder is removed by the next."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.commands import ROOT

ENGINE = (
    "from infer.scoring.engine_dirs import use_own_temporary_folder\n"
    "print(use_own_temporary_folder(), flush=True); input()"
)


def start(shared: Path) -> "tuple[subprocess.Popen[str], Path]":
    """Start what stands for an engine; returns it and its folder."""
    engine = subprocess.Popen(
        [sys.executable, "-c", ENGINE], cwd=ROOT, env=os.environ | {"TMPDIR": str(shared)}, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert engine.stdout is not None
    return engine, Path(engine.stdout.readline().strip())


def test_folders_of_dead_engines_are_removed_and_those_of_others_are_not(tmp_path: Path) -> None:
    (killed, gone), (alive, kept) = start(tmp_path), start(tmp_path)
    killed.kill()
    killed.wait()
    (gone / "socket").touch()
    young = tmp_path / "tb-young"
    young.mkdir()
    for folder in (gone, kept):
        os.utime(folder, (0, 0))
    following, own = start(tmp_path)
    try:
        assert sorted(tmp_path.glob("tb-*")) == sorted([kept, own, young])
    finally:
        for engine in (alive, following):
            engine.communicate("\n")


def test_an_engine_and_what_it_starts_use_its_folder(tmp_path: Path) -> None:
    script = (
        "import subprocess, sys, tempfile\n"
        "from infer.scoring.engine_dirs import use_own_temporary_folder\n"
        "folder = str(use_own_temporary_folder())\n"
        "line = [sys.executable, '-c', 'import tempfile; print(tempfile.gettempdir())']\n"
        "child = subprocess.run(line, capture_output=True, text=True).stdout.strip()\n"
        "print(folder == tempfile.gettempdir() == child)\n"
    )
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    line = [sys.executable, "-c", script]
    done = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "True", done.stderr


@pytest.mark.parametrize("theirs", [False, True])
def test_what_torch_compiles_is_shared_where_nobody_else_may_put_code(theirs: bool, tmp_path: Path) -> None:
    shared = tmp_path / f"tiebreak-compiled-{os.getuid()}"
    if theirs:
        shared.mkdir()
        shared.chmod(0o777)
    script = (
        "import os\n"
        "from infer.scoring.engine_dirs import use_own_temporary_folder\n"
        "use_own_temporary_folder()\n"
        "print(os.environ.get('TORCHINDUCTOR_CACHE_DIR'))\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "TORCHINDUCTOR_CACHE_DIR"}
    line = [sys.executable, "-c", script]
    told = subprocess.check_output(line, cwd=ROOT, env=environment | {"TMPDIR": str(tmp_path)}, text=True)
    assert told.strip() == ("None" if theirs else str(shared))
