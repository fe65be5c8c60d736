import csv
import json

import numpy as np
import pyarrow as pa
import pytest

from core import cli
from core.stage import Stage
from core.storage import Folder
from infer.ensemble.blender import Blender
from infer.ensemble.calibration import CALIBRATION_METHODS
from infer.ensemble.fallbacks import DEGENERATE_CASES, degenerate_case
from infer.ensemble.record_facts import RecordFacts, read_record_facts
from metrics.scores import log_loss
from ray_jobs.blend import blend
from ray_jobs.ingest import ingest
from tests.helpers.votes import COLUMNS, vote, write_votes
from votes import predictions
from votes.records import Records

# Answers that leave nothing to compare, and one pair that does; white space around a text is no difference.
DEGENERATE: list[dict[str, str]] = [
    {"response_a": '[" "]'},
    {"response_b": "[null]"},
    {"response_a": '[""]', "response_b": "[null]"},
    {"response_a": '["the same"]', "response_b": '["the same\\n"]'},
    {},
]

pytestmark = pytest.mark.usefixtures("ray_cluster")


@pytest.fixture
def job(tmp_path, capsys):
    """Runs ingest and blend over records and the predictions of two models, good and poor."""
    config = tmp_path / "config.yaml"
    config.write_text(
        f"run: {tmp_path}/run\ndata: {{folds: 3, train: {tmp_path}/train.csv, test: {tmp_path}/test.csv}}\n"
        "boosters: [{name: good, engine: lightgbm}, {name: poor, engine: xgboost}]\n"
        "blend: {preset: {good: 3, other: 1}}\n"
    )
    # Numbers that sort as text in another order than as numbers, and ids that CSV must quote.
    rows = [vote(n, id=f"{n}" if n % 5 else f'{n},"x') for n in range(90)]
    rows[40:70] = [row | DEGENERATE[n % 5] for n, row in enumerate(rows[40:70])]
    write_votes(tmp_path / "train.csv", rows)
    write_votes(tmp_path / "test.csv", rows[::-1][:30], [COLUMNS[0], *COLUMNS[3:6]])

    def run(work, *overrides):
        arguments = ["--config", str(config)]
        for override in overrides:
            arguments += ["--set", override]
        code = cli.main(cli.Job(work.__name__, None, work), arguments)
        return code, capsys.readouterr()

    assert run(ingest)[0] == 0
    return run


def predict(tmp_path, model, sharpness, drop=0, fingerprint=""):
    """Write predictions that lean towards the vote by `sharpness`, for all but the last `drop` records."""
    records, folder = Folder(f"{tmp_path}/run/records"), Folder(f"{tmp_path}/run/predictions/{model}")
    fingerprint = fingerprint or records.read_json("manifest.json")["fingerprint"]
    stage = Stage(model, folder, {"sharpness": sharpness, "drop": drop}, {"records": fingerprint})
    rng = np.random.default_rng(list(model.encode()))
    for split in ("train", "test"):
        shards = [name for name in records.files() if name.startswith(f"{split}/")]
        if not shards:
            continue
        table = pa.concat_tables([records.read_table(name) for name in shards])
        values = rng.dirichlet([4, 4, 4], size=len(table))
        if split == "train":
            values += sharpness * np.eye(3)[table["label"].to_numpy()]
        values /= values.sum(axis=1, keepdims=True)
        folds = table["fold"].to_numpy() if split == "train" else None
        predicted = predictions.predictions_table(table["id"], values, folds)
        folder.write_table(f"{split}.parquet", predicted.slice(0, len(predicted) - drop))
    stage.commit(rows={})


def lose(tmp_path, model, split, positions):
    """Move some records of a model from its predictions to its quarantine."""
    folder = Folder(f"{tmp_path}/run/predictions/{model}")
    table = folder.read_table(f"{split}.parquet")
    lost = np.isin(np.arange(len(table)), positions)
    folder.write_table(f"{split}.parquet", table.filter(pa.array(~lost)))
    rows = [
        {"split": split, "id": record_id, "reason": "too long", "replaced": False}
        for record_id in table["id"].filter(pa.array(lost)).to_pylist()
    ]
    if folder.exists(predictions.QUARANTINE_FILE):
        rows += folder.read_table(predictions.QUARANTINE_FILE).to_pylist()
    folder.write_table(predictions.QUARANTINE_FILE, pa.Table.from_pylist(rows))


def probabilities_of(table, name):
    return np.stack([table[f"{name}_{column}"].to_numpy() for column in ("p_a", "p_b", "p_tie")], axis=1)


def test_submission_has_every_test_id_once_in_input_order(tmp_path, job):
    predict(tmp_path, "good", 1.0)
    predict(tmp_path, "poor", 0.1)
    assert job(blend)[0] == 0
    with (tmp_path / "run/blend/submission.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    with (tmp_path / "test.csv").open(newline="") as file:
        assert [row[0] for row in rows] == [row["id"] for row in csv.DictReader(file)]
    assert header == ["id", "winner_model_a", "winner_model_b", "winner_tie"]
    assert np.allclose(np.array(rows)[:, 1:].astype(float).sum(axis=1), 1, atol=1e-9)
    weights = json.loads((tmp_path / "run/blend/weights.json").read_text())["weights"]
    assert weights["learned"]["good"] > 0.9
    assert weights["preset"] == {"good": 1.0, "poor": 0.0}
    assert weights["equal"] == {"good": 0.5, "poor": 0.5}


def test_without_records_to_score_the_summary_says_that_there_is_no_submission(tmp_path, job):
    assert job(ingest, "data.test=null")[0] == 0
    predict(tmp_path, "good", 1.0)
    predict(tmp_path, "poor", 0.1)
    code, output = job(blend, "data.test=null")
    assert code == 0
    assert "no submission: data.test has no records to score" in output.out
    assert not (tmp_path / "run/blend/submission.csv").exists()


@pytest.mark.parametrize(("sharpness", "verdict"), [(1.0, "better than"), (0.0, "not clearly different from")])
def test_a_blend_is_called_better_than_the_class_prior_only_if_its_interval_says_so(tmp_path, job, sharpness, verdict):
    predict(tmp_path, "good", sharpness)
    predict(tmp_path, "poor", 0.0)
    code, output = job(blend)
    assert code == 0
    manifest = Folder(f"{tmp_path}/run/blend").read_json("manifest.json")
    prior, gain = manifest["metrics"]["class_prior"], manifest["metrics"]["analysis"]["over_class_prior"]
    assert gain["gain"] == pytest.approx(prior - manifest["metrics"]["oof_log_loss"]["learned"])
    assert gain["gain_ci95"][0] <= gain["gain"] <= gain["gain_ci95"][1]
    assert (gain["gain_ci95"][0] > 0) == (verdict == "better than")
    assert f"{verdict} the class prior's {prior:.4f}: gain {gain['gain']:+.4f}" in output.out


def test_the_submission_follows_the_chosen_blend(tmp_path, job):
    predict(tmp_path, "good", 1.0)
    predict(tmp_path, "poor", 0.1)
    submissions = []
    for name in ("linear", "preset", "equal", "log"):
        assert job(blend, f"blend.submission={name}", "blend.calibration=none")[0] == 0
        submissions.append((tmp_path / "run/blend/submission.csv").read_text())
    assert submissions[2] != submissions[1]
    assert submissions[2] != submissions[0]
    assert submissions[3] not in submissions[:3]


def test_a_missing_model_is_exit_2_with_its_name(tmp_path, job):
    predict(tmp_path, "good", 1.0)
    code, captured = job(blend)
    assert code == 2
    assert "predictions/poor: poor is not built yet" in captured.err
    assert "tiebreak train_boosters" in captured.err


def test_predictions_for_other_records_are_exit_2(tmp_path, job):
    """Their ids may agree, but not their folds: a score over the wrong folds would not be out-of-fold."""
    predict(tmp_path, "good", 1.0)
    predict(tmp_path, "poor", 0.1, fingerprint="another ingest")
    code, captured = job(blend)
    assert code == 2
    assert "predictions/poor: poor was built with other inputs: records" in captured.err


def test_missing_ids_are_exit_2_with_the_ids(tmp_path, job):
    predict(tmp_path, "good", 1.0)
    predict(tmp_path, "poor", 0.1, drop=2)
    code, captured = job(blend)
    assert code == 2
    assert "ids without a prediction: 88, 89" in captured.err
    assert not (tmp_path / "run/blend/submission.csv").exists()


def test_the_analysis_says_what_each_part_of_the_blend_adds(tmp_path, job):
    predict(tmp_path, "good", 1.0)
    predict(tmp_path, "poor", 0.1)
    assert job(blend, "blend.length_debias=true")[0] == 0
    folder = Folder(f"{tmp_path}/run/blend")
    analysis = folder.read_json("analysis.json")
    manifest = folder.read_json("manifest.json")
    assert manifest["metrics"]["analysis"] == analysis
    assert set(analysis) == {
        "in_sample_log_loss", "nested_log_loss", "over_class_prior", "without", "calibration", "fallbacks",
        "length_debias",
    }  # fmt: skip
    labels = Folder(f"{tmp_path}/run/records").read_table("train/part-00000.parquet")["label"].to_numpy()
    nested = log_loss(predictions.probabilities_from_table(folder.read_table("train-learned.parquet")), labels)
    assert analysis["nested_log_loss"] == pytest.approx(nested, abs=1e-12)
    assert analysis["nested_log_loss"] == manifest["metrics"]["oof_log_loss"]["learned"]
    assert analysis["in_sample_log_loss"] < analysis["nested_log_loss"]
    without = analysis["without"]
    assert set(without) == {"good", "poor"}
    for each in without.values():
        assert each["gain"] == pytest.approx(each["oof_log_loss"] - analysis["nested_log_loss"])
        assert each["gain_ci95"][0] <= each["gain"] <= each["gain_ci95"][1]
    assert without["good"]["gain_ci95"][0] > 0.1
    assert abs(without["poor"]["gain"]) < 0.05
    methods = analysis["calibration"]["methods"]
    assert tuple(methods) == CALIBRATION_METHODS
    assert analysis["calibration"]["chosen"] in CALIBRATION_METHODS
    assert min(each["standard_error"] for each in methods.values()) == 0
    debias = analysis["length_debias"]
    assert debias["cost_ci95"][0] <= debias["cost"] <= debias["cost_ci95"][1]
    assert debias["coefficient"] > 0  # the longer answer wins in these votes
    assert job(blend)[0] == 0
    assert folder.read_json("analysis.json")["length_debias"] is None
    before = log_loss(predictions.probabilities_from_table(folder.read_table("train-learned.parquet")), labels)
    assert debias["cost"] == pytest.approx(nested - before, abs=1e-12)


def test_degenerate_answers_are_found_shard_by_shard(tmp_path, job):
    assert job(ingest, "data.shard_rows=7")[0] == 0
    predict(tmp_path, "good", 1.0)
    predict(tmp_path, "poor", 0.1)
    assert job(blend, "data.shard_rows=7")[0] == 0
    analysis = Folder(f"{tmp_path}/run/blend").read_json("analysis.json")
    fallbacks = {fallback["case"]: fallback for fallback in analysis["fallbacks"]}
    assert list(fallbacks) == list(DEGENERATE_CASES[1:])
    for fallback in fallbacks.values():
        assert (fallback["train_records"], fallback["test_records"]) == (6, 2)
        assert sum(fallback["probabilities"]) == pytest.approx(1)
        assert fallback["reason"]
    records = Folder(f"{tmp_path}/run/records")
    facts = read_record_facts(Records(records, records.read_json("manifest.json")), ["test", "train"])
    assert facts["train"].cases.tolist() == [0] * 40 + [1, 2, 3, 4, 0] * 6 + [0] * 20
    assert facts["test"].cases.tolist() == [0] * 20 + [0, 4, 3, 2, 1] * 2
    # Of 90 records the longer answer is A's, B's and neither's in turn, but for empty ones.
    signs = np.sign(facts["train"].length_differences)
    assert (signs[:40:3] == 1).all()
    assert (signs[1:40:3] == -1).all()
    assert signs[40:45].tolist()[:4] == [-1, 1, 0, 0]


def test_weights_json_blends_the_test_records_again(tmp_path, job):
    predict(tmp_path, "good", 1.0)
    predict(tmp_path, "poor", 0.1)
    lose(tmp_path, "good", "test", [2, 5])
    assert job(blend, "blend.calibration=vector")[0] == 0
    folder = Folder(f"{tmp_path}/run/blend")
    blender = Blender.from_json(folder.read_json("weights.json")["blender"])
    assert blender.calibration.method == "vector"
    side_by_side = folder.read_table("predictions.parquet")
    columns = [f"{name}_{column}" for name in ("good", "poor", "blend") for column in ("p_a", "p_b", "p_tie")]
    assert side_by_side.column_names == ["id", *columns]
    assert side_by_side["good_p_a"].null_count == 2
    of_models = np.stack([probabilities_of(side_by_side, name) for name in blender.models])
    rows = list(csv.DictReader((tmp_path / "test.csv").open(newline="")))
    texts = [[(json.loads(row[name])[0] or "").strip() for name in ("response_a", "response_b")] for row in rows]
    cases = np.array([degenerate_case(a, b) for a, b in texts], np.int8)
    again = blender.predict(of_models, RecordFacts(cases, np.zeros(len(rows))))
    submitted = np.array(list(csv.reader((tmp_path / "run/blend/submission.csv").open(newline=""))))[1:, 1:].astype(
        float
    )
    assert np.abs(again - submitted).max() < 1e-9
    assert np.abs(probabilities_of(side_by_side, "blend") - submitted).max() < 1e-9


def test_records_without_some_models_are_blended_from_the_others(tmp_path, job):
    predict(tmp_path, "good", 1.0)
    predict(tmp_path, "poor", 0.1)
    lose(tmp_path, "good", "train", [0, 1, 2, 50])
    lose(tmp_path, "good", "test", [0])
    assert job(blend, "blend.calibration=none")[0] == 0
    folder = Folder(f"{tmp_path}/run")
    blends = {
        name: predictions.probabilities_from_table(folder.read_table(f"blend/train-{name}.parquet"))
        for name in ("equal", "learned")
    }
    assert all(np.isfinite(values).all() for values in blends.values())
    poor = predictions.probabilities_from_table(folder.read_table("predictions/poor/train.parquet"))
    np.testing.assert_allclose(blends["equal"][:3], poor[:3], atol=1e-9)
    assert (np.abs(blends["equal"][3:10] - poor[3:10]).max(axis=1) > 1e-3).all()


def test_what_are_no_probabilities_is_exit_2_with_the_ids(tmp_path, job):
    for model in ("good", "poor"):
        predict(tmp_path, model, 1.0)
    folder = Folder(f"{tmp_path}/run/predictions/poor")
    table = folder.read_table("train.parquet")
    values = predictions.probabilities_from_table(table)
    values[3], values[8] = np.nan, [0.5, 0.5, 0.5]
    folder.write_table("train.parquet", predictions.predictions_table(table["id"], values, table["fold"].to_numpy()))
    code, captured = job(blend)
    assert code == 2
    assert "no probabilities for 3, 8" in captured.err


@pytest.mark.parametrize(("split", "ids"), [("train", "3, 7"), ("test", "86, 82")])
def test_records_without_any_prediction_are_exit_2_with_the_ids(tmp_path, job, split, ids):
    for model in ("good", "poor"):
        predict(tmp_path, model, 1.0)
        lose(tmp_path, model, split, [3, 7])
    code, captured = job(blend)
    assert code == 2
    assert f"no model predicts 2 {split} records: {ids}" in captured.err
    assert not (tmp_path / "run/blend/submission.csv").exists()
