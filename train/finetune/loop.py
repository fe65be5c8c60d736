"""The training loop of one worker: encoders and language models, stage after stage, resumable by epoch."""

from __future__ import annotations

import math
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from core.errors import InputError
from metrics.scores import vote_log_loss
from train.finetune.forward import FoldNetwork
from train.finetune.gradients import sum_gradients
from train.finetune.memory_check import check_memory
from train.finetune.networks import cpu_has_bfloat16, freeze_untrained, load_network
from train.finetune.optimizer import build_optimizer, optimizer_state, restore_optimizer
from train.finetune.progress import ProgressReporter, TokenClock
from train.finetune.sampler import EpochSampler, Step, assign_microbatches, learning_rate_at
from train.finetune.saved_model import save_adapters, save_model
from train.finetune.task import TrainingState

if TYPE_CHECKING:
    import torch

    from core.arrays import Ints, Mask, Probabilities
    from core.settings.finetune import TrainingStage
    from train.finetune.task import CurvePoint, FoldTask, OrderedRecord


def train_worker(config: dict[str, Any]) -> None:
    """Train one fold in a worker of Ray Train's. `config["task"]` is the FoldTask."""
    import ray.train
    import torch

    torch.set_num_threads(config["task"].settings.cpus_per_worker)
    context = ray.train.get_context()
    TrainingLoop(config["task"], context.get_world_rank(), context.get_world_size()).run()


@dataclass(frozen=True)
class StageTraining:
    """A stage at work: its number, its settings, the parameters that it trains by name, and their optimizer."""

    number: int
    settings: TrainingStage
    parameters: dict[str, torch.nn.Parameter]
    optimizer: torch.optim.Optimizer


class TrainingLoop:
    """One worker of `world` that train a fold together. The worker of rank 0 posts progress and writes."""

    def __init__(self, task: FoldTask, rank: int, world: int) -> None:
        import torch

        self._task, self._rank, self._world = task, rank, world
        self._settings = task.settings
        self._device = torch.device("cuda" if task.settings.gpus_per_worker else "cpu")
        self._records = np.flatnonzero(task.data.folds != task.fold)
        self._held_out = np.flatnonzero(task.data.folds == task.fold)
        self._sampler = EpochSampler(task.data.lengths[self._records], task.settings, task.seed)
        self._progress = ProgressReporter(task.fold, None if rank else task.progress)
        self._history: list[CurvePoint] = []
        self._ever_trained: set[str] = set()
        self._network: FoldNetwork
        self._clock: TokenClock

    def run(self) -> None:
        """Train all stages from the last checkpoint on, and keep the result."""
        self._started = time.monotonic()
        if self._settings.dtype == "bfloat16" and self._device.type == "cpu" and not cpu_has_bfloat16():
            self._progress.note("this CPU has no bfloat16 instructions and is many times slower in it: use float32")
        self._load_network()
        state = self._task.store.load()
        if state is not None:
            self._restore(state)
        stage, epochs = (0, 0) if state is None else (state.stage, state.epochs)
        self._clock = TokenClock(self._tokens_left(stage, epochs))
        held_out: Probabilities | None = None
        for number, settings in enumerate(self._settings.stages):
            parameters = freeze_untrained(self._network.model, settings.train, self._settings.adapters is not None)
            self._ever_trained |= parameters.keys()
            if (number, settings.epochs) <= (stage, epochs):
                continue
            self._network.prepare(settings)
            if self._device.type == "cuda":
                self._check_memory(number, settings, parameters)
            training = StageTraining(number, settings, parameters, build_optimizer(parameters, settings))
            first = 0
            if number == stage and state is not None and epochs:
                restore_optimizer(training.optimizer, parameters, state.optimizer)
                first = epochs
            self._clock.begin_stage()
            for epoch in range(first, settings.epochs):
                self._train_epoch(training, epoch)
                held_out = self._predict_held_out()
                self._report_epoch(number, epoch, held_out)
                self._save(training, epoch + 1)
        self._finish(held_out)

    def _load_network(self) -> None:
        self._progress.note("loading the model")
        model = load_network(self._task.store.base(), self._settings, self._task.seed, self._task.data.classes).to(
            self._device
        )
        self._network = FoldNetwork(model, self._task, self._device)

    def _restore(self, state: TrainingState) -> None:
        self._history = list(state.history)
        self._started -= state.seconds
        unexpected = self._network.model.load_state_dict(state.parameters, strict=False).unexpected_keys
        if unexpected:
            raise RuntimeError(f"the checkpoint has parameters that the model lacks, first {unexpected[0]}")

    def _tokens_left(self, stage: int, epochs: int) -> int:
        """Return the training tokens after so many epochs of a stage."""
        stages = self._settings.stages
        total = sum(settings.epochs for settings in stages)
        done = sum(settings.epochs for settings in stages[:stage]) + epochs
        return (total - done) * int(self._sampler.lengths.sum()) * self._settings.orders

    def _check_memory(self, number: int, stage: TrainingStage, parameters: dict[str, torch.nn.Parameter]) -> None:
        self._network.train_mode(stage)
        lengths = self._sampler.lengths
        largest = self._sampler.largest_microbatches(number, stage.epochs)
        unswapped = np.zeros(len(lengths), bool)
        microbatches = [self._examples(batch, unswapped) for batch in largest]
        check_memory(self._network, number, parameters, microbatches, int(lengths[largest[1]].max()))

    def _train_epoch(self, training: StageTraining, epoch: int) -> None:
        number, stage = training.number, training.settings
        self._network.train_mode(stage)
        steps = self._sampler.steps(number, epoch)
        swaps = self._sampler.swaps(number, epoch)
        total = stage.epochs * self._sampler.steps_per_epoch
        for index, step in enumerate(steps):
            began = time.monotonic()
            position = epoch * len(steps) + index
            rate = stage.learning_rate * learning_rate_at(position, total, stage.warmup_ratio)
            for group in training.optimizer.param_groups:
                group["lr"] = rate
            loss = self._train_step(training, step, swaps, (number, epoch, index))
            tokens = int(self._sampler.lengths[np.concatenate(step.microbatches)].sum()) * self._settings.orders
            self._clock.count(tokens, time.monotonic() - began)
            self._history.append(
                {
                    "stage": number,
                    "epoch": epoch,
                    "step": position,
                    "loss": loss,
                    "learning_rate": rate,
                    "tokens": tokens,
                    "tokens_per_second": self._clock.rate,
                    "time": time.time(),
                }
            )
            self._progress.step(self._history[-1], total, self._clock)

    def _train_step(self, training: StageTraining, step: Step, swaps: Mask, position: tuple[int, int, int]) -> float:
        """Do one step of the optimizer, with all workers. Return the mean loss.

        `position` is the number of the stage, of the epoch and of the step in it. Raises InputError if the loss or its
        gradient is not finite.
        """
        import torch

        stage, epoch, index = position
        parameters = list(training.parameters.values())
        training.optimizer.zero_grad(set_to_none=True)
        loss = self._backward(step, swaps, (self._task.seed, *position))
        if self._world > 1:
            loss = sum_gradients(parameters, loss)
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, training.settings.max_grad_norm))
        if not (math.isfinite(loss) and math.isfinite(norm)):  # the same on all workers
            number = epoch * self._sampler.steps_per_epoch + index + 1
            raise InputError(
                f"the training diverged in step {number} of stage {stage + 1}: the loss is {loss}, its gradient's norm "
                f"is {norm}",
                "stages",
                "lower learning_rate or raise warmup_ratio.",
            )
        training.optimizer.step()
        return loss

    def _backward(self, step: Step, swaps: Mask, seed: tuple[int, ...]) -> float:
        """Compute the gradients of this worker's microbatches of a step. Return their part of the mean loss."""
        import torch

        lengths = self._sampler.lengths
        sizes = [int(lengths[batch].max()) * len(batch) for batch in step.microbatches]
        total = 0.0
        for index in assign_microbatches(sizes, self._world)[self._rank]:
            # A seed for each microbatch, so that dropout does not depend on the worker.
            torch.manual_seed(int(np.random.SeedSequence([*seed, index]).generate_state(1)[0]))
            examples = self._examples(step.microbatches[index], swaps)
            loss = self._network.loss(examples) / (step.records * self._settings.orders)
            loss.backward()
            total += float(loss.detach())
        return total

    def _examples(self, batch: Ints, swaps: Mask) -> list[OrderedRecord]:
        """Return record and order of each sequence of a microbatch."""
        both = self._settings.swap == "both"
        return [(self._records[n], swapped) for n in batch for swapped in ((False, True) if both else (swaps[n],))]

    def _predict_held_out(self) -> Probabilities:
        return self._network.predict(self._held_out, self._rank, self._world)

    def _report_epoch(self, stage: int, epoch: int, held_out: Probabilities) -> None:
        import ray.train

        points = [point for point in self._history if (point["stage"], point["epoch"]) == (stage, epoch)]
        mean = float(np.mean([point["loss"] for point in points]))
        loss = vote_log_loss(held_out, self._task.data.votes[self._held_out])
        self._history[-1]["held_out_log_loss"] = loss
        self._history[-1]["seconds_training"] = self._clock.training_seconds
        self._progress.epoch(self._history[-1], f"mean loss {mean:.4f}, held-out log loss {loss:.4f}")
        ray.train.report({"stage": stage, "epoch": epoch, "loss": mean, "held_out_log_loss": loss})

    def _save(self, training: StageTraining, epochs: int) -> None:
        if self._rank:
            return
        values = self._network.model.state_dict()
        trained = {name: value for name, value in values.items() if name in self._ever_trained}
        moments = optimizer_state(training.optimizer, training.parameters)
        seconds = time.monotonic() - self._started
        self._task.store.save(TrainingState(training.number, epochs, trained, moments, self._history, seconds))

    def _finish(self, held_out: Probabilities | None) -> None:
        """Keep the model and its predictions for the held-out records; `held_out` if they are known.

        Adapters are merged into the base first, which rounds them to its type. The predictions are those of the merged
        model, which is the one that is served.
        """
        merges = self._settings.adapters is not None and not self._settings.is_4bit
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder)
            if self._rank == 0:
                self._progress.note("saving the model")
                save_adapters(self._network.model, self._task, path)
            if merges:
                self._network.model = self._network.model.merge_and_unload()
            if merges or held_out is None:
                held_out = self._predict_held_out()
            if self._rank == 0:
                save_model(self._network.model, self._task, path)
                seconds = time.monotonic() - self._started
                self._task.store.finish(path, self._held_out, held_out, self._history, seconds)
