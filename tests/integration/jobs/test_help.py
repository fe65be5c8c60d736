"""What --help prints, and what it may load."""

import json
import subprocess
import sys

import pytest

from ray_jobs.__main__ import JOBS
from tests.helpers.commands import ROOT, environment

# One process for all jobs: each prints the text and the heavy libraries that are loaded after it.
HELP = """
import contextlib, io, json, runpy, sys

heavy = {"ray", "torch", "transformers", "vllm", "sklearn", "pandas", "scipy", "xgboost", "lightgbm"}
result = {}
for job in sys.argv[1:]:
    sys.argv = [job, "--help"]
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        runpy.run_module(f"ray_jobs.{job}", run_name="__main__")
    result[job] = [text.getvalue(), sorted(heavy & set(sys.modules))]
print(json.dumps(result))
"""


@pytest.fixture(scope="module")
def helps():
    """The help text of each job, and the heavy libraries that it or a job before it loaded."""
    line = [sys.executable, "-c", HELP, *JOBS]
    done = subprocess.run(line, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("job", JOBS)
def test_help_is_light(job, helps):
    """No heavy library is loaded for --help, and the docstring says how to run the job."""
    text, loaded = helps[job]
    assert loaded == []
    assert f"Run as: python -m ray_jobs.{job}" in text
