"""Word and character n-grams, as counts or TF-IDF: equal to scikit-learn's to the column.

The vocabulary is fitted on the training records; featurize.ngrams.term_counts explains how without counting everything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, cast

import numpy as np
from pydantic import Field, model_validator

from core.errors import InputError
from core.registry import FAMILIES
from core.settings.base import Name, PositiveInt, tuple_from_list
from core.settings.features import FamilyEntry, PairView
from featurize.blocks import Block, NgramBlock, sparse_to_lists
from featurize.family import FeatureFamily, TrainingCounter
from featurize.ngrams import term_counts, vectorize

if TYPE_CHECKING:
    from core.arrays import Ints
    from core.storage import Folder
    from featurize.ngrams.counting import Matcher
    from featurize.ngrams.term_counts import TermCounts
    from featurize.outputs import Output
    from featurize.text import DistinctTexts

_PARTS: dict[str, tuple[str, ...]] = {"prompt": ("prompt",), "response": ("response_a", "response_b")}
_COLUMNS = {"prompt": "prompt", "response_a": "a", "response_b": "b"}  # of a file, by the part of the record
_FEW_TEXTS = 4
_BATCH_ROWS = 4096  # at most, since the texts of a batch are in memory together


class NgramSettings(FamilyEntry):
    """One block of n-gram columns."""

    columns_only: ClassVar[frozenset[str]] = frozenset({"view"})

    family: Literal["ngrams"] = Field(default="ngrams", description="Name of the feature family.")
    name: Name = Field(description="Name of the block, by which boosters choose it.")
    part: Literal["prompt", "response"] = Field(
        default="response", description="Texts that are counted: the prompts, or both answers."
    )
    analyzer: Literal["word", "char", "char_wb"] = Field(
        default="word", description="What an n-gram is made of, as in scikit-learn's CountVectorizer."
    )
    ngram_range: tuple[PositiveInt, PositiveInt] = Field(
        default=(1, 1), description="Shortest and longest n-gram, in words or characters."
    )
    weighting: Literal["count", "tfidf"] = Field(default="tfidf", description="What a cell of the matrix holds.")
    min_df: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.002, description="Smallest share of texts that contain the term."
    )
    max_features: PositiveInt = Field(default=1000, description="Terms to keep at most, the most frequent ones.")
    view: PairView = Field(
        default="pair", description="Columns for each answer (pair), or one column for A minus B (difference)."
    )

    @property
    def entry_name(self) -> str:
        """The block's own name."""
        return self.name

    def vectorizer(self) -> vectorize.Vectorizer:
        """Return the analyzer's settings, and the limits for terms."""
        return vectorize.Vectorizer(self.analyzer, self.ngram_range, self.weighting, self.min_df, self.max_features)

    @property
    def counted_as(self) -> tuple[Any, ...]:
        """Blocks with the same value count the same n-grams of the same texts."""
        return _PARTS[self.part], self.analyzer, self.ngram_range

    @model_validator(mode="before")
    @classmethod
    def _range_from_list(cls, values: Any) -> Any:  # noqa: ANN401 - raw YAML
        return tuple_from_list(values, "ngram_range")

    @model_validator(mode="after")
    def _range_is_ordered(self) -> NgramSettings:
        if self.ngram_range[0] > self.ngram_range[1]:
            raise ValueError("ngram_range is [min, max], and min must not exceed max")
        return self


@FAMILIES.register
class NgramFamily(FeatureFamily):
    """Sparse columns, one for each term of a vocabulary."""

    name = "ngrams"
    summary = "word or character n-grams as counts or TF-IDF, equal to scikit-learn's to the column"
    version = 2
    settings = NgramSettings
    fitted_file = "vocabulary.json"

    def folder(self, entry: FamilyEntry) -> str:
        """Return ngrams/ and the block's name."""
        return f"ngrams/{entry.entry_name}"

    def block(self, entry: FamilyEntry, output: Output, folder: Folder) -> Block:
        """Return one column for each view and term."""
        settings = cast("NgramSettings", entry)
        terms = output.read_fitted(folder)["terms"]
        description = f"weights of {len(terms)} n-grams; terms in {output.fitted}"
        return NgramBlock(output.folder, settings.name, settings.part, settings.view, terms, description)

    def read_fitted(self, output: Output, folder: Folder) -> vectorize.NgramVocabulary:
        """Return the vocabulary."""
        fitted = output.read_fitted(folder)
        return vectorize.NgramVocabulary(fitted["terms"], np.array(fitted["idf"]))

    def transform(self, distinct: DistinctTexts, entry: FamilyEntry, fitted: Any) -> Mapping[str, Any]:  # noqa: ANN401
        """Return a sparse row of terms for the prompt, or for A and for B."""
        settings = cast("NgramSettings", entry)
        vocabulary: vectorize.NgramVocabulary = fitted
        parts, vectorizer = _PARTS[settings.part], settings.vectorizer()
        used, texts, _ = distinct.used_by(parts)
        key = ("ngrams", *settings.counted_as, tuple(vocabulary.terms))  # blocks that differ by weighting share counts
        if key not in distinct.memo:
            distinct.memo[key] = vectorize.count_texts(texts, vocabulary, vectorizer)
        weighed = vectorize.apply_weighting(distinct.memo[key], vocabulary, vectorizer)
        sides = {
            _COLUMNS[part]: vectorize.take_rows(weighed, used.searchsorted(distinct.index[part])) for part in parts
        }
        return {name: sparse_to_lists(side.offsets, side.columns, side.values) for name, side in sides.items()}

    def counters(self, outputs: Sequence[Output]) -> list[TrainingCounter]:
        """Return a counter for each kind of n-grams of the same texts."""
        groups: dict[tuple[Any, ...], list[Output]] = {}
        for output in outputs:
            groups.setdefault(cast("NgramSettings", output.entry).counted_as, []).append(output)
        return [NgramCounter(group) for group in groups.values()]


class NgramCounter(TrainingCounter):
    """Counts n-grams for one or more vocabularies that count the same n-grams of the same texts."""

    def __init__(self, outputs: Sequence[Output]) -> None:
        self._outputs = list(outputs)
        self._settings = [cast("NgramSettings", output.entry) for output in outputs]
        self._parts = _PARTS[self._settings[0].part]
        # Shards are put together until a share of min_df of their texts is a few. Else every term would be frequent.
        lowest = min(settings.min_df for settings in self._settings)
        self.fewest_rows = min(_FEW_TEXTS / max(lowest, 1e-9) / len(self._parts), _BATCH_ROWS)

    @property
    def outputs(self) -> Sequence[Output]:
        """The outputs of the vocabularies."""
        return self._outputs

    def report(self, distinct: DistinctTexts) -> tuple[int, TermCounts]:
        """Return the number of texts, and the counts of terms that are frequent among them."""
        _, texts, weights = distinct.used_by(self._parts)
        loosest = min(self._settings, key=lambda settings: settings.min_df)
        return int(weights.sum()), vectorize.report_terms(texts, weights, loosest.vectorizer())

    def merge(self, *reports: tuple[int, TermCounts]) -> tuple[int, TermCounts]:
        """Return the number of all texts, and their counts."""
        return sum(texts for texts, _ in reports), term_counts.merge_counts(*(counts for _, counts in reports))

    def select_candidates(self, merged: tuple[int, TermCounts]) -> tuple[tuple[int, TermCounts], Matcher | None]:
        """Return the terms that may be chosen, and a matcher for those that must be counted in a second pass."""
        texts, counts = merged
        candidates = [counts.candidates(texts, block.min_df, block.max_features) for block in self._settings]
        kept = counts.take(np.logical_or.reduce(candidates))
        uncertain = kept.take(kept.uncertain()).terms
        return (texts, kept), vectorize.build_matcher(uncertain, self._settings[0].vectorizer()) if uncertain else None

    def recount(self, distinct: DistinctTexts, recount_request: Matcher) -> Ints:
        """Return the exact counts of uncertain terms in one shard."""
        _, texts, weights = distinct.used_by(self._parts)
        return vectorize.count_exactly(texts, weights, recount_request, self._settings[0].analyzer)

    def write(self, merged: tuple[int, TermCounts], exact: Ints | None, output: Output, target: Folder) -> str:
        """Choose and write a vocabulary. Raises InputError if no term is frequent enough."""
        texts, counts = merged
        settings = cast("NgramSettings", output.entry)
        if exact is not None:
            counts = term_counts.replace_uncertain_counts(counts, exact)
        try:
            chosen = vectorize.choose_vocabulary(counts, texts, settings.vectorizer())
        except InputError as error:
            raise InputError(error.reason, where=f"featurize.families.{settings.name}", fix=error.fix) from None
        output.write_fitted(target, {"terms": chosen.terms, "idf": chosen.idf.tolist()})
        return f"{output.folder}: vocabulary of {len(chosen.terms):,} terms"
