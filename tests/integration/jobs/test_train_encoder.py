"""train_encoder in a whole pipeline: an encoder of some folds, and a booster of all."""

import csv
import json

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml

from core.run import Run
from core.settings.loader import load_settings
from featurize.tokens.packing import packing_settings
from infer.encoders import encoder_predictions_stage, predict_with_encoder
from metrics.baselines import class_prior_baseline
from metrics.scores import log_loss
from tests.helpers.commands import run_here, run_job
from train.finetune.base_model import encoder_base, scratch_stage
from train.finetune.stages import model_stage
from votes import predictions
from votes.arrays import votes_from_table
from votes.records import open_records
from votes.schema import PROBABILITIES

SETTINGS = {
    "run": "runs/unused",
    "data": {"synthetic": {"train_rows": 90, "test_rows": 20}, "folds": 3, "shard_rows": 40},
    "featurize": {"families": ["length", "style"]},
    "boosters": [{"name": "linear", "engine": "linear"}],
    "finetune": {
        "encoders": [
            {
                "name": "encoder",
                "scratch": {"architecture": "bert", "layers": 2, "hidden": 32, "heads": 2, "vocabulary": 600},
                "max_tokens": 96,
                "folds": [2, 0],
                "teacher": {"model": "linear", "weight": 0.5},
                "stages": [
                    {"train": "head", "epochs": 1, "learning_rate": 1e-3},
                    {"train": 1, "epochs": 1, "learning_rate": 1e-3},
                ],
            },
            {
                "name": "comparing",
                "scratch": {"architecture": "deberta-v2", "layers": 1, "hidden": 32, "heads": 2, "vocabulary": 600},
                "head": "answers",
                "max_tokens": 96,
                "folds": [1],
                "num_workers": 2,
                "stages": [{"train": "all", "epochs": 1, "learning_rate": 1e-3}],
            },
        ],
    },
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory, ray_cluster):
    """A finished pipeline: its configuration, its folder, and its output."""
    folder = tmp_path_factory.mktemp("encoder")
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(SETTINGS))
    done = run_here("pipeline", folder / "run", config=str(config))
    assert done.returncode == 0, done.stderr
    return config, folder / "run", done


def test_out_of_fold_predictions_are_of_the_folds_asked_for(finished):
    _, run, _ = finished
    predicted = pq.read_table(run / "predictions/encoder/train.parquet")
    records = pq.read_table(run / "records/train")
    folds = dict(zip(records["id"].to_pylist(), records["fold"].to_pylist(), strict=True))
    assert predicted["id"].to_pylist() == [name for name in records["id"].to_pylist() if folds[name] != 1]
    assert predicted["fold"].to_pylist() == [folds[name] for name in predicted["id"].to_pylist()]
    values = np.stack([predicted[name].to_numpy() for name in PROBABILITIES[:3]], axis=1)
    np.testing.assert_allclose(values.sum(axis=1), 1, atol=1e-9)


@pytest.mark.parametrize(("encoder", "folds"), [("encoder", (0, 2)), ("comparing", (1,))])
def test_test_predictions_are_the_mean_of_the_folds_models(finished, encoder, folds):
    from infer.classifier import Classifier

    _, run, _ = finished
    tokens = pq.read_table(run / f"tokens/{encoder}/test")
    order = np.argsort(tokens["row"].to_numpy())
    names = ("ab", "ba", "ab_parts", "ba_parts")
    columns = {name: [np.array(ids) for ids in tokens[name].to_pylist()] for name in names}
    one_by_one = []
    for fold in folds:
        model = Classifier(
            str(run / f"models/{encoder}/fold-{fold}/model"), 1000, 1, False, False, packing_settings(96, "encoder")
        )
        rows = [[([columns[name][n]], [columns[f"{name}_parts"][n]]) for name in ("ab", "ba")] for n in order]
        one_by_one.append(np.concatenate([model.predict(*row) for row in rows]))
    predicted = pq.read_table(run / f"predictions/{encoder}/test.parquet")
    assert predicted["id"].to_pylist() == [tokens["id"][int(n)].as_py() for n in order]
    values = np.stack([predicted[name].to_numpy() for name in PROBABILITIES[:3]], axis=1)
    np.testing.assert_allclose(values, np.mean(one_by_one, axis=0), atol=1e-6)
    assert values.std() > 1e-4


@pytest.mark.parametrize(("encoder", "fold"), [("encoder", 0), ("comparing", 1)])
def test_the_saved_model_predicts_what_training_saw(finished, encoder, fold):
    from infer.classifier import Classifier

    _, run, _ = finished
    folder = run / f"models/{encoder}/fold-{fold}"
    model = Classifier(str(folder / "model"), 400, 1, False, False, packing_settings(96, "encoder"))
    held_out = pq.read_table(folder / "out_of_fold.parquet")
    tokens = pq.read_table(run / f"tokens/{encoder}/train").sort_by("row").take(held_out["row"])
    lists = {
        name: [np.array(values) for values in tokens[name].to_pylist()] for name in ("ab", "ba", "ab_parts", "ba_parts")
    }
    predicted = model.predict((lists["ab"], lists["ab_parts"]), (lists["ba"], lists["ba_parts"]))
    np.testing.assert_allclose(
        predicted, np.stack([held_out[name].to_numpy() for name in PROBABILITIES[:3]], axis=1), atol=1e-5
    )
    assert predicted.std() > 1e-4


@pytest.mark.slow
def test_a_test_record_that_cannot_be_packed_is_in_quarantine_and_force_predicts_all_again(finished):
    config, path, _ = finished
    run = Run(load_settings(config.read_text(), str(config), [f"run={path}"]), force=True)
    records, (encoder, _) = open_records(run), run.settings.finetune.encoders
    tokens, shard = run.folder / "tokens/encoder", records.shards("test")[0]
    base = encoder_base(encoder, scratch_stage(run, records, encoder))
    models = model_stage(run, records, encoder, base, "train_encoder")
    stage = encoder_predictions_stage(run, records, encoder, models)
    before = (path / "predictions/encoder/test.parquet").read_bytes()
    packed, made_by = tokens.read_table(shard), tokens.table_fingerprint(shard) or ""
    # Files that a killed job may have left: --force ignores them.
    uniform = {name: np.full(len(packed), 1 / 3) for name in PROBABILITIES[:3]}
    for fold in (0, 2):
        stage.folder.write_table(f"shards/fold-{fold}/{shard}", pa.table(uniform), stage.fingerprint)
    lost = packed["id"][3].as_py()
    changed = packed.to_pylist()
    changed[3] |= {"ab": [], "ba": [], "ab_parts": [], "ba_parts": [], "tokens": 0, "reason": "cannot be packed: no"}
    tokens.write_table(shard, pa.Table.from_pylist(changed, packed.schema), made_by)
    try:
        predict_with_encoder(run, records, encoder, models)
        predicted = pq.read_table(path / "predictions/encoder/test.parquet")
        (row,) = pq.read_table(path / "predictions/encoder/quarantine.parquet").to_pylist()
        assert row == {"split": "test", "id": lost, "reason": "cannot be packed: no", "replaced": False}
        ids = packed["id"].to_pylist()
        assert predicted["id"].to_pylist() == [name for name in ids if name != lost]
        values = predictions.read_predictions(run, records, "encoder", "test")
        assert np.isnan(values[3]).all()
    finally:
        tokens.write_table(shard, packed, made_by)
        predict_with_encoder(run, records, encoder, models)
    assert (path / "predictions/encoder/test.parquet").read_bytes() == before
    again = predictions.read_predictions(run, records, "encoder", "test")
    others = np.arange(len(again)) != 3
    np.testing.assert_allclose(values[others], again[others], atol=1e-5)


def test_the_report_compares_on_the_same_rows_and_shows_curves(finished):
    _, run, done = finished
    scores = json.loads((run / "report/metrics.json").read_text())
    beside = scores["same_rows"]["encoder"]["beside"]
    folds = pq.read_table(run / "records/train", columns=["fold"])["fold"].to_numpy()
    assert scores["same_rows"]["encoder"]["rows"] == (folds != 1).sum()
    assert set(beside) == {"class prior", "linear", "encoder", "blend"}  # the other encoder predicts another fold
    assert beside["encoder"]["difference"] == 0
    assert scores["models"]["encoder"]["folds"] == [0, 2]
    assert "encoder" not in scores["blend"]["weights"]["learned"]
    assert "encoder is left out: it predicts only folds 0, 2" in done.stderr
    assert set(scores["same_rows"]["comparing"]["beside"]) == {"class prior", "linear", "comparing", "blend"}
    assert set(scores["curves"]["encoder"]) == {"0", "2"}
    assert [len(curve["held_out"]) for curve in scores["curves"]["encoder"].values()] == [2, 2]
    assert "train_encoder/encoder: its teacher linear was trained on votes of the held-out folds" in done.stdout
    assert "and the other models on its records" in (run / "report/index.html").read_text()


@pytest.mark.slow
def test_a_second_run_does_nothing_and_another_fold_trains_that_fold_alone(finished):
    config, run, _ = finished
    again = run_here("pipeline", run, config=str(config))
    assert again.returncode == 0, again.stderr
    assert " run" not in [line[-4:] for line in again.stdout.splitlines() if line.startswith(("train", "predict"))]
    before = (run / "models/encoder/fold-0/manifest.json").stat().st_mtime_ns
    more = run_here("train_encoder", run, "finetune.encoders.encoder.folds=[0,1,2]", config=str(config))
    assert more.returncode == 0, more.stderr
    assert "2/3 folds already finished, resuming" in more.stderr
    assert (run / "models/encoder/fold-0/manifest.json").stat().st_mtime_ns == before
    assert pq.read_metadata(run / "predictions/encoder/train.parquet").num_rows == 90


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("finetune.encoders.encoder.folds=[3]", "names fold 3; folds are 0 to 2"),
        ("finetune.encoders.encoder.teacher.model=nobody", "cannot have the teacher 'nobody'"),
        ("finetune.encoders.encoder.model=owner/name", "give either model"),
        ("blend.models=[encoder]", "has only those of [0, 2]"),
        ("finetune.encoders.encoder.scratch.heads=3", "3 heads cannot share 32 dimensions"),
        ("data.folds=4", "ingest was built with other settings: folds (3 then, 4 now)"),
    ],
)
def test_impossible_settings_end_the_job_before_any_work(finished, change, reason):
    config, run, _ = finished
    done = run_here("train_encoder", run, change, config=str(config))
    assert done.returncode == 2
    assert reason in done.stderr


def test_a_pipeline_with_nothing_to_blend_says_so_at_once(finished, tmp_path):
    config, _, _ = finished
    alone = ["boosters=[]", "finetune.encoders.encoder.teacher=null"]
    done = run_here("pipeline", tmp_path / "run", *alone, config=str(config))
    assert done.returncode == 2
    assert "no model to blend that predicts every fold" in done.stderr
    assert not (tmp_path / "run/records").exists()


def test_a_missing_model_is_named(finished, tmp_path):
    config, _, _ = finished
    line = ["finetune.encoders.encoder.scratch=null", f"finetune.encoders.encoder.model={tmp_path}/nothing"]
    done = run_here("pipeline", tmp_path / "run", *line, config=str(config))
    assert done.returncode == 2
    assert "no such folder" in done.stderr


def test_a_teacher_of_other_folds_is_refused(finished):
    """Predictions whose folds are not the records' may come from models that saw what they predict."""
    config, run, _ = finished
    file = run / "predictions/linear/train.parquet"
    whole = pq.read_table(file)
    folds = whole["fold"].to_numpy()
    pq.write_table(whole.set_column(whole.column_names.index("fold"), "fold", [(folds + 1) % 3]), file)
    try:
        # Another weight is another model, which has to be trained.
        done = run_here("train_encoder", run, "finetune.encoders.encoder.teacher.weight=0.9", config=str(config))
    finally:
        pq.write_table(whole, file)
    assert done.returncode == 2, done.stderr
    assert "may have been trained on what they predict" in done.stderr


def test_the_submission_has_every_test_record(finished):
    _, run, _ = finished
    rows = list(csv.DictReader((run / "blend/submission.csv").open()))
    assert len(rows) == 20


@pytest.mark.slow
def test_learning_is_real(tmp_path):
    """From nothing, the shipped configuration gains half of what can be gained on held-out records, whose votes are
    drawn from known probabilities."""
    run = tmp_path / "run"
    for job in ("ingest", "train_encoder"):
        done = run_job(job, run, "finetune.encoders.encoder.folds=[0]", config="configs/scratch.yaml")
        assert done.returncode == 0, done.stderr
    records = pq.read_table(run / "records/train", columns=["id", "label", "votes", "fold", "group"])
    truth = pq.read_table(run / "demo/pairs/truth-train.parquet")
    fold, labels = records["fold"].to_numpy(), records["label"].to_numpy()
    held_out = fold == 0
    prior = class_prior_baseline(votes_from_table(records))[held_out]
    order = pc.index_in(records["id"], truth["id"].combine_chunks()).to_numpy()[held_out]
    best = np.stack([truth[name].to_numpy()[order] for name in PROBABILITIES[:3]], axis=1)
    table = pq.read_table(run / "predictions/encoder/train.parquet")
    predicted = np.stack([table[name].to_numpy() for name in PROBABILITIES[:3]], axis=1)
    losses = [log_loss(values, labels[held_out]) for values in (prior, predicted, best)]
    assert losses[0] - losses[1] >= (losses[0] - losses[2]) / 2, losses
