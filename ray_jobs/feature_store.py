"""The feature files of a run: which there are, what made them, and reading them as matrices."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from featurize import embeddings, handmade, named_entities, ngrams, similarity, word2vec
from featurize.matrix import Block, Layout, NgramBlock, PlainBlock, VectorBlock
from preference.errors import InputError
from ray_jobs import settings
from ray_jobs.artifacts import fingerprint
from ray_jobs.storage import Folder

_MODULES = {
    "handmade": handmade,
    "ngrams": ngrams,
    "similarity": similarity,
    "named_entities": named_entities,
    "word2vec": word2vec,
    "embeddings": embeddings,
}
VERSIONS: dict[str, int] = {name: module.VERSION for name, module in _MODULES.items()}
FITTED = {
    "ngrams": "vocabulary.json",
    "similarity": "idf.parquet",
    "word2vec": "vectors.parquet",
    "embeddings": "components.json",
}


@dataclass(frozen=True)
class Output:
    """One kind of feature file: its folder below features/, and the fingerprint that its files must carry."""

    kind: str  # a key of VERSIONS
    folder: str
    fingerprint: str

    @property
    def fitted(self) -> str | None:
        """The file that holds what was fitted on the training records, if anything was."""
        return f"{self.folder}/{FITTED[self.kind]}" if self.kind in FITTED else None


def handmade_families(wanted: settings.Featurize) -> list[str]:
    """The families of featurize.handmade among those wanted."""
    return [family for family in wanted.families if family in handmade.FAMILIES]


def plan(wanted: settings.Featurize, records: str, seed: int) -> list[Output]:
    """The outputs that settings ask for, made from the records of this fingerprint.

    Raises InputError if a model that the settings name is not installed.
    """

    def output(kind: str, folder: str, made_from: object) -> Output:
        return Output(
            kind,
            folder,
            fingerprint({"kind": kind, "version": VERSIONS[kind], "settings": made_from, "records": records}),
        )

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
        vectors = {"seed": seed, **wanted.word2vec.model_dump(exclude={"view"})}
        outputs.append(output("word2vec", "word2vec", vectors))
    if wanted.embeddings is not None:
        # The number of threads changes the last bits of a sum.
        kept = wanted.embeddings.model_dump(include={"max_tokens", "components", "cpus_per_replica"})
        made_from = {**kept, "model": embeddings.identity(wanted.embeddings.model)}
        outputs.append(output("embeddings", "embeddings", made_from))
    return outputs


def layout(folder: Folder, wanted: settings.Featurize) -> Layout:
    """The columns of finished features, as boosters see them."""
    blocks: list[Block] = []
    if families := handmade_families(wanted):
        blocks.append(PlainBlock("handmade", handmade.columns(families)))
    if "similarity" in wanted.families:
        blocks.append(PlainBlock("similarity", similarity.columns()))
    if wanted.spacy_model is not None:
        blocks.append(PlainBlock("named_entities", named_entities.columns()))
    for block in wanted.ngrams:
        terms = folder.read_json(f"ngrams/{block.name}/{FITTED['ngrams']}")["terms"]
        blocks.append(NgramBlock(block.name, block.part, block.view, terms))
    if wanted.word2vec is not None:
        vectors = wanted.word2vec
        blocks.append(VectorBlock("word2vec", "word2vec", "mean word vector", vectors.dimensions, vectors.view))
    if wanted.embeddings is not None:
        made = folder.read_json(f"embeddings/{FITTED['embeddings']}")
        blocks.append(
            VectorBlock(
                "embeddings",
                "embeddings",
                "reduced sentence embedding",
                len(made["directions"]),
                wanted.embeddings.view,
            )
        )
    return Layout(blocks)


def catalogue(made: Layout) -> list[dict[str, Any]]:
    """Every column but those of n-grams and vectors, which have one entry for each block."""
    entries: list[dict[str, Any]] = []
    for block in made.blocks:
        columns = block.columns()
        named = columns
        if isinstance(block, NgramBlock):
            named = []
            what = f"weights of {len(block.terms)} n-grams; terms in {block.folder}/{FITTED['ngrams']}"
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
    fingerprints: dict[str, str]  # by folder

    @classmethod
    def open(cls, folder: Folder, manifest: dict[str, Any]) -> "FeatureStore":
        """The features that a manifest describes. Raises InputError if other code made them than would read them."""
        made_by = manifest["settings"]["versions"]
        for kind, version in made_by.items():
            if VERSIONS.get(kind) != version:
                raise InputError(
                    f"{kind} features were made by version {version}, this code makes version {VERSIONS.get(kind)}",
                    where=str(folder),
                    fix="run ray_jobs.featurize again.",
                )
        wanted = settings.Featurize.model_validate(manifest["settings"]["featurize"])
        return cls(folder, layout(folder, wanted), manifest["settings"]["outputs"])

    def matrix(self, split: str, shard: str) -> np.ndarray[Any, np.dtype[np.float32]]:
        """The dense matrix (n, d) of one shard, for example of shard part-00000.parquet of train.

        Raises InputError if a file was made with other settings or lacks a column.
        """
        tables = {}
        for block in self.layout.blocks:
            name = f"{block.folder}/{split}/{shard}"
            if self.folder.table_fingerprint(name) != self.fingerprints[block.folder]:
                raise InputError(
                    "made with other settings or from other records than the manifest says",
                    where=f"{self.folder}/{name}",
                    fix="run ray_jobs.featurize again with --force.",
                )
            tables[block.folder] = self.folder.read_table(name)
        return self.layout.dense(tables)
