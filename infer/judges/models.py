"""Make the judges' models: calibrations fitted inside the folds, and predictions of the run's records."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from core.ray_session import run_on_worker
from core.run import StageResult
from core.settings.schema import PANEL
from core.stage import Stage
from infer.judges.calibration import PENALTY, JudgeCalibration, fit_calibration_of_judge
from votes import predictions
from votes.verdicts.evidence import Evidence, Scale, evidence_by_judge, panel_evidence
from votes.verdicts.joined import JOB, open_verdicts, read_verdicts

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from core.arrays import Folds, Probabilities
    from core.run import Run
    from infer.finished_models import Predictor
    from votes.arrays import Votes
    from votes.records import Records
    from votes.verdicts.joined import Verdicts

# Part of the fingerprint. Raise it when the same verdicts give other predictions.
VERSION: Final = 1
CALIBRATION: Final = "calibration.json"
_NO_VERDICT: Final = "no verdict"


@dataclass(frozen=True)
class JudgeModel:
    """A judge's model, or the panel's: its name and its judges."""

    name: str
    judges: tuple[str, ...]

    def evidence(self, by_judge: Mapping[str, Evidence]) -> Evidence:
        """Return the evidence of its judges."""
        if self.name != PANEL:
            return by_judge[self.judges[0]]
        return panel_evidence([by_judge[judge] for judge in self.judges])

    def without(self, judge: str) -> JudgeModel:
        """Return the panel without a judge."""
        return JudgeModel(self.name, tuple(name for name in self.judges if name != judge))


def judge_models(verdicts: Verdicts) -> list[JudgeModel]:
    """Return the models of the judges, and of their panel if there are several."""
    models = [JudgeModel(name, (judge,)) for name, judge in verdicts.judges.items()]
    panel = [JudgeModel(PANEL, tuple(verdicts.judges.values()))] if len(models) > 1 else []
    return [*models, *panel]


def make_judge_predictions(run: Run, records: Records, verdicts: Verdicts) -> list[StageResult]:
    """Make models/<judge> and predictions/<judge> of all judges and of their panel."""
    models = judge_models(verdicts)
    finished: dict[str, dict[str, Any]] = {}
    for model in models if not run.force else []:
        manifest = prediction_stage(run, records, verdicts, model).manifest()
        finished |= {} if manifest is None else {model.name: manifest}
    missing = [model for model in models if model.name not in finished]
    manifests = finished | (run_on_worker(run, _predict, run, records, verdicts, missing) if missing else {})
    return [
        StageResult(f"train_judges/{model.name}", model.name in finished, manifests[model.name]) for model in models
    ]


def prediction_stage(run: Run, records: Records, verdicts: Verdicts, model: JudgeModel) -> Stage:
    """Return the stage of a judge's predictions; its calibration lies in models/<judge>."""
    return Stage(
        f"train_judges/{model.name}",
        run.folder / f"predictions/{model.name}",
        settings={"version": VERSION, "penalty": PENALTY, "judges": list(model.judges)},
        inputs={"records": records.fingerprint, "judges": verdicts.manifest["fingerprint"]},
    )


def _predict(run: Run, records: Records, verdicts: Verdicts, models: Sequence[JudgeModel]) -> dict[str, dict[str, Any]]:
    """Fit and predict with some models. Return the manifests of their predictions."""
    train = verdicts.read("train")
    scales = {judge: Scale.of(train.filter(pc.equal(train["judge"], judge))) for judge in verdicts.judges.values()}
    by_judge = {split: evidence_by_judge(verdicts.read(split), records.rows(split), scales) for split in records.splits}
    votes, folds = records.training_votes(), records.folds()
    ids = {split: records.read(split, ["id"])["id"] for split in records.splits}
    manifests = {}
    for model in models:
        started = time.monotonic()
        stage = prediction_stage(run, records, verdicts, model)
        stage.begin()
        evidence = {split: model.evidence(of_split) for split, of_split in by_judge.items()}
        calibration = fit_calibration_of_judge(evidence["train"].take(votes.records), votes)
        _write_calibration(run, stage, model, scales, calibration)
        tables: dict[str, tuple[Probabilities, Folds | None]]
        tables = {"train": (out_of_fold(evidence["train"], votes, folds), folds)}
        if "test" in evidence:
            tables["test"] = (calibration.predict(evidence["test"]), None)
        rows = _write(stage, ids, tables)
        keep = {f"{split}.parquet" for split in tables} | {predictions.QUARANTINE_FILE}
        if model.name == PANEL:
            keep |= _write_without(stage, model, verdicts.judges, by_judge["train"], votes, folds)
        manifests[model.name] = stage.commit(rows, keep=keep, seconds=time.monotonic() - started)
    return manifests


def out_of_fold(evidence: Evidence, votes: Votes, folds: Folds, penalty: float = PENALTY) -> Probabilities:
    """Return out-of-fold probabilities (n, k) of records; nan where there is no verdict."""
    predicted = np.full((len(folds), votes.classes), np.nan)
    for fold in np.unique(folds):
        rows = votes.folds != fold
        calibration = fit_calibration_of_judge(evidence.take(votes.records[rows]), votes.take(rows), penalty)
        held_out = folds == fold
        predicted[held_out] = calibration.predict(evidence.take(held_out))
    return predicted


def _write_without(
    stage: Stage,
    panel: JudgeModel,
    models: Iterable[str],
    by_judge: Mapping[str, Evidence],
    votes: Votes,
    folds: Folds,
) -> set[str]:
    """Write the panel's out-of-fold predictions without each judge, for the gain of that judge. Return the names."""
    names = set()
    for model, judge in zip(models, panel.judges, strict=True):
        predicted = out_of_fold(panel.without(judge).evidence(by_judge), votes, folds)
        names.add(name := _without_name(model))
        stage.folder.write_table(name, pa.table(predictions.probability_columns(predicted)), stage.fingerprint)
    return names


def _without_name(model: str) -> str:
    return f"without/{model}.parquet"


def panels_without(run: Run) -> dict[str, Probabilities]:
    """Return the panel's out-of-fold predictions (n, k) without each judge, by the judge's model."""
    if PANEL not in run.settings.judge_models:
        return {}
    folder = run.folder / f"predictions/{PANEL}"
    return {
        model: predictions.probabilities_from_table(folder.read_table(_without_name(model)))
        for model in run.settings.judge_models
        if model != PANEL
    }


def _write_calibration(
    run: Run, stage: Stage, model: JudgeModel, scales: Mapping[str, Scale], calibration: JudgeCalibration
) -> None:
    """Write what predicts new pairs."""
    (run.folder / f"models/{model.name}").write_json(
        CALIBRATION,
        {
            "fingerprint": stage.fingerprint,
            "judges": {
                judge: {"score": scales[judge].score, "is_graded": scales[judge].is_graded} for judge in model.judges
            },
            "calibration": calibration.to_json(),
        },
    )


def _write(
    stage: Stage,
    ids: Mapping[str, pa.ChunkedArray],
    tables: Mapping[str, tuple[Probabilities, Folds | None]],
) -> dict[str, int]:
    """Write predictions by split, and the records without a verdict. Return the rows by split."""
    rows, missing = {}, []
    for split, (probabilities, folds) in tables.items():
        is_predicted = ~np.isnan(probabilities[:, 0])
        table = predictions.predictions_table(
            ids[split].filter(pa.array(is_predicted)),
            probabilities[is_predicted],
            None if folds is None else folds[is_predicted],
        )
        stage.folder.write_table(f"{split}.parquet", table, stage.fingerprint)
        rows[split] = len(table)
        missing += [
            {"split": split, "id": name, "reason": _NO_VERDICT, "replaced": False}
            for name in ids[split].filter(pa.array(~is_predicted)).to_pylist()
        ]
    quarantine = pa.Table.from_pylist(missing, predictions.QUARANTINE_COLUMNS)
    stage.folder.write_table(predictions.QUARANTINE_FILE, quarantine, stage.fingerprint)
    return rows


def judges_predictor(run: Run, records: Records, names: Sequence[str]) -> Predictor:
    """Return the predictor of some judges' models of a finished run. Raises InputError if one is not finished."""
    verdicts = open_verdicts(run, records)
    assert verdicts is not None  # its judges' models have names
    fitted = {}
    for model in judge_models(verdicts):
        if model.name not in names:
            continue
        prediction_stage(run, records, verdicts, model).require(JOB)
        fitted[model] = (run.folder / f"models/{model.name}").read_json(CALIBRATION)
    return lambda new, pairs: _predict_new_pairs(new, pairs, fitted)


def _predict_new_pairs(run: Run, records: Records, fitted: Mapping[JudgeModel, Mapping[str, Any]]) -> list[StageResult]:
    """Write the predictions of new pairs from the verdicts on them, which are joined before."""
    joined = run.require("judges", JOB, records.fingerprint)
    table = read_verdicts(run, "test")
    scales = {judge: Scale(**scale) for saved in fitted.values() for judge, scale in saved["judges"].items()}
    by_judge = evidence_by_judge(table, records.rows("test"), scales)
    ids = {"test": records.read("test", ["id"])["id"]}
    results = []
    for model, saved in fitted.items():
        stage = Stage(
            f"predict/{model.name}",
            run.folder / f"predictions/{model.name}",
            settings={"judges": list(model.judges)},
            inputs={
                "records": records.fingerprint,
                "judges": joined["fingerprint"],
                "calibration": saved["fingerprint"],
            },
        )
        manifest = None if run.force else stage.manifest()
        cached = manifest is not None
        if manifest is None:
            stage.begin()
            probabilities = JudgeCalibration.from_json(saved["calibration"]).predict(model.evidence(by_judge))
            manifest = stage.commit(_write(stage, ids, {"test": (probabilities, None)}))
        results.append(StageResult(stage.name, cached, manifest))
    return results
