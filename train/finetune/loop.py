"""The training loop of one worker: encoders and language models, one stage after another, resumable by epoch."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from core.errors import InputError
from featurize.tokens.batches import budget_batches, model_inputs
from metrics.scores import log_loss
from train.finetune.data import Probabilities, Sequences
from train.finetune.losses import summed_loss
from train.finetune.networks import cpu_has_bfloat16, forward_options, load_network, set_trained
from train.finetune.optimizer import new_optimizer, optimizer_state, restore_optimizer
from train.finetune.sampler import (
    Step,
    largest_micro_batches,
    learning_rate_at,
    plan_epoch,
    share_out,
    steps_of,
)
from train.finetune.saved_model import save_adapters, save_model
from train.finetune.task import FoldTask, Point, Rows, TrainingState
from votes.swap import swap_average

if TYPE_CHECKING:
    import torch

    from train.finetune.settings import TrainingStage

VERSION = 1  # part of the fingerprint: raise it when the same settings train another model
_POOLED_BYTES = 2**30
POST_SECONDS = 10.0  # between two lines of progress


class PeerLostError(Exception):
    """Another worker ended in the middle of a step; the training goes on from its last checkpoint."""


def train_worker(config: dict[str, Any]) -> None:
    """What Ray Train runs in each worker: `config["task"]` is the FoldTask."""
    import ray.train
    import torch

    torch.set_num_threads(config["task"].settings.cpus_per_worker)
    context = ray.train.get_context()
    _Worker(config["task"], context.get_world_rank(), context.get_world_size()).run()


@dataclass
class _Clock:
    """How many tokens are still to be read, and how fast: by the stage, since stages differ in what a token takes."""

    left: int
    read: int = 0
    seconds: float = 0.0
    training: float = 0.0  # seconds of all steps of this process

    def begin_stage(self) -> None:
        self.read, self.seconds = 0, 0.0

    def rate(self) -> float:
        return self.read / max(self.seconds, 1e-6)

    def count(self, tokens: int, seconds: float) -> None:
        self.read += tokens
        self.left -= tokens
        self.seconds += seconds
        self.training += seconds


class _Worker:
    def __init__(self, task: FoldTask, rank: int, world: int) -> None:
        import torch

        self._task, self._rank, self._world = task, rank, world
        self._settings = task.settings
        self._device = torch.device("cuda" if task.settings.gpus_per_worker else "cpu")
        self._sequences = Sequences(task.data.blocks)
        self._train = np.flatnonzero(task.data.folds != task.fold)
        self._held_out = np.flatnonzero(task.data.folds == task.fold)
        self._history: list[Point] = []
        self._ever_trained: set[str] = set()
        self._posted = 0.0
        self._pooled: dict[tuple[int, bool], torch.Tensor] | None = None
        self._epoch_tokens = int(task.data.lengths[self._train].sum()) * task.settings.orders

    def run(self) -> None:
        self._started = time.monotonic()
        settings = self._settings
        if settings.precision == "bfloat16" and self._device.type == "cpu" and not cpu_has_bfloat16():
            self._post(note="this CPU has no instructions for bfloat16 and is many times slower in it: use float32")
        self._post(note="loading the model")
        self._model = load_network(self._task.store.base(), settings).to(self._device)
        self._pad = int(self._model.config.pad_token_id)
        state = self._task.store.load()
        if state is not None:
            self._history = list(state.history)
            self._started -= state.seconds
            unexpected = self._model.load_state_dict(state.parameters, strict=False).unexpected_keys
            if unexpected:
                raise RuntimeError(f"the checkpoint has parameters that the model lacks, first {unexpected[0]}")
        at = (0, 0) if state is None else (state.stage, state.epochs)
        epochs = sum(stage.epochs for stage in settings.stages)
        done = sum(stage.epochs for stage in settings.stages[: at[0]]) + at[1]
        self._clock = _Clock(left=(epochs - done) * self._epoch_tokens)
        held_out: Probabilities | None = None
        for number, stage in enumerate(settings.stages):
            parameters = set_trained(self._model, stage.train, settings.lora is not None)
            self._ever_trained |= parameters.keys()
            if (number, stage.epochs) <= at:
                continue
            self._keep_pooled(stage)
            if self._device.type == "cuda":
                self._rehearse(number, stage, parameters)
            optimizer = new_optimizer(parameters, stage)
            first = 0
            if number == at[0] and state is not None and at[1]:
                restore_optimizer(optimizer, parameters, state.optimizer)
                first = at[1]
            self._clock.begin_stage()
            for epoch in range(first, stage.epochs):
                self._epoch(number, stage, epoch, parameters, optimizer)
                held_out = self._predict(self._held_out)
                self._end_epoch(number, epoch, held_out)
                self._save(number, epoch + 1, parameters, optimizer)
        self._finish(held_out)

    def _finish(self, held_out: Probabilities | None) -> None:
        """Keep the model and its predictions for the held-out records, which are `held_out` where they are known.

        Adapters are merged into the base first, whose precision rounds them: what is predicted is what will be served.
        """
        merges = self._settings.lora is not None and not self._settings.base_4bit
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder)
            if self._rank == 0:
                self._post(note="saving the model")
                save_adapters(self._model, self._task, path)
            if merges:
                self._model = self._model.merge_and_unload()
            if merges or held_out is None:
                held_out = self._predict(self._held_out)
            if self._rank == 0:
                save_model(self._model, self._task, path)
                seconds = time.monotonic() - self._started
                self._task.store.finish(path, self._held_out, held_out, self._history, seconds)

    def _rehearse(self, number: int, stage: TrainingStage, parameters: dict[str, torch.nn.Parameter]) -> None:
        """A forward and backward pass over the stage's largest micro-batches, of which nothing is kept.

        So that what the GPU's memory does not hold shows now and not in the middle of an epoch: largest by tokens, and
        by the longest sequence, whose attention takes the most.
        """
        import torch

        self._set_modes(stage)
        lengths = self._task.data.lengths[self._train]
        most, longest = largest_micro_batches([self._plan(number, epoch) for epoch in range(stage.epochs)], lengths)
        try:
            # The place of AdamW's moments, which the first step brings.
            moments = torch.empty(2 * sum(parameter.numel() for parameter in parameters.values()), device=self._device)
            for parameter in parameters.values():  # from a step's second micro-batch on they are there
                parameter.grad = torch.zeros_like(parameter)
            for batch in (most, longest):
                self._loss(self._pairs(batch, np.zeros(len(lengths), bool))).backward()
            del moments
        except torch.OutOfMemoryError as error:
            raise InputError(
                f"what stage {number + 1} trains and its largest micro-batches, of up to "
                f"{len(most) * self._settings.orders} sequences or {int(lengths[longest].max())} tokens, do not fit "
                "into the GPU's memory",
                "tokens_per_batch",
                "lower it or max_tokens, or set gradient_checkpointing: true or precision: bfloat16.",
            ) from error
        for parameter in parameters.values():
            parameter.grad = None

    def _plan(self, number: int, epoch: int) -> list[Step]:
        settings = self._settings
        lengths = self._task.data.lengths[self._train]
        seed = (settings.seed, number, epoch)
        return plan_epoch(lengths, settings.records_per_step, settings.tokens_per_batch, settings.orders, seed)

    def _epoch(
        self,
        number: int,
        stage: TrainingStage,
        epoch: int,
        parameters: dict[str, torch.nn.Parameter],
        optimizer: torch.optim.Optimizer,
    ) -> None:
        import torch

        settings = self._settings
        self._set_modes(stage)
        seed = (settings.seed, number, epoch)
        lengths = self._task.data.lengths[self._train]
        plan = self._plan(number, epoch)
        steps = stage.epochs * steps_of(len(self._train), settings.records_per_step)
        # With one order in a step, which one is drawn anew for each record and epoch.
        one_order = np.random.default_rng([*seed, 1]).integers(2, size=len(lengths)).astype(bool)
        for index, step in enumerate(plan):
            began = time.monotonic()
            at = epoch * len(plan) + index
            rate = stage.learning_rate * learning_rate_at(at, steps, stage.warm_up)
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.zero_grad(set_to_none=True)
            loss = self._backward(step, one_order, (*seed, index))
            loss = self._sum_gradients(list(parameters.values()), loss)
            norm = float(torch.nn.utils.clip_grad_norm_(list(parameters.values()), stage.clip))
            if not (math.isfinite(loss) and math.isfinite(norm)):  # the same on all workers
                raise InputError(
                    f"the training diverged: the loss is {loss}, its gradient's norm {norm} in step {at + 1} of stage "
                    f"{number + 1}",
                    "stages",
                    "lower learning_rate or raise warm_up.",
                )
            optimizer.step()
            tokens = int(lengths[np.concatenate(step.micro_batches)].sum()) * settings.orders
            self._clock.count(tokens, time.monotonic() - began)
            self._history.append(
                {
                    "stage": number,
                    "epoch": epoch,
                    "step": at,
                    "loss": loss,
                    "learning_rate": rate,
                    "tokens": tokens,
                    "tokens_per_second": self._clock.rate(),
                    "time": time.time(),
                }
            )
            self._post(last=self._history[-1], steps=steps)

    def _set_modes(self, stage: TrainingStage) -> None:
        """Dropout where something is trained; what is frozen gives the same numbers each time."""
        self._model.train()
        if stage.train == "all" or self._settings.lora is not None:
            return
        self._model.base_model.eval()
        for module in self._model.base_model.modules():
            own = list(module.parameters())
            if own and all(parameter.requires_grad for parameter in own):
                module.train()

    def _backward(self, step: Step, one_order: npt.NDArray[np.bool_], seed: tuple[int, ...]) -> float:
        """Gradients of this worker's share of a step; returns its share of the mean loss."""
        import torch

        lengths = self._task.data.lengths[self._train]
        sizes = [int(lengths[batch].max()) * len(batch) for batch in step.micro_batches]
        total = 0.0
        for index in share_out(sizes, self._world)[self._rank]:
            # By micro-batch, so that it does not matter which worker draws the numbers for dropout.
            torch.manual_seed(int(np.random.SeedSequence([*seed, index]).generate_state(1)[0]))
            batch = step.micro_batches[index]
            loss = self._loss(self._pairs(batch, one_order)) / (step.records * self._settings.orders)
            loss.backward()
            total += float(loss.detach())
        return total

    def _pairs(self, batch: Rows, one_order: npt.NDArray[np.bool_]) -> list[tuple[int, bool]]:
        """Record and order of each sequence of a micro-batch."""
        both = self._settings.both_orders
        return [(self._train[n], order) for n in batch for order in ((False, True) if both else (one_order[n],))]

    def _loss(self, pairs: Sequence[tuple[int, bool]]) -> torch.Tensor:
        import torch

        logits = self._logits(pairs)
        targets = [self._task.data.targets(record, swapped) for record, swapped in pairs]
        labels = torch.tensor([label for label, _ in targets], device=self._device)
        teacher = None
        if self._task.data.teacher is not None:
            soft = np.stack([wanted for _, wanted in targets if wanted is not None])
            teacher = torch.tensor(soft, dtype=torch.float32, device=self._device)
        return summed_loss(logits, labels, teacher, self._settings)

    def _logits(self, pairs: Sequence[tuple[int, bool]]) -> torch.Tensor:
        if self._pooled is None:
            return self._forward(pairs, self._model)
        import torch

        missing = [pair for pair in pairs if pair not in self._pooled]
        if missing:
            with torch.no_grad():
                self._pooled.update(zip(missing, self._forward(missing, self._model.pool), strict=True))
        logits: torch.Tensor = self._model.judge(torch.stack([self._pooled[pair] for pair in pairs])).logits
        return logits

    def _forward(self, pairs: Sequence[tuple[int, bool]], model: Callable[..., Any]) -> torch.Tensor:
        """What the model, or a part of it, makes of sequences: its logits, or the tensor that it gives."""
        import torch

        ids = [self._sequences.ids(record, swapped) for record, swapped in pairs]
        compares = self._settings.head == "answers"
        parts = [self._sequences.parts(record, swapped) for record, swapped in pairs] if compares else None
        arrays = model_inputs(ids, self._pad, parts)
        inputs = {name: torch.from_numpy(each).to(self._device) for name, each in arrays.items()}
        half = self._settings.precision == "bfloat16"
        with torch.autocast(self._device.type, torch.bfloat16, enabled=half):
            found = model(**inputs, **forward_options(self._settings))
        result: torch.Tensor = getattr(found, "logits", found)
        return result

    def _keep_pooled(self, stage: TrainingStage) -> None:
        """While the head alone is trained that compares answers, what it sees of a sequence is worked out once."""
        records = len(self._task.data.lengths)
        size = records * 2 * 3 * int(self._model.config.hidden_size) * 4  # both orders, three parts, float32
        fits = self._settings.head == "answers" and stage.train == "head" and size <= _POOLED_BYTES
        self._pooled = {} if fits else None

    def _sum_gradients(self, parameters: list[torch.nn.Parameter], loss: float) -> float:
        """Add the gradients and losses of all workers, in one exchange; returns the whole loss.

        Not DistributedDataParallel: a worker without a micro-batch in this step would keep the others waiting there.
        """
        import torch

        if self._world == 1:
            return loss
        parts = [
            torch.zeros_like(parameter).flatten() if parameter.grad is None else parameter.grad.flatten()
            for parameter in parameters
        ]
        flat = torch.cat([*(part.float() for part in parts), torch.tensor([loss], device=self._device)])
        _sum_over_workers(flat)
        at = 0
        for parameter in parameters:
            size = parameter.numel()
            parameter.grad = flat[at : at + size].view_as(parameter).to(parameter.dtype)
            at += size
        return float(flat[-1])

    def _predict(self, records: Rows) -> Probabilities:
        """Swap-averaged probabilities (n, 3) of records, worked out by all workers together and known to all."""
        import torch

        self._model.eval()
        result = torch.zeros((len(records), 3), dtype=torch.float64)
        batches = budget_batches(self._task.data.lengths[records], self._settings.tokens_per_batch // 2)
        with torch.no_grad():
            for batch in batches[self._rank :: self._world]:
                pairs = [(records[n], swapped) for swapped in (False, True) for n in batch]
                shares = torch.softmax(self._logits(pairs).double(), dim=1).cpu().numpy()
                result[batch] = torch.from_numpy(swap_average(shares[: len(batch)], shares[len(batch) :]))
        if self._world > 1:
            whole = result.to(self._device)
            _sum_over_workers(whole)
            result = whole.cpu()
        return np.asarray(result.numpy())

    def _end_epoch(self, number: int, epoch: int, held_out: Probabilities) -> None:
        import ray.train

        points = [point for point in self._history if (point["stage"], point["epoch"]) == (number, epoch)]
        mean = float(np.mean([point["loss"] for point in points]))
        loss = log_loss(held_out, self._task.data.labels[self._held_out])
        self._history[-1]["held_out_log_loss"] = loss
        self._history[-1]["seconds_training"] = self._clock.training
        self._post(last=self._history[-1], note=f"epoch's loss {mean:.4f}, held-out log loss {loss:.4f}", always=True)
        ray.train.report({"stage": number, "epoch": epoch, "loss": mean, "held_out_log_loss": loss})

    def _save(
        self,
        number: int,
        epochs: int,
        parameters: dict[str, torch.nn.Parameter],
        optimizer: torch.optim.Optimizer,
    ) -> None:
        if self._rank:
            return
        values = {name: value for name, value in self._model.state_dict().items() if name in self._ever_trained}
        moments = optimizer_state(optimizer, parameters)
        seconds = time.monotonic() - self._started
        self._task.store.save(TrainingState(number, epochs, values, moments, self._history, seconds))

    def _post(self, last: Point | None = None, steps: int = 0, note: str = "", always: bool = False) -> None:
        now = time.monotonic()
        if self._rank or self._task.progress is None or (now - self._posted < POST_SECONDS and not (note or always)):
            return
        self._posted = now
        text = note
        if last is not None and not note:
            text = (
                f"step {int(last['step']) + 1}/{steps}, loss {last['loss']:.4f}, lr {last['learning_rate']:.1e}, "
                f"{self._clock.rate():,.0f} tokens/s, {self._clock.left / max(self._clock.rate(), 1e-6):.0f} s left"
            )
        if last is not None:
            text = f"stage {int(last['stage']) + 1}, epoch {int(last['epoch']) + 1}: {text}"
        self._task.progress.post.remote(self._task.fold, text)


def _sum_over_workers(values: torch.Tensor) -> None:
    import torch.distributed

    try:
        torch.distributed.all_reduce(values)
    except RuntimeError as error:
        raise PeerLostError(str(error)) from error
