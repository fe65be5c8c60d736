"""Read the inputs of all sections: the run, its records, its votes and all predictions."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from core.stage import read_manifest
from demo import stages
from metrics.baselines import class_prior_baseline, length_baseline, uniform_baseline
from metrics.scores import record_log_loss
from report.scores import score_sets
from votes import predictions

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa

    from core.arrays import Doubles, Probabilities
    from core.run import Run
    from core.settings.schema import Settings
    from core.storage import Folder
    from votes.arrays import Votes
    from votes.records import Records


@dataclass(frozen=True)
class ReportContext:
    """A finished run, read once for all sections. Arrays have a row for each row of the votes; see votes.arrays."""

    run: Run
    records: Records
    blend_manifest: Mapping[str, Any]
    columns: Mapping[str, pa.Table]  # by split, a row for each record; see report.columns
    rows: pa.Table  # id, model_a, model_b, language
    votes: Votes
    predictions: Mapping[str, Probabilities]  # (m, k) by model; rows that a model does not predict are nan
    blends: Mapping[str, Probabilities]  # (m, k) by the name of the blend

    @property
    def settings(self) -> Settings:
        """Return the settings of the run."""
        return self.run.settings

    @property
    def folder(self) -> Folder:
        """Return the folder of the run."""
        return self.run.folder

    @property
    def seed(self) -> int:
        """Return the seed of the run."""
        return self.run.settings.seed

    @property
    def submission(self) -> str:
        """Return the name of the submitted blend."""
        return str(self.blend_manifest["settings"]["submission"])

    @property
    def blend(self) -> Probabilities:
        """Return the probabilities (m, k) of the submitted blend."""
        return self.blends[self.submission]

    def position_effect(self, model: str) -> dict[str, float] | None:
        """Return the position effect of a model before it averages; None if it was not measured.

        See votes.swap.position_effect.
        """
        manifest = read_manifest(self.folder / f"predictions/{model}") or {"metrics": {}}
        effect: dict[str, float] | None = manifest["metrics"].get("position")
        return effect

    @functools.cached_property
    def blend_losses(self) -> Doubles:
        """Return the log loss (m,) of the submitted blend on each row of the votes."""
        return record_log_loss(self.blend, self.votes.labels)

    @functools.cached_property
    def train_columns(self) -> pa.Table:
        """Return the columns of the training records, a row for each row of the votes."""
        return self.votes.spread(self.columns["train"])

    @functools.cached_property
    def incomplete(self) -> list[str]:
        """Return the models that lack records: they predict some folds only, or have records in quarantine."""
        return [name for name, values in self.predictions.items() if np.isnan(values).any()]

    @functools.cached_property
    def baselines(self) -> dict[str, Probabilities]:
        """Return the probabilities (m, k) of the baselines, and of the truth where the demo knows it."""
        votes = self.votes
        lengths_a, lengths_b = (self.train_columns[f"chars_{side}"].to_numpy().astype(np.float64) for side in "ab")
        baselines = {
            "uniform": uniform_baseline(len(votes), votes.classes),
            "class prior": class_prior_baseline(votes),
            "length only": length_baseline(lengths_a, lengths_b, votes),
        }
        truth = stages.true_probabilities(self.run, self.rows["id"], votes.classes)
        return baselines if truth is None else {**baselines, "truth (best attainable)": truth}

    @functools.cached_property
    def scores(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Return the scores of `baselines`, complete `models` and `blends`, by kind and name."""
        models = {name: values for name, values in self.predictions.items() if name not in self.incomplete}
        sets = {"baselines": self.baselines, "models": models, "blends": self.blends}
        return score_sets(sets, self.votes, self.seed)


def read_context(
    run: Run, records: Records, blend_manifest: Mapping[str, Any], columns: Mapping[str, pa.Table]
) -> ReportContext:
    """Read votes and predictions of a finished run. Raises InputError if predictions do not fit the records."""
    votes = records.votes()
    rows = votes.spread(records.read("train", ["id", "model_a", "model_b", "language"]))
    blends = {
        name: votes.spread(
            predictions.probabilities_from_table((run.folder / "blend").read_table(f"train-{name}.parquet"))
        )
        for name in blend_manifest["metrics"]["weights"]
    }
    by_model = {
        name: votes.spread(predictions.read_predictions(run, records, name, "train")) for name in run.settings.models
    }
    return ReportContext(run, records, blend_manifest, columns, rows, votes, by_model, blends)
