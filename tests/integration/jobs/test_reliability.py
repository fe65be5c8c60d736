"""The fault matrix: every stage of the demo pipeline under every fault, to an undisturbed run's outputs.

`python -m pytest tests/integration/jobs/test_reliability.py --reliability docs/reliability.md` writes the table.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest

from tests.helpers.commands import ROOT, environment, job_line, run_job
from votes import predictions

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]  # a slow machine needs minutes for each

SMALL = [
    "data.synthetic.train_rows=300",
    "data.synthetic.test_rows=60",
    "data.shard_rows=60",
    "data.folds=4",
    "boosters.lightgbm.rounds=60",
    "boosters.xgboost.rounds=60",
]
BOOSTERS, LLMS = ("lightgbm", "xgboost"), ("gemma", "llama")
# What each stage leaves, and how one sees that it is in the middle: by its files, or by a process that does its work.
LEAVES: dict[str, tuple[str, ...]] = {
    "ingest": ("records",),
    "featurize": ("features",),
    "train_boosters": tuple(f"{folder}/{name}" for name in BOOSTERS for folder in ("models", "predictions")),
    "score_llm": tuple(f"{folder}/{name}" for name in LLMS for folder in ("tokens", "predictions")),
    "blend": ("blend",),
    "report": ("report",),
}
MIDDLE: dict[str, str] = {
    "ingest": ".work/ingest/*/*.parquet",
    "featurize": "features/**/*.parquet",
    "train_boosters": "models/*/fold-*/manifest.json",
    "score_llm": "predictions/*/shards/*/*/*.parquet",
}
# Of Ray's processes with an underscore all others are its own.
AT_WORK = ("ray::_make", "ray::FoldWorker", "ray::_RemoteRay")
# None of a stage's work; the death of an agent would end its raylet.
RAYS_OWN = (
    "ray::_", "ray::IDLE", "ray::SPILL", "ray::RESTORE", "ray::DELETE", "ray::DashboardAgent", "ray::RuntimeEnvAgent",
)  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    done = run_job("pipeline", run, *SMALL)
    assert done.returncode == 0, done.stderr
    return run


@pytest.fixture
def before(undisturbed, tmp_path) -> Callable[[str, Path | None], Path]:
    """Makes a run that is finished up to a stage."""

    def make(stage: str, run: Path | None = None) -> Path:
        run = tmp_path / "run" if run is None else run
        shutil.copytree(undisturbed, run)
        names = list(LEAVES)
        for later in names[names.index(stage) :]:
            for folder in LEAVES[later]:
                shutil.rmtree(run / folder)
        return run

    return make


def start(run: Path, **changes: str) -> "subprocess.Popen[str]":
    """Start the pipeline, with changes to its environment."""
    return subprocess.Popen(
        [sys.executable, *job_line("pipeline", run, *SMALL)],
        cwd=ROOT, env=environment(**changes), start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def workers(root: int) -> list[psutil.Process]:
    """Ray's processes below one that are at some work."""
    found = []
    for process in psutil.Process(root).children(recursive=True):
        try:
            name = "".join(process.cmdline())
        except psutil.Error:
            continue
        if name.startswith(AT_WORK) or (name.startswith("ray::") and not name.startswith(RAYS_OWN)):
            found.append(process)
    return found


def in_the_middle(
    stage: str, job: "subprocess.Popen[str]", run: Path, roots: Sequence[int] = ()
) -> list[psutil.Process]:
    """Wait until the stage is at its work; returns the processes that do it, below the job or the roots given."""
    end = time.monotonic() + 300
    while True:
        busy = [process for root in (roots or [job.pid]) for process in workers(root)]
        if busy and (stage not in MIDDLE or next(run.glob(MIDDLE[stage]), None) is not None):
            return busy
        assert job.poll() is None, f"{stage} ended before it was seen: {job.stderr and job.stderr.read()}"
        assert time.monotonic() < end
        time.sleep(0.02)


def finish(run: Path) -> str:
    done = run_job("pipeline", run, *SMALL)
    assert done.returncode == 0, done.stderr
    return done.stderr


def check_same(run: Path, undisturbed: Path) -> None:
    """Boosters to the byte, language models to 1e-5, and the submission with them."""
    for split in ("train", "test"):
        for name in BOOSTERS:
            file = f"predictions/{name}/{split}.parquet"
            assert (run / file).read_bytes() == (undisturbed / file).read_bytes(), file
        for name in LLMS:
            ours, theirs = (pq.read_table(each / f"predictions/{name}/{split}.parquet") for each in (run, undisturbed))
            assert ours["id"].equals(theirs["id"])
            np.testing.assert_allclose(
                predictions.probabilities_from_table(ours), predictions.probabilities_from_table(theirs), atol=1e-5
            )
    ours, theirs = (np.loadtxt(each / "blend/submission.csv", delimiter=",", skiprows=1) for each in (run, undisturbed))
    np.testing.assert_allclose(ours, theirs, atol=1e-3)
    assert (run / "report/index.html").exists()


def goes_on(job: "subprocess.Popen[str]", run: Path, undisturbed: Path) -> str:
    """Wait for a disturbed job, which shall finish all the same; returns that for the table."""
    _, told = job.communicate(timeout=800)
    assert job.returncode == 0, told[-5000:]
    check_same(run, undisturbed)
    return "the job continued"


@pytest.mark.parametrize("stage", LEAVES)
def test_a_killed_worker(stage, before, undisturbed, fault):
    run = before(stage)
    job = start(run)
    at_work = in_the_middle(stage, job, run)
    training = [process for process in at_work if "".join(process.cmdline()).startswith("ray::_RemoteRay")]
    (training or at_work)[-1].kill()
    fault(stage, "kill -9 of a worker", goes_on(job, run, undisturbed))


@pytest.fixture
def cluster() -> Iterator["Cluster"]:
    """Two nodes of two CPUs each, and a head without any."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=2)
        yield cluster
    finally:
        cluster.shutdown()


@pytest.mark.parametrize("stage", LEAVES)
def test_a_lost_node(stage, before, undisturbed, cluster, fault):
    run = before(stage)
    job = start(run, RAY_ADDRESS=cluster.address)
    raylets = {node.all_processes["raylet"][0].process.pid: node for node in cluster.worker_nodes}
    in_the_middle(stage, job, run, list(raylets))
    lost = max(raylets, key=lambda raylet: len(workers(raylet)))
    with_it = psutil.Process(lost).children(recursive=True)
    cluster.remove_node(raylets[lost], allow_graceful=False)
    for process in with_it:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    fault(stage, "kill -9 of a raylet and all of its node", goes_on(job, run, undisturbed))


def raylets_log(job: "subprocess.Popen[str]") -> Path:
    """Where the raylet of the job's own cluster says what it kills."""
    for process in psutil.Process(job.pid).children(recursive=True):
        program, *options = process.cmdline() or [""]
        if program.endswith("/raylet"):
            return Path(next(each for each in options if each.startswith("--log_dir=")).split("=")[1], "raylet.out")
    raise AssertionError("no raylet")


# Takes memory up to what its argument says, waits for a line, and takes more and more.
HOG = """
import sys, time
held = [b"x" * int(sys.argv[1])]
print("ready", flush=True)
sys.stdin.readline()
while True:
    held.append(b"x" * 2**28)
    time.sleep(0.05)
"""


@pytest.mark.parametrize("stage", LEAVES)
def test_memory_pressure(stage, before, undisturbed, fault):
    run = before(stage)
    memory = psutil.virtual_memory()
    allowed = memory.total - memory.available + 6 * 2**30
    if allowed > 0.9 * memory.total:
        pytest.skip("6 GiB of memory that could be taken are not free")
    # Some stages are at work for two seconds only, so most of the memory is taken before.
    hog = subprocess.Popen(
        [sys.executable, "-c", HOG, str(5 * 2**29)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert hog.stdin is not None
        assert hog.stdout is not None
        assert hog.stdout.readline() == "ready\n"
        job = start(run, RAY_memory_usage_threshold=f"{allowed / memory.total:.4f}")
        in_the_middle(stage, job, run)
        log = raylets_log(job)
        print(file=hog.stdin, flush=True)
        end = time.monotonic() + 120
        while "kill details: Memory on the node" not in log.read_text(encoding="utf-8", errors="replace"):
            assert time.monotonic() < end
            assert hog.poll() is None
            time.sleep(0.05)
    finally:
        hog.kill()
        hog.wait()
    fault(stage, "memory pressure, until Ray's monitor kills a worker", goes_on(job, run, undisturbed))


@pytest.mark.parametrize("stage", LEAVES)
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
def test_a_driver_that_is_ended(stage, sent, before, undisturbed, fault):
    run = before(stage)
    job = start(run)
    in_the_middle(stage, job, run)
    os.kill(job.pid, sent)
    _, told = job.communicate(timeout=120)
    if sent == signal.SIGTERM:
        assert job.returncode == 128 + signal.SIGTERM
        assert "Traceback" not in told
    time.sleep(5)  # Ray's processes notice that their driver is gone
    finish(run)
    check_same(run, undisturbed)
    fault(stage, "kill -9 of the driver" if sent == signal.SIGKILL else "SIGTERM", "the same command resumed")


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A disk of 40 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"a disk to fill cannot be mounted: {mounted.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.mark.parametrize("stage", LEAVES)
def test_a_full_disk(stage, before, undisturbed, small_disk, fault):
    run = before(stage, small_disk / "run")
    filler = small_disk / "filler"
    with filler.open("wb") as file:
        free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
        file.write(bytes(max(0, free - 8192)))
    done = run_job("pipeline", run, *SMALL)
    assert done.returncode in (1, 2)
    assert "No space left" in done.stderr.splitlines()[-1]
    filler.unlink()
    finish(run)
    check_same(run, undisturbed)
    fault(stage, "a full disk", f"exit {done.returncode}, 'No space left'; with free space, the same command resumed")


@pytest.mark.parametrize("stage", LEAVES)
def test_damaged_outputs(stage, before, undisturbed, tmp_path, fault):
    run = tmp_path / "run"
    shutil.copytree(undisturbed, run)
    if stage == "report":
        finish(run)  # the page shows where its run lies, so that a copy's is made again
    # Tokens of finished predictions are read by nobody; they are looked at when they are needed again.
    folders = [run / folder for folder in LEAVES[stage] if not folder.startswith("tokens")]
    damaged = [min(folders[0].rglob("*.parquet"))]  # of one folder's only the first would be named
    if len(folders) > 1:
        damaged.append(max(folders[-1].rglob("*.parquet")))
    for path in damaged:
        path.write_bytes(path.read_bytes()[:-50])
    told = finish(run)
    for path in damaged:
        assert f"{path} changed on disk; rebuilding" in told
    manifest = run / LEAVES[stage][-1] / "manifest.json"
    manifest.write_bytes(manifest.read_bytes()[:-20])
    assert f"{manifest} is corrupt" in finish(run)
    check_same(run, undisturbed)
    fault(stage, "a cut-off Parquet file and manifest", "logged, rebuilt")
