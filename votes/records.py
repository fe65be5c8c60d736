"""The records of a run, as other stages read them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from core.stage import fingerprint, require_stage
from votes.arrays import Votes, counts_from_table, votes_from_table

if TYPE_CHECKING:
    from core.arrays import Doubles
    from core.run import Run
    from core.storage import Folder

SOURCE_PREFIX = "source-"  # prefix of the splits of sources other than the primary one


@dataclass(frozen=True)
class Records:
    """The finished records of a run: their folder, and their shards by split, in input order."""

    folder: Folder
    manifest: dict[str, Any]

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the training and test records, without other sources of votes."""
        if not self.sources:
            return str(self.manifest["fingerprint"])
        return fingerprint([self.fingerprint_of(split) for split in self.splits])

    def fingerprint_of(self, split: str) -> str:
        """Return the fingerprint of one split: of its input and of the settings that it depends on."""
        inputs = {name: digest for name, digest in self.manifest["inputs"].items() if name.startswith(f"{split}/")}
        return fingerprint(
            {"schema": self.manifest["schema_version"], "settings": self.manifest["settings"], "inputs": inputs}
        )

    @property
    def outcomes(self) -> tuple[str, ...]:
        """The outcomes that votes have and models predict, in order."""
        return tuple(self.manifest["metrics"].get("outcomes", ("a", "b", "tie")))

    @property
    def classes(self) -> int:
        """Number of outcomes."""
        return len(self.outcomes)

    @property
    def vote_files(self) -> list[str]:
        """Sorted digests of the files with training votes; folds and shards do not change them."""
        return sorted({digest for name, digest in self.manifest["inputs"].items() if name.startswith("train/")})

    @property
    def splits(self) -> list[str]:
        """The splits: train, and test if there was test input."""
        return [split for split in ("train", "test") if split in self.manifest["rows"]]

    @property
    def sources(self) -> list[str]:
        """The splits of other sources of votes: trained on, never held out, never scored."""
        return [split for split in self.manifest["rows"] if split.startswith(SOURCE_PREFIX)]

    def rows(self, split: str) -> int:
        """Return the number of records of a split."""
        return int(self.manifest["rows"][split])

    def shards(self, split: str) -> list[str]:
        """Return file names such as train/part-00000.parquet, in input order."""
        return [name for name in self.manifest["shards"] if name.startswith(f"{split}/")]

    def shard_rows(self, shard: str) -> int:
        """Return the number of records of one shard."""
        return int(self.manifest["shards"][shard])

    def read(self, split: str, columns: list[str]) -> pa.Table:
        """Return some columns of all records of a split, in input order: ids, labels, folds, not texts."""
        return pa.concat_tables([self.folder.read_table(name, columns) for name in self.shards(split)])

    def folds(self, split: str = "train") -> npt.NDArray[np.int16]:
        """Return the folds (n,) of the training records, or of another source."""
        folds: npt.NDArray[np.int16] = self.read(split, ["fold"])["fold"].to_numpy()
        return folds

    def ballots(self) -> pa.Table | None:
        """Return a row for each vote on a training record: votes.schema.BALLOTS, and the record's number in `record`.

        Returns None if every record has one vote of an unknown voter.
        """
        names = [f"voters/{name}" for name in self.shards("train")]
        if not names or not self.folder.exists(names[0]):
            return None
        table = pa.concat_tables([self.folder.read_table(name) for name in names])
        ids = self.read("train", ["id"])["id"].combine_chunks()
        return table.append_column("record", pc.index_in(table["id"].combine_chunks(), ids))

    def training_vote_counts(self) -> Doubles:
        """Return the vote counts (n, k) that models are trained on: by default those of `vote_counts`."""
        return counts_from_table(self._training_votes("train", []), self.classes)

    def training_votes(self, split: str = "train") -> Votes:
        """Return the votes that models are trained on: by default those of `votes`."""
        return votes_from_table(self._training_votes(split, ["fold", "group"]), self.classes)

    def _training_votes(self, split: str, others: list[str]) -> pa.Table:
        weighed = self.manifest["settings"].get("voters", {}).get("model") == "reliability"
        name = "training_votes" if weighed else "votes"
        return self.read(split, [name, *others]).rename_columns(["votes", *others])

    def vote_counts(self, split: str = "train") -> Doubles:
        """Return the vote counts (n, k) of the records of a split."""
        return counts_from_table(self.read(split, ["votes"]), self.classes)

    def votes(self, split: str = "train") -> Votes:
        """Return the votes of the training records, or of another source."""
        return votes_from_table(self.read(split, ["votes", "fold", "group"]), self.classes)


def record_settings(run: Run) -> dict[str, Any]:
    """Return the settings that the records depend on."""
    data = run.settings.data
    reading = data.model_dump(
        mode="json",
        include={"format", "columns", "pairs", "outcomes", "encoding", "weights", "voters"},
        exclude_defaults=True,
    )
    return {
        "seed": run.settings.seed,
        "folds": data.folds,
        "shard_rows": data.shard_rows,
        "text_format": data.text_format,
        **reading,
    }


def open_records(run: Run) -> Records:
    """Return the records of a run. Raises InputError if ingest has not finished, or used other settings."""
    manifest = require_stage(run.folder / "records", "ingest", settings=record_settings(run))
    return Records(run.folder / "records", manifest)
