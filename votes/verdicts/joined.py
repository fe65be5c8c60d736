"""Read the finished stage judges/. Its judges become models of the run."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pyarrow.compute as pc

from core.errors import InputError
from core.stage import require_stage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pyarrow as pa

    from core.run import Run
    from core.storage import Folder
    from votes.records import Records

JOB: Final = "train_judges"  # the job that makes the stage


@dataclass(frozen=True)
class Verdicts:
    """The finished stage judges/."""

    folder: Folder
    manifest: Mapping[str, Any]
    judges: Mapping[str, str]  # names of the judges by the names of their models

    def read(self, split: str) -> pa.Table:
        """Return the verdicts on the records of a split: see votes.verdicts.join.VERDICTS."""
        return _of_split(self.folder, split)


def read_verdicts(run: Run, split: str) -> pa.Table:
    """Return the verdicts on the records of a split, as the run's folder holds them."""
    return _of_split(run.folder / "judges", split)


def _of_split(folder: Folder, split: str) -> pa.Table:
    table = folder.read_table("verdicts.parquet")
    return table.filter(pc.equal(table["split"], split))


def table_settings(run: Run) -> list[dict[str, Any]]:
    """Return the settings of the tables that verdicts depend on: neither the place of a table nor a price."""
    return [table.model_dump(mode="json", exclude={"path", "cost_per_1000"}) for table in run.settings.judges]


def require_verdicts(run: Run) -> dict[str, Any]:
    """Return the manifest of a run's verdicts. Raises InputError if they are not finished with these settings."""
    return require_stage(run.folder / "judges", JOB, settings={"tables": table_settings(run)})


def open_verdicts(run: Run, records: Records) -> Verdicts | None:
    """Return the finished verdicts of a run; None if it has no judges. Raises InputError if they are not finished."""
    if not run.settings.judges:
        return None
    inputs = {"records": records.fingerprint}
    manifest = require_stage(run.folder / "judges", JOB, {"tables": table_settings(run)}, inputs)
    names = [name for name, counts in manifest["metrics"]["judges"].items() if counts.get("train")]
    return Verdicts(run.folder / "judges", manifest, model_names(names))


def with_judges(run: Run, records: Records) -> Run:
    """Return the run with its judges among the models. Raises InputError if their verdicts are not finished."""
    verdicts = open_verdicts(run, records)
    if verdicts is None:
        return run
    return dataclasses.replace(run, settings=run.settings.with_judges(list(verdicts.judges)))


def model_names(judges: Sequence[str]) -> dict[str, str]:
    """Return the judges by the names of their models, which are names of folders.

    Raises InputError if two judges would have one name.
    """
    names: dict[str, str] = {}
    for judge in judges:
        name = re.sub(r"[^A-Za-z0-9_-]+", "-", judge).strip("-_")[:64] or "judge"
        if name.lower() in map(str.lower, names):
            raise InputError(
                f"the judges {names.get(name, name)!r} and {judge!r} would both be the model {name!r}",
                where="judges",
                fix="rename one of them in its table, or leave it out with judges.only.",
            )
        names[name] = judge
    return names
