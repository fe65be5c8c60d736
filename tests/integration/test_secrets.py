"""No secret of the environment is left in a run or in what a job prints."""

import pytest

from tests.helpers.commands import run_job


@pytest.mark.slow
def test_secrets_of_the_environment_are_left_nowhere(tmp_path, monkeypatch):
    secrets = {name: f"secret-of-{name}" for name in ("AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "AWS_SESSION_TOKEN")}
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    small = ["data.synthetic.train_rows=60", "data.synthetic.test_rows=10", "data.folds=2", "llms=[]"]
    done = run_job("pipeline", tmp_path / "run", *small, "boosters=[{name: lightgbm, engine: lightgbm, rounds: 5}]")
    assert done.returncode == 0, done.stderr
    said = {"output": done.stdout.encode() + done.stderr.encode()}
    left = {str(path): path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert len(left) > 10
    for place, content in (said | left).items():
        for value in secrets.values():
            assert value.encode() not in content, place
