"""The feature files of a run: which there are, what made them, and reading them as matrices."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from core.errors import InputError
from core.model_cache import stored_fingerprint
from core.stage import fingerprint
from core.storage import Folder, made_by
from featurize import text, text_families
from featurize.blocks import Block, Layout, NgramBlock, PlainBlock, VectorBlock
from featurize.families import embeddings, named_entities, similarity, word2vec
from featurize.ngrams import vectorize

if TYPE_CHECKING:
    from core.run import Run
    from core.settings.features import Featurize
    from core.shards import Item
    from votes.records import Records

_MODULES = {
    "handmade": text_families,
    "ngrams": vectorize,
    "similarity": similarity,
    "named_entities": named_entities,
    "word2vec": word2vec,
    "embeddings": embeddings,
}
VERSIONS: dict[str, int] = {"text": text.VERSION, **{name: module.VERSION for name, module in _MODULES.items()}}
# Libraries whose other versions may give other numbers.
_LIBRARIES = {
    "handmade": ("textblob", "py3langid", "rapidfuzz"),
    "named_entities": ("spacy",),
    "word2vec": ("gensim",),
    "embeddings": ("sentence-transformers", "transformers", "torch"),
}
_FITTED = {
    "ngrams": "vocabulary.json",
    "similarity": "idf.parquet",
    "word2vec": "vectors.parquet",
    "embeddings": "components.json",
}


@dataclass(frozen=True)
class Output:
    """One kind of feature file: its folder below features/, and the fingerprints that its files must carry.

    What was fitted, and the training records' files, depend on the training records alone; other records' files on
    those records as well.
    """

    kind: str
    folder: str
    fingerprint: str
    by_split: Mapping[str, str]

    @property
    def fitted(self) -> str:
        """The file that holds what was fitted on the training records."""
        return f"{self.folder}/{_FITTED[self.kind]}"

    @property
    def is_fitted(self) -> bool:
        """Whether anything is fitted for it."""
        return self.kind in _FITTED

    def is_made(self, target: Folder, item: Mapping[str, str]) -> bool:
        """Whether the file of a shard is there, as this output makes it."""
        return target.table_fingerprint(self.file(item)) == self.by_split[item["split"]]

    def missing(self, target: Folder, items: Sequence[Item]) -> list[Item]:
        """The shards whose files are not there, or not as this output makes them."""
        found = target.table_fingerprints([self.file(item) for item in items])
        return [item for item, made in zip(items, found, strict=True) if made != self.by_split[item["split"]]]

    def file(self, item: Mapping[str, str]) -> str:
        """The file of a shard, for example of {"split": "train", "shard": "part-00000.parquet"}."""
        return f"{self.folder}/{item['split']}/{item['shard']}"


def handmade_families(wanted: Featurize) -> list[str]:
    """The families of featurize.text_families among those wanted."""
    return [family for family in wanted.families if family in text_families.FAMILIES]


def settings_of(wanted: Featurize) -> dict[str, Any]:
    """The settings that shape features; on how many machines they are made is none of them."""
    return wanted.model_dump(mode="json", exclude={"embeddings": {"replicas"}})


def plan(wanted: Featurize, records: Records, seed: int) -> list[Output]:
    """The outputs that settings ask for. Sentence embeddings have two: whole vectors, and what is made of them.

    Raises InputError if a model that the settings name is not installed.
    """

    def output(kind: str, folder: str, made_from: object) -> Output:
        version = {name: VERSIONS[name] for name in ("text", kind if kind in VERSIONS else "embeddings")}
        libraries = {name: importlib.metadata.version(name) for name in _LIBRARIES.get(kind, ())}
        train = records.fingerprint_of("train")
        made = fingerprint([kind, version, libraries, made_from, train])
        by_split = {
            split: made if split == "train" else fingerprint([made, records.fingerprint_of(split)])
            for split in [*records.splits, *records.sources]
        }
        return Output(kind, folder, made, by_split)

    outputs = []
    if families := handmade_families(wanted):
        outputs.append(output("handmade", "handmade", families))
    if "similarity" in wanted.families:
        outputs.append(output("similarity", "similarity", {}))
    if wanted.spacy_model is not None:
        outputs.append(output("named_entities", "named_entities", named_entities.identity(wanted.spacy_model)))
    # How boosters see a block does not change its files.
    for block in wanted.ngrams:
        outputs.append(output("ngrams", f"ngrams/{block.name}", block.model_dump(mode="json", exclude={"view"})))
    if wanted.word2vec is not None:
        vectors = {"seed": seed, **wanted.word2vec.model_dump(exclude={"view", "cosines"})}
        outputs.append(output("word2vec", "word2vec", vectors))
    if wanted.embeddings is not None:
        # The number of threads changes the last bits of a sum.
        encoded = wanted.embeddings.model_dump(include={"max_tokens", "cpus_per_replica", "gpus_per_replica"})
        model = wanted.embeddings.model
        encoded["model"] = stored_fingerprint(model) if "://" in model else embeddings.identity(model)
        outputs.append(output("sentence_vectors", "embeddings/vectors", encoded))
        outputs.append(output("embeddings", "embeddings", {**encoded, "components": wanted.embeddings.components}))
    return outputs


def read_fitted(target: Folder, output: Output) -> dict[str, Any]:
    """What was fitted for an output, as JSON. Raises InputError if it was fitted for another."""
    fitted = target.read_json(output.fitted)
    _refuse_other(target, output, fitted.get("fingerprint"))
    return dict(fitted)


def read_fitted_table(target: Folder, output: Output) -> pa.Table:
    """What was fitted for an output, as a table. Raises InputError if it was fitted for another."""
    table = target.read_table(output.fitted)
    _refuse_other(target, output, made_by(table.schema) or "")
    return table


def is_fitted(target: Folder, output: Output) -> bool:
    """Whether what an output needs is fitted, as it fits it."""
    if output.fitted.endswith(".parquet"):
        return target.table_fingerprint(output.fitted) == output.fingerprint
    try:
        read_fitted(target, output)
    except (FileNotFoundError, ValueError, AttributeError, InputError):
        return False
    return True


def _refuse_other(target: Folder, output: Output, found: str | None) -> None:
    """Raise InputError if what is fitted carries another fingerprint than the output's."""
    if found != output.fingerprint:
        raise InputError(
            "fitted with other settings, by another version, or on other records",
            where=f"{target}/{output.fitted}",
            fix="run ray_jobs.featurize again with --force.",
        )


def layout(folder: Folder, wanted: Featurize, outputs: Sequence[Output]) -> Layout:
    """The columns of finished features, as boosters see them."""
    by_folder = {output.folder: output for output in outputs}
    blocks: list[Block] = []
    if families := handmade_families(wanted):
        blocks.append(PlainBlock("handmade", text_families.columns(families)))
    if "similarity" in wanted.families:
        blocks.append(PlainBlock("similarity", similarity.columns()))
    if wanted.spacy_model is not None:
        blocks.append(PlainBlock("named_entities", named_entities.columns()))
    for block in wanted.ngrams:
        terms = read_fitted(folder, by_folder[f"ngrams/{block.name}"])["terms"]
        blocks.append(NgramBlock(block.name, block.part, block.view, terms))
    if wanted.word2vec is not None:
        vectors = wanted.word2vec
        what = "mean word vector"
        blocks.append(VectorBlock("word2vec", "word2vec", what, vectors.dimensions, vectors.view, vectors.cosines))
    if wanted.embeddings is not None:
        kept = len(read_fitted(folder, by_folder["embeddings"])["directions"])
        what = "reduced sentence embedding"
        blocks.append(VectorBlock("embeddings", "embeddings", what, kept, wanted.embeddings.view))
    return Layout(blocks)


def catalogue(made: Layout) -> list[dict[str, Any]]:
    """Every column but those of n-grams and vectors, which have one entry for each block."""
    entries: list[dict[str, Any]] = []
    for block in made.blocks:
        columns = block.columns()
        named = columns
        if isinstance(block, NgramBlock):
            named = []
            what = f"weights of {len(block.terms)} n-grams; terms in {block.folder}/{_FITTED['ngrams']}"
        elif isinstance(block, VectorBlock):
            named = [column for column in columns if column.unit == "cosine"]
            what = f"{block.dimensions} dimensions of the {block.what}"
        entries += [column.as_dict() for column in named]
        if len(named) < len(columns):
            family, views = columns[-1].family, "/".join(dict.fromkeys(c.view for c in columns if c not in named))
            entries.append(
                {
                    "name": f"{family}_*",
                    "family": family,
                    "feature": "*",
                    "view": views,
                    "unit": columns[-1].unit,
                    "description": what,
                    "columns": len(columns) - len(named),
                }
            )
    return entries


@dataclass(frozen=True)
class FeatureStore:
    """The finished features of a run."""

    folder: Folder
    layout: Layout
    outputs: Mapping[str, Output]  # by folder

    @classmethod
    def open(cls, run: Run, records: Records) -> FeatureStore:
        """The features of a run. Raises InputError if they are not there, or are not those that the settings ask for.

        Then the message names the first setting or version that differs.
        """
        manifest = run.finished("features", "featurize", records.fingerprint)
        made, asked = manifest["settings"], settings_of(run.settings.featurize)
        for kind, version in made["versions"].items():
            if VERSIONS.get(kind) != version:
                raise InputError(
                    f"{kind} features were made by version {version}, this code makes version {VERSIONS.get(kind)}",
                    where=str(run.folder / "features"),
                    fix="run ray_jobs.featurize again.",
                )
        for name, value in asked.items():
            if made["featurize"].get(name) != value:
                raise InputError(
                    "the features were made with another value of this setting",
                    where=f"featurize.{name}",
                    fix="run ray_jobs.featurize with the same configuration first, or ray_jobs.pipeline.",
                )
        outputs = plan(run.settings.featurize, records, run.settings.seed)
        folder = run.folder / "features"
        for output in outputs:
            if made["outputs"].get(output.folder) != dict(output.by_split):
                raise InputError(
                    "made with another version of a library or model",
                    where=f"{folder}/{output.folder}",
                    fix="run ray_jobs.featurize again, or install what made them.",
                )
        made_by_folder = {output.folder: output for output in outputs}
        return cls(folder, layout(folder, run.settings.featurize, outputs), made_by_folder)

    def tables(self, split: str, shard: str, blocks: Sequence[Block]) -> dict[str, pa.Table]:
        """The files of one shard for these blocks, by folder; a shard of train is for example part-00000.parquet.

        Raises InputError if a file was made with other settings.
        """
        item = {"split": split, "shard": shard}
        tables = {}
        for block in blocks:
            output = self.outputs[block.folder]
            file = output.file(item)
            table = self.folder.read_table(file) if self.folder.exists(file) else None
            if table is None or made_by(table.schema) != output.by_split[split]:
                raise InputError(
                    "made with other settings, by another version, or from other records",
                    where=f"{self.folder}/{file}",
                    fix="run ray_jobs.featurize again with --force.",
                )
            tables[block.folder] = table
        return tables
