"""The finished features of a run, read as matrices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from core.errors import InputError
from core.storage import schema_fingerprint
from featurize.outputs import Output, feature_layout, features_stage, plan_outputs

if TYPE_CHECKING:
    import pyarrow as pa

    from core.run import Run
    from core.storage import Folder
    from featurize.blocks import Block, Layout
    from votes.records import Records


@dataclass(frozen=True)
class FeatureStore:
    """The finished features of a run."""

    folder: Folder
    layout: Layout
    outputs: Mapping[str, Output]  # by folder

    @classmethod
    def open(cls, run: Run, records: Records) -> FeatureStore:
        """Open the features of a run.

        Raises InputError if they are missing, or were built with other settings. The message names the first setting or
        version that differs.
        """
        outputs = plan_outputs(run, records)
        stage = features_stage(run, records, outputs)
        stage.require("featurize")
        folder = stage.folder
        columns = feature_layout(folder, run.settings.featurize, outputs)
        return cls(folder, columns, {output.folder: output for output in outputs})

    def tables(self, split: str, shard: str, blocks: Sequence[Block]) -> dict[str, pa.Table]:
        """Return the files of one shard for these blocks, by folder. A shard is for example part-00000.parquet.

        Raises InputError if a file was made with other settings.
        """
        item = {"split": split, "shard": shard}
        tables = {}
        for name in dict.fromkeys(block.folder for block in blocks):
            output = self.outputs[name]
            file = output.file(item)
            table = self.folder.read_table(file) if self.folder.exists(file) else None
            if table is None or schema_fingerprint(table.schema) != output.by_split[split]:
                raise InputError(
                    "made with other settings, by another version, or from other records",
                    where=f"{self.folder}/{file}",
                    fix="run `tiebreak featurize` again with --force.",
                )
            tables[name] = table
        return tables
