"""Report the progress of a fold's training: tokens a second and time left."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ray.actor import ActorHandle

    from train.finetune.task import CurvePoint

POST_SECONDS = 10.0  # between two progress lines


class TokenClock:
    """Counts tokens and seconds. The rate is measured per stage, since stages differ in the work for each token."""

    def __init__(self, tokens_left: int) -> None:
        self.training_seconds = 0.0  # of all steps of this process
        self._tokens_left = tokens_left
        self._read = 0
        self._seconds = 0.0

    def begin_stage(self) -> None:
        """Reset the measured rate."""
        self._read, self._seconds = 0, 0.0

    @property
    def rate(self) -> float:
        """Tokens a second in this stage."""
        return self._read / max(self._seconds, 1e-6)

    @property
    def seconds_left(self) -> float:
        """Estimated seconds until the last step of the last stage, at the rate of this stage."""
        return self._tokens_left / max(self.rate, 1e-6)

    def count(self, tokens: int, seconds: float) -> None:
        """Add the tokens and seconds of a step."""
        self._read += tokens
        self._tokens_left -= tokens
        self._seconds += seconds
        self.training_seconds += seconds


class ProgressReporter:
    """Posts lines about a fold to the actor train.finetune.fold_trainer.ProgressLog; without an actor, nothing."""

    def __init__(self, fold: int, actor: ActorHandle | None) -> None:
        self._fold, self._actor = fold, actor
        self._posted = 0.0

    def note(self, text: str) -> None:
        """Post a line at once."""
        if self._actor is not None:
            self._posted = time.monotonic()
            self._actor.post.remote(self._fold, text)

    def epoch(self, last: CurvePoint, text: str) -> None:
        """Post a line at once about the epoch of a step."""
        self.note(f"stage {int(last['stage']) + 1}, epoch {int(last['epoch']) + 1}: {text}")

    def step(self, last: CurvePoint, steps: int, clock: TokenClock) -> None:
        """Post a line about a step, at most every `POST_SECONDS`."""
        if self._actor is None or time.monotonic() - self._posted < POST_SECONDS:
            return
        self.epoch(
            last,
            f"step {int(last['step']) + 1}/{steps}, loss {last['loss']:.4f}, lr {last['learning_rate']:.1e}, "
            f"{clock.rate:,.0f} tokens/s, {clock.seconds_left:.0f} s left",
        )
