"""One trial of a search: the folds of one candidate, trained side by side in one process."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray import tune

from train.boosters.data import BoosterData, BoosterSettings, Engine, Fit
from train.boosters.fold_pool import EngineName, engine_of
from tune.space import ROUNDS, Parameters

Keep = Callable[[Parameters, list[Fit]], None]


def regrouped(data: BoosterData, groups: int) -> BoosterData:
    """The same data with its folds put together into `groups` folds; prompts still straddle none."""
    folds = np.where(data.folds < 0, -1, data.folds % groups).astype(np.int16)
    used = data.used_sources
    if used is not None:  # a source that all folds of a group use
        used = np.array([used[np.arange(len(used)) % groups == group].all(axis=0) for group in range(groups)])
    return dataclasses.replace(data, folds=folds, test_features=None, used_sources=used)


def with_parameters(settings: BoosterSettings, candidate: Parameters) -> BoosterSettings:
    """Settings with a candidate's parameters instead of their own."""
    own = {name: value for name, value in candidate.items() if name != ROUNDS}
    rounds = int(candidate.get(ROUNDS, settings.rounds))
    return dataclasses.replace(settings, rounds=rounds, params={**settings.params, **own})


class FoldsTrial(tune.Trainable):  # type: ignore[misc]
    """Trains all folds of a candidate from checkpoint to checkpoint and reports their mean held-out log loss.

    What does not depend on the candidate (binned features, the folds' matrices) is made once in a process, which Ray
    Tune hands from trial to trial (`reuse_actors`). A trial whose process dies goes on from its last checkpoint.
    """

    def setup(
        self,
        config: dict[str, Any],
        *,
        engine: EngineName = "lightgbm",
        shared: "list[ray.ObjectRef[BoosterData]] | None" = None,
        settings: BoosterSettings | None = None,
        groups: int = 2,
        keep: Keep | None = None,
    ) -> None:
        """Called by Ray Tune in the trial's process; the keywords come from tune.with_parameters."""
        assert shared is not None
        assert settings is not None
        self._library: Engine = engine_of(engine)
        self._settings, self._groups, self._keep = settings, groups, keep
        self._data = regrouped(ray.get(shared[0]), groups)
        self._prepared = self._library.prepare(self._data, settings, keep_folds=True)
        self._begin(config, [None] * groups)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Called by Ray Tune to begin another trial in this process."""
        self._begin(new_config, [None] * self._groups)
        return True

    def _begin(self, config: dict[str, Any], checkpoints: list[bytes | None]) -> None:
        self._candidate = config["trial"]["candidate"] if "trial" in config else config
        self._asked = with_parameters(self._settings, self._candidate)
        self._library.check(self._data, self._asked)
        self._checkpoints = checkpoints
        self._scores: list[float] = [float("inf")] * self._groups
        self._rounds = [0] * self._groups
        self._fits: dict[int, Fit] = {}  # of folds that are trained to their end

    def step(self) -> dict[str, Any]:
        """All folds up to their next checkpoint. `rounds` counts those of the fold that got furthest.

        A failure is reported, not raised: Ray Tune would try again what can only fail again.
        """
        try:
            for fold in range(self._groups):
                if fold not in self._fits:
                    self._advance(fold)
            finished = len(self._fits) == self._groups
            if finished and self._keep is not None:
                self._keep(self._candidate, [self._fits[fold] for fold in range(self._groups)])
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
        """One stretch of one fold. What it needs of memory is let go before the next fold's turn."""
        trainer = self._library.start(self._prepared, fold, self._asked, self._checkpoints[fold])
        trainer.advance()
        self._scores[fold], self._rounds[fold] = trainer.best_score, trainer.done
        if trainer.finished:
            self._fits[fold] = trainer.fit()
        else:
            self._checkpoints[fold] = trainer.checkpoint()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """A file for each fold that has reached a checkpoint; a finished fold would train its last stretch again."""
        for fold, checkpoint in enumerate(self._checkpoints):
            if checkpoint is not None:
                Path(checkpoint_dir, f"fold-{fold}").write_bytes(checkpoint)

    def load_checkpoint(self, checkpoint: Any) -> None:  # noqa: ANN401 - Ray Tune's
        """Go on from files of `save_checkpoint`."""
        files = [Path(checkpoint, f"fold-{fold}") for fold in range(self._groups)]
        self._begin(self.config, [file.read_bytes() if file.exists() else None for file in files])
