"""Train the folds of one candidate in one process: a trial of a search."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import ray
from ray import tune

from core.registry import ENGINES

if TYPE_CHECKING:
    from core.settings.tune import Search, Space
    from train.boosters.data import BoosterData
    from train.boosters.engine import BoosterRecipe, TrainedModel
    from tune.space import Parameters

ModelsCallback = Callable[["Parameters", "list[TrainedModel]"], None]


@dataclass(frozen=True)
class SearchJob:
    """All that a search's trials need. It travels to their processes as it is."""

    data: ray.ObjectRef[BoosterData]
    recipe: BoosterRecipe  # the booster as configured; its seed draws the candidates, too
    search: Search
    candidates: Sequence[Parameters] | None = None  # to try in place of candidates drawn from the space

    @property
    def space(self) -> Space:
        """The ranges that are searched."""
        return self.search.space_of(self.recipe.settings.engine)

    def candidate_recipe(self, candidate: Parameters) -> BoosterRecipe:
        """Return the recipe with a candidate's parameters in place of its own."""
        return dataclasses.replace(self.recipe, settings=self.recipe.settings.with_parameters(candidate))


def merge_folds(data: BoosterData, groups: int) -> BoosterData:
    """Return the same data with its folds merged into `groups` folds; no prompt is in two of them."""
    folds = np.where(data.folds < 0, -1, data.folds % groups).astype(np.int16)
    used = data.used_sources
    if used is not None:  # a source that all folds of a group use
        used = np.array([used[np.arange(len(used)) % groups == group].all(axis=0) for group in range(groups)])
    return dataclasses.replace(data, folds=folds, test_features=None, used_sources=used)


class FoldsTrial(tune.Trainable):  # type: ignore[misc]
    """Train all folds of a candidate from checkpoint to checkpoint and report their mean held-out log loss.

    Binned features and the folds' matrices do not depend on the candidate. They are made once in a process, which Ray
    Tune reuses for many trials (`reuse_actors`). A trial whose process dies resumes from its last checkpoint.
    """

    def setup(
        self, config: dict[str, Any], *, job: SearchJob | None = None, keep: ModelsCallback | None = None
    ) -> None:
        """Begin the first trial of this process. Ray Tune calls it; the keywords come from tune.with_parameters."""
        assert job is not None
        self._job, self._keep = job, keep
        self._engine = ENGINES.get(job.recipe.settings.engine)
        self._folds = job.search.folds
        self._data = merge_folds(ray.get(job.data), self._folds)
        self._prepared = self._engine.prepare(self._data, job.recipe, keep_folds=True)
        self._begin(config, [None] * self._folds)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begin another trial in this process. Ray Tune calls it."""
        self._begin(new_config, [None] * self._folds)
        return True

    def _begin(self, config: dict[str, Any], checkpoints: list[bytes | None]) -> None:
        self._candidate = config["trial"]["candidate"] if "trial" in config else config
        self._recipe = self._job.candidate_recipe(self._candidate)
        self._engine.try_parameters(self._data, self._recipe)
        self._checkpoints = checkpoints
        self._scores: list[float] = [float("inf")] * self._folds
        self._rounds = [0] * self._folds
        self._models: dict[int, TrainedModel] = {}  # of folds that are trained to their end

    def step(self) -> dict[str, Any]:
        """Train all folds up to their next checkpoint. `rounds` counts those of the fold that got furthest.

        A failure is reported, not raised: Ray Tune would retry what can only fail again.
        """
        try:
            for fold in range(self._folds):
                if fold not in self._models:
                    self._advance(fold)
            finished = len(self._models) == self._folds
            if finished and self._keep is not None:
                self._keep(self._candidate, [self._models[fold] for fold in range(self._folds)])
        except Exception as error:
            return {"error": f"{type(error).__name__}: {error}", "log_loss": float("inf"), "rounds": 0, "done": True}
        return {
            "log_loss": float(np.mean(self._scores)),
            "fold_losses": self._scores,
            "rounds": max(self._rounds),
            "finished": finished,
            "done": finished,
        }

    def _advance(self, fold: int) -> None:
        """Train one stretch of one fold. Its memory is freed before the next fold's turn."""
        trainer = self._engine.start(self._prepared, self._recipe, fold, self._checkpoints[fold])
        trainer.advance()
        self._scores[fold], self._rounds[fold] = trainer.best_score, trainer.done
        if trainer.finished:
            self._models[fold] = trainer.model()
        else:
            self._checkpoints[fold] = trainer.checkpoint()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write a file for each fold that has reached a checkpoint; a finished fold repeats its last stretch."""
        for fold, checkpoint in enumerate(self._checkpoints):
            if checkpoint is not None:
                Path(checkpoint_dir, f"fold-{fold}").write_bytes(checkpoint)

    def load_checkpoint(self, checkpoint: Any) -> None:  # noqa: ANN401 - Ray Tune's
        """Resume from files of `save_checkpoint`."""
        files = [Path(checkpoint, f"fold-{fold}") for fold in range(self._folds)]
        self._begin(self.config, [file.read_bytes() if file.exists() else None for file in files])
