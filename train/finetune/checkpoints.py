"""Store a fold's checkpoints during training, then its model, predictions and training curves."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from core.resources import resource_seconds
from metrics.scores import vote_log_loss
from train.finetune.task import TrainingState
from votes import predictions

if TYPE_CHECKING:
    from core.arrays import Doubles, Probabilities, Rows
    from core.model_cache import CheckpointRef
    from core.stage import Stage
    from train.finetune.task import CurvePoint

MODEL_FOLDER = "model"  # folders and files of a fold
TRAINED_ON_FILE = "training.json"
HELD_OUT_FILE = "out_of_fold.parquet"
HISTORY_FILE = "history.json"
EVENTS_FILE = "events.out.tfevents.tiebreak"
CHECKPOINT_FOLDER = "checkpoint"
_STATE = f"{CHECKPOINT_FOLDER}/state.json"


@dataclass(frozen=True)
class RunFoldStore:
    """A fold's folder in the run. Files are safetensors and JSON; reading them runs no code."""

    stage: Stage
    start: CheckpointRef
    votes: Doubles  # counts (n, k) of the held-out records, in their order
    records: str  # fingerprint of the training records
    vote_files: list[str]  # digests of the files that they come from
    cpus: int  # of all its workers
    gpus: int

    def base(self) -> str:
        """See train.finetune.task.FoldStore."""
        return self.start.local()

    def progress(self) -> tuple[int, int] | None:
        """See train.finetune.task.FoldStore."""
        state = self._state()
        return None if state is None else (state["stage"], state["epochs"])

    def load(self) -> TrainingState | None:
        """See train.finetune.task.FoldStore."""
        state = self._state()
        if state is None:
            return None
        parameters, optimizer = (self._read(state[name]) for name in ("parameters", "optimizer"))
        return TrainingState(state["stage"], state["epochs"], parameters, optimizer, state["history"], state["seconds"])

    def finished(self) -> bool:
        """See train.finetune.task.FoldStore."""
        return self.stage.manifest() is not None

    def save(self, state: TrainingState) -> None:
        """Write the tensors, then the file that names them. Then remove the tensors of the last epoch."""
        from safetensors.torch import save

        folder = self.stage.folder
        names = {}
        for name, values in (("parameters", state.parameters), ("optimizer", state.optimizer)):
            names[name] = f"{CHECKPOINT_FOLDER}/{name}-{state.stage}-{state.epochs}.safetensors"
            tensors = {key: value.detach().cpu().contiguous() for key, value in values.items()}
            folder.write_bytes(names[name], save(tensors))
        position = {"fingerprint": self.stage.fingerprint, "stage": state.stage, "epochs": state.epochs}
        folder.write_json(_STATE, {**position, **names, "history": state.history, "seconds": state.seconds})
        folder.write_bytes(EVENTS_FILE, _events(state.history))
        for name in folder.files():
            if name.startswith(f"{CHECKPOINT_FOLDER}/") and name not in {_STATE, *names.values()}:
                folder.delete(name)

    def finish(
        self, model: Path, rows: Rows, held_out: Probabilities, history: list[CurvePoint], seconds: float
    ) -> None:
        """Write the result, remove the checkpoint, and commit."""
        folder = self.stage.folder
        keep = {HELD_OUT_FILE, HISTORY_FILE, EVENTS_FILE}
        for path in sorted(path for path in model.rglob("*") if path.is_file()):
            name = f"{MODEL_FOLDER}/{path.relative_to(model)}"
            folder.write_file(name, path)
            keep.add(name)
        # Scoring reads this: predictions of a model for its own training records are worthless.
        trained_on = {"records": self.records, "votes": self.vote_files, "fold": self.stage.settings["fold"]}
        for parent in sorted(
            {MODEL_FOLDER, *(name.rpartition("/")[0] for name in keep if name.startswith(f"{MODEL_FOLDER}/"))}
        ):
            folder.write_json(f"{parent}/{TRAINED_ON_FILE}", trained_on)
            keep.add(f"{parent}/{TRAINED_ON_FILE}")
        table = pa.table({"row": rows, **predictions.probability_columns(held_out)})
        folder.write_table(HELD_OUT_FILE, table, self.stage.fingerprint)
        folder.write_json(HISTORY_FILE, history)
        folder.write_bytes(EVENTS_FILE, _events(history))
        metrics = {
            "log_loss": vote_log_loss(held_out, self.votes),
            "tokens": int(sum(point["tokens"] for point in history)),
            "steps": len(history),
            **resource_seconds(seconds, self.cpus, self.gpus),
        }
        self.stage.commit(rows={"train": len(rows)}, metrics=metrics, keep=keep, seconds=seconds)

    def _state(self) -> dict[str, Any] | None:
        try:
            state = self.stage.folder.read_json(_STATE)
        except (FileNotFoundError, ValueError):
            return None
        if not isinstance(state, dict) or state.get("fingerprint") != self.stage.fingerprint:
            return None
        tensors = (state["parameters"], state["optimizer"])
        return state if all(self.stage.folder.exists(name) for name in tensors) else None

    def _read(self, name: str) -> Any:  # noqa: ANN401 - tensors by name
        from safetensors.torch import load

        return load(self.stage.folder.read_bytes(name))


def _events(history: list[CurvePoint]) -> bytes:
    """Return a TensorBoard event file of the training curves. Steps count through all stages, with their own times."""
    from tensorboardX import SummaryWriter

    with tempfile.TemporaryDirectory() as folder:
        with SummaryWriter(folder) as writer:
            for step, point in enumerate(history):
                for name in ("loss", "learning_rate", "tokens_per_second", "held_out_log_loss"):
                    if name in point:
                        writer.add_scalar(name, point[name], step, walltime=point["time"])
        (file,) = Path(folder).iterdir()
        return file.read_bytes()
