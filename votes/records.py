"""What other stages need to know of the records of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from core.errors import InputError
from core.stage import fingerprint, refuse_other_schema

if TYPE_CHECKING:
    from core.run import Run
    from core.storage import Folder

SOURCE = "source-"  # with a name behind it, the split of a source of votes other than the primary one


@dataclass(frozen=True)
class Records:
    """The finished records of a run: where they are, and their shards by split, in input order."""

    folder: Folder
    manifest: dict[str, Any]

    @property
    def fingerprint(self) -> str:
        """What the records to train on, hold out and score are; other sources of votes have no part in it."""
        if not self.sources:
            return str(self.manifest["fingerprint"])
        return fingerprint([self.fingerprint_of(split) for split in self.splits])

    def fingerprint_of(self, split: str) -> str:
        """The fingerprint of one split: its input and the settings that shaped it, whatever the other split is."""
        inputs = {name: digest for name, digest in self.manifest["inputs"].items() if name.startswith(f"{split}/")}
        return fingerprint(
            {"schema": self.manifest["schema_version"], "settings": self.manifest["settings"], "inputs": inputs}
        )

    @property
    def votes(self) -> list[str]:
        """Digests of the files with the votes to train on, sorted: the same ones however they are cut and divided."""
        return sorted({digest for name, digest in self.manifest["inputs"].items() if name.startswith("train/")})

    @property
    def splits(self) -> list[str]:
        """The splits there are: train, and test if there was test input."""
        return [split for split in ("train", "test") if split in self.manifest["rows"]]

    @property
    def sources(self) -> list[str]:
        """The splits of other sources of votes: trained on, never held out, not scored."""
        return [split for split in self.manifest["rows"] if split.startswith(SOURCE)]

    def rows(self, split: str) -> int:
        """Records of a split."""
        return int(self.manifest["rows"][split])

    def shards(self, split: str) -> list[str]:
        """File names such as train/part-00000.parquet, in input order."""
        return [name for name in self.manifest["shards"] if name.startswith(f"{split}/")]

    def shard_rows(self, shard: str) -> int:
        """Records of one shard."""
        return int(self.manifest["shards"][shard])

    def read(self, split: str, columns: list[str]) -> pa.Table:
        """Some columns of all records of a split, in input order; for ids, labels and folds, not for texts."""
        return pa.concat_tables([self.folder.read_table(name, columns) for name in self.shards(split)])

    def labels_and_folds(self, split: str = "train") -> tuple[npt.NDArray[np.int8], npt.NDArray[np.int16]]:
        """Labels (n,) and folds (n,) of the training records, or of another source's."""
        table = self.read(split, ["label", "fold"])
        return table["label"].to_numpy(), table["fold"].to_numpy()


def record_settings(run: Run) -> dict[str, Any]:
    """The settings that shape the records."""
    data = run.settings.data
    return {
        "seed": run.settings.seed,
        "folds": data.folds,
        "shard_rows": data.shard_rows,
        "text_format": data.text_format,
    }


def open_records(run: Run) -> Records:
    """The records of a run. Raises InputError if ingest has not finished, or made them otherwise than asked here."""
    manifest = run.finished("records", "ingest")
    refuse_other_schema(manifest, run.folder / "records")
    for name, asked in record_settings(run).items():
        made = manifest["settings"].get(name)
        if made != asked:
            raise InputError(
                f"the records were made with {made!r}, the settings say {asked!r}",
                where="seed" if name == "seed" else f"data.{name}",
                fix="give --config the run's own settings.json, or run ray_jobs.pipeline, which makes them anew.",
            )
    return Records(run.folder / "records", manifest)
