"""Members in one file each, outside the project: they work in a whole run, on Ray's workers too."""

import json
import shutil

import pyarrow.parquet as pq
import pytest

from tests.helpers.commands import ROOT, run_here, run_job
from tests.helpers.tiny_llms import MAX_TOKENS, make_checkpoint

EXAMPLES = ("custom_family.py", "custom_engine.py", "custom_section.py")
SMALL = (
    "data.synthetic.train_rows=160",
    "data.synthetic.test_rows=20",
    "data.folds=2",
    "data.shard_rows=80",
    "featurize.families=[length, hedging]",
    "boosters=[{name: descent, engine: gradient_descent, rounds: 20, early_stopping_rounds: null}]",
    "llms=[]",
    "blend.preset={descent: 1}",
)


@pytest.fixture(scope="module")
def plugins(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plugins")
    for name in EXAMPLES:
        shutil.copy(ROOT / "examples" / name, folder)
    return folder


@pytest.fixture(scope="module")
def flags(plugins):
    return [part for name in EXAMPLES for part in ("--plugin", str(plugins / name))]


@pytest.fixture(scope="module")
def run(tmp_path_factory, flags):
    folder = tmp_path_factory.mktemp("work") / "run"
    done = run_job("pipeline", folder, *SMALL, flags=flags)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def manifest(run, stage):
    return json.loads((run / stage / "manifest.json").read_text())


def test_a_family_engine_and_section_are_in_all_results(run):
    columns = {entry["name"] for entry in manifest(run, "features")["catalogue"] if entry["family"] == "hedging"}
    assert "hedging_questions_a" in columns
    assert manifest(run, "predictions/descent")["rows"] == {"train": 160, "test": 20}
    assert json.loads((run / "blend/weights.json").read_text())["blender"]["models"] == ["descent"]
    page = (run / "report/index.html").read_text()
    assert "votes name a winner" in page
    assert 'href="#decided"' in page
    assert json.loads((run / "report/metrics.json").read_text())["decided"]["votes"] == 160


def test_the_same_command_again_does_nothing_and_predict_uses_the_members(run, flags):
    again = run_job("pipeline", run, *SMALL, flags=flags)
    assert again.returncode == 0, again.stderr[-3000:]
    stages = [line.split() for line in again.stdout.splitlines() if line.startswith(("featurize", "train_boosters"))]
    assert [words[-1] for words in stages] == ["cached"] * 2
    new = f"data.test={run}/demo/pairs/test.csv"
    done = run_job("predict", run, new, config=str(run / "settings.json"), flags=flags)
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(list(run.glob("predict/*/predictions/descent/test.parquet"))) == 1


@pytest.mark.slow
def test_an_engine_resumes_at_the_fold(run, flags):
    predictions = run / "predictions/descent/train.parquet"
    before = pq.read_table(predictions)
    for stage in ("predictions/descent", "models/descent", "models/descent/fold-1"):
        (run / stage / "manifest.json").unlink()
    done = run_job("train_boosters", run, *SMALL, flags=flags)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "1/2 folds already finished, resuming" in done.stderr
    assert pq.read_table(predictions).equals(before)


@pytest.mark.parametrize("job", ["predict", "report"])
def test_without_its_plugins_a_job_says_how_to_give_them(run, job):
    new = f"data.test={run}/demo/pairs/test.csv"
    done = run_here(job, run, new, config=str(run / "settings.json"))
    assert done.returncode == 2
    assert "--plugin FILE" in done.stderr


@pytest.mark.slow  # tests/unit/featurize/test_plugin_family.py has it without Ray
def test_a_changed_plugin_is_built_again(run, flags, plugins):
    family = plugins / "custom_family.py"
    family.write_text(family.read_text().replace('full.count("?")', 'full.count("!")'))
    first = manifest(run, "features")["fingerprint"]
    done = run_job("featurize", run, *SMALL, flags=flags)
    assert done.returncode == 0, done.stderr[-3000:]
    assert manifest(run, "features")["fingerprint"] != first


def test_a_plugin_that_fails_is_named_with_its_error(tmp_path):
    (tmp_path / "broken.py").write_text("import no_such_library\n")
    done = run_job("featurize", tmp_path / "run", *SMALL, flags=["--plugin", str(tmp_path / "broken.py")])
    assert done.returncode == 2
    assert "plugin broken: ModuleNotFoundError: No module named 'no_such_library'" in done.stderr


@pytest.mark.slow
def test_a_mode_scores_through_vllm_and_joins_the_blend(tmp_path, flags):
    pytest.importorskip("vllm", reason="scoring with language models is an extra")
    checkpoint = make_checkpoint(tmp_path / "model", "Llama", "ForCausalLM")
    llm = f"{{name: strict, mode: strict_judge, checkpoint: {checkpoint}, max_tokens: {MAX_TOKENS}, swap: none}}"
    settings = [*(each for each in SMALL if not each.startswith("llms=")), f"llms=[{llm}]"]
    mode = str(ROOT / "examples/custom_mode.py")
    done = run_job("pipeline", tmp_path / "run", *settings, flags=[*flags, "--plugin", mode])
    assert done.returncode == 0, done.stderr[-3000:]
    blender = json.loads((tmp_path / "run/blend/weights.json").read_text())["blender"]
    assert blender["models"] == ["descent", "strict"]
    assert "strict" in (tmp_path / "run/report/index.html").read_text()


def test_a_format_reads_votes_on_rays_workers_and_an_export_writes_them(tmp_path):
    lines = [
        {
            "task": f"task {n}",
            "red": f"r {n}",
            "blue": f"b {n}",
            "prefers": ("red", "blue", "neither")[n % 3],
            "who": "ann",
        }
        for n in range(30)
    ]
    (tmp_path / "duels.jsonl").write_text("\n".join(map(json.dumps, lines)))
    flags = [part for name in ("format", "export") for part in ("--plugin", str(ROOT / f"examples/custom_{name}.py"))]
    settings = [f"data.train={tmp_path}/duels.jsonl", "data.folds=2"]
    settings += ["convert.to=lines", f"convert.output={tmp_path}/lines.txt"]
    done = run_job("convert", tmp_path / "run", *settings, flags=flags)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "train: format duel" in done.stderr
    records = pq.ParquetDataset(tmp_path / "run/convert/records/train").read().to_pylist()
    assert [record["label"] for record in records[:3]] == [0, 1, 2]
    assert records[0]["response_b"] == ["b 0"]
    written = (tmp_path / "lines.txt").read_text().splitlines()
    assert len(written) == 30
    assert written[:2] == ["[a] task 0 | r 0 | b 0", "[b] task 1 | r 1 | b 1"]
