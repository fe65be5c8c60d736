"""Count terms over many shards with bounds for unreported terms, to choose a vocabulary without counting everything.
Each shard reports its frequent terms, and a bound for all others. A term in at least a share of all texts is in at
least that share of some shard's texts (Savasere, Omiecinski and Navathe 1995). So the reports together have every term
that can be chosen. Every shard reports the most frequent terms, so these are counted already. Mostly no other term is
chosen. A second pass counts other terms that their bounds do not rule out. The result is exact. Memory does not grow
with the rare terms, which are nearly all terms.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from core.arrays import Ints, Mask

# Reporting terms down to half the required frequency leaves almost none uncertain (measured on real votes).
REPORTED_DOCUMENTS = 0.5
REPORTED_TOTAL = 2.0  # a term in few texts is reported if it occurs so many times as often

_COUNTED = ("documents", "totals", "unseen_documents", "unseen_totals")


@dataclass(frozen=True)
class TermCounts:
    """What some shards report of their terms.

    The table has the columns term, documents and totals (in how many texts, and how often). unseen_documents and
    unseen_totals bound the counts in shards that did not report the term. `absent` are the same two bounds for terms
    that no shard reported.
    """

    table: pa.Table
    absent: tuple[int, int]

    @classmethod
    def of_shard(cls, terms: Sequence[str], documents: Ints, totals: Ints, absent: tuple[int, int]) -> TermCounts:
        """Return the report of one shard."""
        nothing = np.zeros(len(terms), np.int64)
        columns = [pa.array(terms, pa.string()), documents, totals, nothing, nothing]
        return cls(pa.table(columns, names=["term", *_COUNTED]), absent)

    @property
    def terms(self) -> list[str]:
        """The terms."""
        terms: list[str] = self.table["term"].to_pylist()
        return terms

    def column(self, name: str) -> Ints:
        """Return one column of numbers."""
        values: Ints = self.table[name].to_numpy()
        return values

    def candidates(self, texts: int, min_df: float, max_features: int) -> Mask:
        """Return a mask of terms that hold the `max_features` most frequent of those in at least `min_df` of all texts.

        If the bounds leave no doubt about these, and no tie for the last rank, they are exactly these. Else they are
        all terms that may reach `min_df`, since scikit-learn breaks ties by the order of all terms.
        """
        fewest = max(min_df * texts, 1)
        documents, totals = self.column("documents"), self.column("totals")
        possible = documents + self.column("unseen_documents") >= fewest
        sure = np.sort(totals[documents >= fewest])[::-1]
        if len(sure) < max_features:
            return possible
        chosen = possible & (totals + self.column("unseen_totals") >= sure[max_features - 1])
        decided = chosen.sum() == max_features and not self.uncertain()[chosen].any()
        return chosen if decided else possible

    def uncertain(self) -> Mask:
        """Return a mask of the terms that are not counted in every shard."""
        return (self.column("unseen_documents") > 0) | (self.column("unseen_totals") > 0)

    def take(self, chosen: Mask) -> TermCounts:
        """Return the chosen terms alone."""
        return TermCounts(self.table.filter(pa.array(chosen)), self.absent)


def report_thresholds(min_df: float, texts: int) -> tuple[float, float, tuple[int, int]]:
    """Return from how many documents or occurrences a shard of `texts` texts reports a term, and bounds of others."""
    documents = max(REPORTED_DOCUMENTS * min_df * texts, 1.0)
    totals = max(REPORTED_TOTAL * min_df * texts, 1.0)
    absent = (math.ceil(documents) - 1, math.ceil(totals) - 1)
    return documents, totals, absent if absent[0] > 0 else (0, 0)


def merge_counts(*reports: TermCounts) -> TermCounts:
    """Return the reports of several shards together."""
    absent = (sum(report.absent[0] for report in reports), sum(report.absent[1] for report in reports))
    tables = []
    for report in reports:
        # Subtracted here where a term was reported, and added once for all shards below.
        bounds = {f"unseen_{name}": bound for name, bound in zip(("documents", "totals"), report.absent, strict=True)}
        columns = [report.column(name) - bounds.get(name, 0) for name in _COUNTED]
        tables.append(pa.table([report.table["term"], *columns], names=["term", *_COUNTED]))
    merged = (
        pa.concat_tables(tables).group_by("term", use_threads=False).aggregate([(name, "sum") for name in _COUNTED])
    )
    columns = [merged[f"{name}_sum"].to_numpy() for name in _COUNTED]
    columns[2], columns[3] = columns[2] + absent[0], columns[3] + absent[1]
    return TermCounts(pa.table([merged["term"].combine_chunks(), *columns], names=["term", *_COUNTED]), absent)


def replace_uncertain_counts(counts: TermCounts, exact: Ints) -> TermCounts:
    """Return the counts with exact ones (2, terms), documents and totals, for the uncertain terms in their order."""
    at = np.flatnonzero(counts.uncertain())
    columns = [counts.column(name).copy() for name in _COUNTED]
    columns[0][at], columns[1][at] = exact
    columns[2][at] = columns[3][at] = 0
    return TermCounts(pa.table([counts.table["term"], *columns], names=["term", *_COUNTED]), counts.absent)
