"""The console command: the list of jobs, help, exit codes and log levels."""

import subprocess
import sys
import time

import pytest

from ray_jobs.__main__ import JOBS, main
from tests.helpers.commands import ROOT, environment

HEAVY = {"ray", "torch", "transformers", "vllm", "sklearn", "pandas", "scipy", "xgboost", "lightgbm", "gensim", "spacy"}
CONFIG = "run: {run}\ndata: {{train: votes.csv}}\n"


def test_help_loads_no_heavy_library():
    """One process for all jobs: `--help` prints the options and the settings that the job reads."""
    script = (
        "import contextlib, io, sys\n"
        "from ray_jobs.__main__ import JOBS, main\n"
        "for job in JOBS:\n"
        "    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):\n"
        "        main([job, '--help'])\n"
        "    text = out.getvalue()\n"
        "    assert f'Run as: python -m ray_jobs.{job}' in text, text\n"
        "    assert 'settings that it reads' in text and '--plugin' in text, text\n"
        f"print('loaded:', sorted({HEAVY!r} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "loaded: []" in done.stdout


@pytest.mark.parametrize("line", [["-m", "ray_jobs"], ["-m", "ray_jobs", "--help"]])
def test_the_command_alone_lists_the_jobs(line):
    done = subprocess.run([sys.executable, *line], cwd=ROOT, capture_output=True, text=True, check=True)
    lines = [text.split() for text in done.stdout.splitlines() if text.startswith("  ")]
    assert [words[0] for words in lines] == list(JOBS)


def test_an_unknown_job_is_named_with_the_nearest_one(capsys):
    assert main(["train_booster", "--config", "x.yaml"]) == 2
    assert "no job 'train_booster'. Fix: did you mean 'train_boosters'?" in capsys.readouterr().err


def test_a_job_shows_the_settings_that_it_reads(capsys):
    with pytest.raises(SystemExit):
        main(["blend", "--help"])
    text = capsys.readouterr().out
    assert "blend.calibration" in text
    assert "boosters.NAME.rounds" not in text


@pytest.mark.parametrize(
    ("setting", "hint"),
    [
        ("boosters: [{name: lightgbm, engine: lightgbm, params: {num_leavs: 7}}]", "did you mean 'num_leaves'?"),
        ("boosters: [{name: xgboost, engine: xgboost, params: {max_dept: 7}}]", "did you mean 'max_depth'?"),
        ("llms: [{name: l, checkpoint: x, engine_args: {max_num_seq: 7}}]", "did you mean 'max_num_seqs'?"),
    ],
)
def test_a_misspelt_parameter_of_a_library_ends_the_job_before_any_work(tmp_path, setting, hint):
    (tmp_path / "c.yaml").write_text(CONFIG.format(run=tmp_path / "run") + setting)
    line = [sys.executable, "-m", "ray_jobs.pipeline", "--config", str(tmp_path / "c.yaml")]
    started = time.monotonic()
    done = subprocess.run(line, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
    print(f"{time.monotonic() - started:.1f} s")
    assert done.returncode == 2
    assert hint in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_parameters_are_checked_without_the_libraries():
    """Settings are loaded at the start of every job, and the libraries take seconds to import."""
    script = (
        "import sys\n"
        "from core.registry import ENGINES\n"
        "for engine in ENGINES: engine.check_parameters({})\n"
        "assert ENGINES.get('lightgbm').main_name('n_iter') == 'num_iterations'\n"
        f"print(sorted({HEAVY!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "[]\n"


def test_log_lines_have_time_level_and_stage_and_quiet_hides_them(tmp_path, monkeypatch):
    def log(*flags):
        script = (
            "import sys\n"
            "from core import cli, logs\n"
            "def work(run):\n"
            "    logs.info('work', 'ran'); logs.warning('work', 'look'); logs.debug('work', 'detail')\n"
            "    return []\n"
            "sys.exit(cli.main(cli.Job('work', None, work)))\n"
        )
        line = [sys.executable, "-c", script, "--config", "configs/demo.yaml", "--set", f"run={tmp_path}/run", *flags]
        return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True).stderr

    normal = log()
    assert "INFO    [work] ran" in normal
    assert "WARNING [work] look" in normal
    assert "detail" not in normal
    assert normal[:8].count(":") == 2
    assert "ran" not in log("--quiet")
    assert "look" in log("--quiet")
    assert "DEBUG   [work] detail" in log("--verbose")
