import csv
import json

import numpy as np
import pytest

from ray_jobs import cli, predictions
from ray_jobs.artifacts import Stage
from ray_jobs.blend import blend
from ray_jobs.ingest import ingest
from ray_jobs.storage import Folder

from .votes import COLUMNS, vote, write_votes

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
    write_votes(tmp_path / "train.csv", rows)
    write_votes(tmp_path / "test.csv", rows[::-1][:20], [COLUMNS[0], *COLUMNS[3:6]])

    def run(work, *overrides):
        arguments = ["--config", str(config)]
        for override in overrides:
            arguments += ["--set", override]
        code = cli.main(work.__name__, None, work, arguments)
        return code, capsys.readouterr()

    assert run(ingest)[0] == 0
    return run


def predict(tmp_path, model, sharpness, drop=0, of=""):
    """Write predictions that lean towards the vote by `sharpness`, for all but the last `drop` records."""
    records, folder = Folder(f"{tmp_path}/run/records"), Folder(f"{tmp_path}/run/predictions/{model}")
    of = of or records.read_json("manifest.json")["fingerprint"]
    stage = Stage(model, folder, {"sharpness": sharpness, "drop": drop}, {"records": of})
    rng = np.random.default_rng(list(model.encode()))
    for split in ("train", "test"):
        table = records.read_table(f"{split}/part-00000.parquet")
        values = rng.dirichlet([4, 4, 4], size=len(table))
        if split == "train":
            values += sharpness * np.eye(3)[table["label"].to_numpy()]
        values /= values.sum(axis=1, keepdims=True)
        folds = table["fold"].to_numpy() if split == "train" else None
        made = predictions.table(table["id"], values, folds)
        folder.write_table(f"{split}.parquet", made.slice(0, len(made) - drop))
    stage.commit(rows={})


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
    assert weights["learnt"]["good"] > 0.9
    assert weights["preset"] == {"good": 1.0, "poor": 0.0}
    assert weights["equal"] == {"good": 0.5, "poor": 0.5}


def test_the_submission_follows_the_chosen_blend(tmp_path, job):
    predict(tmp_path, "good", 1.0)
    predict(tmp_path, "poor", 0.1)
    made = []
    for name in ("learnt", "preset", "equal", "log"):
        assert job(blend, f"blend.submission={name}")[0] == 0
        made.append((tmp_path / "run/blend/submission.csv").read_text())
    assert made[2] != made[1]
    assert made[2] != made[0]
    assert made[3] not in made[:3]


def test_a_missing_model_is_exit_2_with_its_name(tmp_path, job):
    predict(tmp_path, "good", 1.0)
    code, captured = job(blend)
    assert code == 2
    assert "predictions/poor is not there yet" in captured.err
    assert "ray_jobs.train_boosters" in captured.err


def test_predictions_for_other_records_are_exit_2(tmp_path, job):
    """Their ids may agree, but not their folds: a score over the wrong folds would not be out-of-fold."""
    predict(tmp_path, "good", 1.0)
    predict(tmp_path, "poor", 0.1, of="another ingest")
    code, captured = job(blend)
    assert code == 2
    assert "predictions/poor was made from other records" in captured.err


def test_missing_ids_are_exit_2_with_the_ids(tmp_path, job):
    predict(tmp_path, "good", 1.0)
    predict(tmp_path, "poor", 0.1, drop=2)
    code, captured = job(blend)
    assert code == 2
    assert "ids without a prediction: 88, 89" in captured.err
    assert not (tmp_path / "run/blend/submission.csv").exists()
