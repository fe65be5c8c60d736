"""List the feature files of a run, with their fingerprints and fitted parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from core.errors import InputError
from core.registry import FAMILIES, plugin_digest
from core.stage import Stage, fingerprint, require_versions
from core.storage import schema_fingerprint
from featurize import text
from featurize.blocks import Layout

if TYPE_CHECKING:
    import pyarrow as pa

    from core.run import Run
    from core.settings.features import FamilyEntry, Featurize
    from core.shards import Item
    from core.storage import Folder
    from featurize.family import FeatureFamily
    from votes.records import Records


@dataclass(frozen=True)
class Output:
    """The files of one folder below features/, for the entries that share it, and the fingerprints they must carry.

    What is fitted, and the training records' files, depend on the training records alone. Other records' files depend
    on those records as well. Files of numbers that are joined to records depend on these numbers.
    """

    folder: str
    entries: tuple[FamilyEntry, ...]
    fingerprint: str
    by_split: Mapping[str, str]
    fitted_name: str | None = None

    @property
    def entry(self) -> FamilyEntry:
        """The only entry, or the first of those that share the files."""
        return self.entries[0]

    @property
    def family(self) -> FeatureFamily:
        """The family of the first entry."""
        return entry_family(self.entries[0])

    @property
    def fitted(self) -> str | None:
        """The file of the state fitted on the training records, if any."""
        return None if self.fitted_name is None else f"{self.folder}/{self.fitted_name}"

    def file(self, item: Mapping[str, str]) -> str:
        """Return the file of a shard, for example of {"split": "train", "shard": "part-00000.parquet"}."""
        return f"{self.folder}/{item['split']}/{item['shard']}"

    def is_made(self, target: Folder, item: Mapping[str, str]) -> bool:
        """Return whether the file of a shard exists with the fingerprint of this output."""
        return target.table_fingerprint(self.file(item)) == self.by_split[item["split"]]

    def missing(self, target: Folder, items: Sequence[Item]) -> list[Item]:
        """Return the shards whose files do not exist, or have another fingerprint."""
        fingerprints = target.table_fingerprints([self.file(item) for item in items])
        return [
            item for item, current in zip(items, fingerprints, strict=True) if current != self.by_split[item["split"]]
        ]

    def write_fitted(self, target: Folder, values: Mapping[str, Any]) -> None:
        """Write the fitted state as JSON, with the fingerprint of this output."""
        assert self.fitted is not None
        target.write_json(self.fitted, {"fingerprint": self.fingerprint, **values})

    def write_fitted_table(self, target: Folder, table: pa.Table) -> None:
        """Write the fitted state as a table, with the fingerprint of this output."""
        assert self.fitted is not None
        target.write_table(self.fitted, table, self.fingerprint)

    def read_fitted(self, target: Folder) -> dict[str, Any]:
        """Return the fitted state from JSON. Raises InputError if it was fitted for another output."""
        assert self.fitted is not None
        values = target.read_json(self.fitted)
        self._refuse_other(target, values.get("fingerprint"))
        return dict(values)

    def read_fitted_table(self, target: Folder) -> pa.Table:
        """Return the fitted state from a table. Raises InputError if it was fitted for another output."""
        assert self.fitted is not None
        table = target.read_table(self.fitted)
        self._refuse_other(target, schema_fingerprint(table.schema) or "")
        return table

    def is_fitted(self, target: Folder) -> bool:
        """Return whether the fitted state has this output's fingerprint, or the output needs none."""
        if self.fitted is None:
            return True
        if self.fitted.endswith(".parquet"):
            return target.table_fingerprint(self.fitted) == self.fingerprint
        try:
            self.read_fitted(target)
        except (FileNotFoundError, ValueError, AttributeError, InputError):
            return False
        return True

    def _refuse_other(self, target: Folder, current: str | None) -> None:
        if current != self.fingerprint:
            raise InputError(
                "fitted with other settings, by another version, or on other records",
                where=f"{target}/{self.fitted}",
                fix="run `tiebreak featurize` again with --force.",
            )


@dataclass(frozen=True)
class FeatureJob:
    """The files to make, and what families need to make them."""

    run: Run
    records: Records
    fitted: Folder  # features/ of the run that fits on its training records
    target: Folder  # features/ that gets the files; the same folder, or that of a run that only predicts
    outputs: Mapping[str, Output]  # by folder
    items: list[Item]  # the shards

    @property
    def seed(self) -> int:
        """Seed of every random choice."""
        return self.run.settings.seed

    @property
    def redo(self) -> bool:
        """Whether finished files are made again."""
        return self.run.force

    @property
    def fits(self) -> bool:
        """Whether unfitted outputs may be fitted."""
        return self.fitted == self.target

    def to_make(self, output: Output) -> list[Item]:
        """Return the shards whose files of an output must be made."""
        return self.items if self.redo else output.missing(self.target, self.items)

    def must_fit(self, output: Output) -> bool:
        """Return whether an output is not fitted yet, but must be."""
        return output.fitted is not None and (self.redo or not output.is_fitted(self.target))


def entry_family(entry: FamilyEntry) -> FeatureFamily:
    """Return the family of an entry."""
    family: FeatureFamily = FAMILIES.get(entry.family)
    return family


def family_versions(featurize: Featurize) -> dict[str, int]:
    """Return the versions of the code that makes the entries' files, by family; `text` is that of all."""
    return {"text": text.VERSION, **{entry.family: entry_family(entry).version for entry in featurize.families}}


def feature_settings(featurize: Featurize) -> dict[str, Any]:
    """Return the settings that features depend on, by entry. Excludes parallelism settings."""
    return {entry.entry_name: entry.matrix_settings() for entry in featurize.families}


def plan_outputs(run: Run, records: Records) -> list[Output]:
    """Return the configured outputs, in the order of their first entries.

    Raises InputError if a model that the settings name is not installed, or a stage that a family reads is missing.
    """
    specs: dict[str, list[Any]] = {}
    joined: dict[str, Mapping[str, str]] = {}
    entries: dict[str, list[FamilyEntry]] = {}
    fitted_names: dict[str, str | None] = {}
    for entry in run.settings.featurize.families:
        family = entry_family(entry)
        files = family.files(entry, run.settings.seed)  # first: it names what is not installed
        code = [entry.family, family.version, plugin_digest(family), require_versions(family.libraries)]
        for spec in files:
            specs.setdefault(spec.folder, []).append([*code, spec.depends_on])
            entries.setdefault(spec.folder, []).append(entry)
            fitted_names[spec.folder] = spec.fitted
            joined[spec.folder] = family.joined_digests(run)
    outputs = []
    for folder, dependencies in specs.items():
        of_train = fingerprint(
            [text.VERSION, folder, dependencies, records.fingerprint_of("train"), *_digests(joined[folder], "train")]
        )
        by_split = {}
        for split in [*records.splits, *records.sources]:
            parts = [] if split == "train" else [records.fingerprint_of(split), *_digests(joined[folder], split)]
            by_split[split] = fingerprint([of_train, *parts]) if parts else of_train
        outputs.append(Output(folder, tuple(entries[folder]), of_train, by_split, fitted_names[folder]))
    return outputs


def _digests(joined: Mapping[str, str], split: str) -> list[str]:
    return [joined[split]] if split in joined else []


def features_stage(run: Run, records: Records, outputs: Sequence[Output]) -> Stage:
    """Return the stage of features/ with the outputs that the settings name; see `plan_outputs`."""
    featurize = run.settings.featurize
    return Stage(
        "featurize",
        run.folder / "features",
        settings={
            "featurize": feature_settings(featurize),
            "order": featurize.names,
            "versions": family_versions(featurize),
            "outputs": {output.folder: dict(output.by_split) for output in outputs},
        },
        inputs={"records": records.fingerprint},
    )


def feature_layout(folder: Folder, featurize: Featurize, outputs: Sequence[Output]) -> Layout:
    """Return the columns of finished features, entry after entry, as boosters see them."""
    by_folder = {output.folder: output for output in outputs}
    families = [(entry, entry_family(entry)) for entry in featurize.families]
    return Layout([family.block(entry, by_folder[family.folder(entry)], folder) for entry, family in families])


def plain_entry_names(featurize: Featurize) -> list[str]:
    """Return the names of the entries whose columns are few and have a meaning of their own."""
    return [entry.entry_name for entry in featurize.families if entry_family(entry).is_plain]
