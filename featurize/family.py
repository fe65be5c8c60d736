"""Define the base classes of feature families. A family is one class in one file of featurize/families, or in a plugin.
A family turns the texts of a shard into columns (`transform`) and describes these columns (`block`). A family may be
fitted on the training records in one of two ways. It counts shard by shard (`counters`), or it reads all texts as one
stream (`fit`). Other families implement neither. Numbers that are joined to records are in featurize.joined.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from core.settings.features import FamilyEntry
from featurize.blocks import Block, Column, Feature, PlainBlock, View, view_columns

if TYPE_CHECKING:
    import pyarrow as pa

    from core.arrays import Floats
    from core.run import Run
    from core.storage import Folder
    from featurize.outputs import FeatureJob, Output
    from featurize.text import DistinctTexts, Text

HANDMADE = "handmade"  # the folder of the files that hand-made families share
_TEXT_VIEWS: tuple[View, ...] = ("prompt", "a", "b", "difference", "ratio")
_ANSWER_VIEWS: tuple[View, ...] = ("a", "b", "difference", "ratio")


@dataclass(frozen=True)
class FileSpec:
    """Files that an entry needs: their folder below features/, and what they depend on, as JSON."""

    folder: str
    depends_on: object
    fitted: str | None = None  # name of the file of what is fitted on the training records


class TrainingCounter(ABC):
    """Counts on the training texts, shard by shard, in a pass that all counters share. Reports travel between Ray
    tasks. They should not grow with the number of records.
    """

    fewest_rows: float = 1  # records that a report should cover: shards are put together until they have as many

    @abstractmethod
    def report(self, distinct: DistinctTexts) -> Any:  # noqa: ANN401 - the counter's own
        """Return the counts of some shards."""

    @abstractmethod
    def merge(self, *reports: Any) -> Any:  # noqa: ANN401
        """Return the counts of several reports together."""

    def select_candidates(self, merged: Any) -> tuple[Any, Any]:  # noqa: ANN401
        """Return the merged counts to keep, and a request for what a second pass must count, or None."""
        return merged, None

    def recount(self, distinct: DistinctTexts, recount_request: Any) -> Any:  # noqa: ANN401
        """Return the numbers that a second pass counts in one shard. The numbers of shards are added up."""
        raise NotImplementedError(
            f"{type(self).__name__}.select_candidates requests a recount, but has no method recount"
        )

    @abstractmethod
    def write(self, merged: Any, exact: Any, output: Output, target: Folder) -> str:  # noqa: ANN401
        """Write the fitted state of one output and return a line for the log.

        `exact` is the sum of the second pass; None if there was none.
        """

    @property
    @abstractmethod
    def outputs(self) -> Sequence[Output]:
        """The outputs that the counter fits."""


class FeatureFamily(ABC):
    """One kind of features: how files are made, and which columns they give."""

    name: ClassVar[str]
    summary: ClassVar[str]  # one line for the documentation
    version: ClassVar[int]  # part of the fingerprint of its files: raise it when the same texts give other numbers
    settings: ClassVar[type[FamilyEntry]] = FamilyEntry
    libraries: ClassVar[tuple[str, ...]] = ()  # packages of which another version may give other numbers
    position: ClassVar[int | None] = None  # rank among the families that `all` stands for; None leaves it out
    is_plain: ClassVar[bool] = False  # few columns, each with a meaning of its own: enough for a plain linear model
    fitted_file: ClassVar[str | None] = None  # name of the file of what is fitted on the training records
    fits_on_stream: ClassVar[bool] = False  # `fit` reads all texts, in a task that runs next to other work
    makes_own_files: ClassVar[bool] = False  # `make_files` makes them, not the tasks that all families share

    def folder(self, entry: FamilyEntry) -> str:
        """Return the folder of an entry's files, below features/.

        Entries with the same folder share files. An entry that fits something needs a folder of its own.
        """
        return entry.entry_name

    def files(self, entry: FamilyEntry, seed: int) -> list[FileSpec]:
        """Return the files that an entry needs; the first ones hold its columns.

        Raises InputError if a model that the settings name is not installed.
        """
        return [FileSpec(self.folder(entry), self.depends_on(entry, seed), self.fitted_file)]

    def depends_on(self, entry: FamilyEntry, seed: int) -> object:
        """Return everything that an entry's files depend on, as JSON: settings, seed, identity of a model."""
        return entry.file_settings()

    @abstractmethod
    def block(self, entry: FamilyEntry, output: Output, folder: Folder) -> Block:
        """Return an entry's columns, those of finished features in `folder`."""

    def joined_digests(self, run: Run) -> Mapping[str, str]:
        """Return digests by split of what is joined to the records, where files depend on more than their texts."""
        return {}

    def transform(self, distinct: DistinctTexts, entry: FamilyEntry, fitted: Any) -> Mapping[str, Any]:  # noqa: ANN401
        """Return the columns of a shard's file, Arrow or NumPy arrays of n values.

        `fitted` is what `read_fitted` returns.
        """
        raise NotImplementedError(f"{self.name} has neither makes_own_files nor a method transform")

    def read_fitted(self, output: Output, folder: Folder) -> Any:  # noqa: ANN401
        """Return the fitted state of an output, or None for a family without `fit` or counters. `folder` is features/.

        Raises InputError if it was fitted for another output.
        """
        return None

    def counters(self, outputs: Sequence[Output]) -> list[TrainingCounter]:
        """Return the counters that fit these outputs of the family."""
        return []

    def fit(self, entry: FamilyEntry, texts: Iterator[Text], seed: int, on_step: Callable[[int], None]) -> pa.Table:
        """Return the state fitted on a stream of all training texts. `on_step` gets the number of finished steps.

        Raises ValueError if the texts leave nothing to fit.
        """
        raise NotImplementedError(f"{self.name} has fits_on_stream, but no method fit")

    def fit_steps(self, entry: FamilyEntry) -> tuple[str, int]:
        """Return the name of the steps of `fit` and their number, for progress lines."""
        return f"{entry.entry_name} fitted", 1

    def make_files(self, job: FeatureJob, entry: FamilyEntry) -> None:
        """Make all files of an entry, where the family makes its own."""
        raise NotImplementedError(f"{self.name} has makes_own_files, but no method make_files")

    def actor_resources(self, entry: FamilyEntry) -> Mapping[str, float] | None:
        """Return the CPUs and GPUs of one actor, as Ray names them; None if the entry needs no actors."""
        return None


class TextFamily(FeatureFamily):
    """A hand-made family: numbers from one text, from an answer given its prompt, or from two answers in any order.

    A subclass lists its features and describes texts in their order.
    """

    is_plain = True
    text_features: ClassVar[Sequence[Feature]] = ()
    answer_features: ClassVar[Sequence[Feature]] = ()
    pair_features: ClassVar[Sequence[Feature]] = ()

    def describe(self, text: Text) -> list[float]:
        """Return the text features of one text."""
        raise NotImplementedError(f"{self.name} has text_features, but no method describe")

    def describe_answer(self, prompt: Text, answer: Text) -> list[float]:
        """Return the answer features of one answer to a prompt."""
        raise NotImplementedError(f"{self.name} has answer_features, but no method describe_answer")

    def describe_pair(self, a: Text, b: Text) -> list[float]:
        """Return the pair features of two answers, which must not depend on their order."""
        raise NotImplementedError(f"{self.name} has pair_features, but no method describe_pair")

    def describe_all(self, texts: Sequence[Text], entry: FamilyEntry) -> list[list[float]]:
        """Return the text features of many texts."""
        return [self.describe(text) for text in texts]

    def folder(self, entry: FamilyEntry) -> str:
        """Return the folder that all hand-made families share: one file for each shard is the fastest to read."""
        return HANDMADE

    def columns(self, entry: FamilyEntry) -> list[Column]:
        """Return the columns in order: by kind, then view, then feature."""
        name = entry.entry_name
        return [
            *view_columns(name, self.text_features, _TEXT_VIEWS),
            *view_columns(name, self.answer_features, _ANSWER_VIEWS),
            *view_columns(name, self.pair_features, ("pair",)),
        ]

    def block(self, entry: FamilyEntry, output: Output, folder: Folder) -> Block:
        """Return one column for each feature and view."""
        return PlainBlock(self.folder(entry), self.columns(entry))

    def transform(self, distinct: DistinctTexts, entry: FamilyEntry, fitted: Any) -> Mapping[str, Any]:  # noqa: ANN401
        """Return one array (n,) for each column."""
        values = self.matrix(distinct, entry)
        return {column.name: values[:, n] for n, column in enumerate(self.columns(entry))}

    def matrix(self, distinct: DistinctTexts, entry: FamilyEntry) -> Floats:
        """Return the features (n, d) of the records behind `distinct`, in the order of `columns`.

        Each text, and each answer to a prompt, is described once, however often it occurs.
        """
        index, texts = distinct.index, distinct.texts
        blocks: list[Floats] = []
        if self.text_features:
            described = _array(self.describe_all(texts, entry), self.text_features)
            prompt, a, b = (described[index[part]] for part in ("prompt", "response_a", "response_b"))
            blocks += [prompt, a, b, a - b, bounded_difference(a, b)]
        if self.answer_features:
            known: dict[tuple[int, int], list[float]] = {}
            sides = []
            for part in ("response_a", "response_b"):
                keys = list(zip(index["prompt"].tolist(), index[part].tolist(), strict=True))
                for key in keys:
                    if key not in known:
                        known[key] = self.describe_answer(texts[key[0]], texts[key[1]])
                sides.append(_array([known[key] for key in keys], self.answer_features))
            a, b = sides
            blocks += [a, b, a - b, bounded_difference(a, b)]
        if self.pair_features:
            pairs = zip(index["response_a"].tolist(), index["response_b"].tolist(), strict=True)
            blocks.append(_array([self.describe_pair(texts[a], texts[b]) for a, b in pairs], self.pair_features))
        return np.concatenate(blocks, axis=1)


def _array(rows: list[list[float]], features: Sequence[Feature]) -> Floats:
    return np.array(rows, dtype=np.float32).reshape(len(rows), len(features))


def bounded_difference(a: Floats, b: Floats) -> Floats:
    """Return (a - b) / (|a| + |b| + 1), an antisymmetric ratio of two counts. The arena's style control uses (a - b) /
    (a + b + 1), which is equal for nonnegative features.
    """
    ratio: Floats = (a - b) / (np.abs(a) + np.abs(b) + 1)
    return ratio
