"""The data: rows, quarantine, duplicates, and the blend's score without duplicates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from core.registry import SECTIONS
from report.columns import read_signatures
from report.scores import score_parts
from report.section import ReportSection
from votes import duplicates

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa

    from core.arrays import Doubles, Folds, Ints, Mask
    from report.context import ReportContext
    from report.section import Metrics
    from votes.arrays import Votes


@SECTIONS.register
class DataSection(ReportSection):
    """The data of the run."""

    name, title, order = "data", "Data", 110
    summary = "Records by split, quarantined rows by reason, and duplicates."

    def compute(self, context: ReportContext) -> Metrics:
        """Return rows by split, quarantined rows by reason, and duplicates with the blend's score without them."""
        manifest = context.records.manifest
        reasons = manifest["metrics"]["quarantine"].items()
        return {
            "data": {
                "rows": dict(manifest["rows"]),
                "prompts": len(np.unique(context.votes.groups)),
                "quarantine": [{"reason": reason, "rows": count} for reason, count in reasons],
                "duplicates": count_duplicates(context.columns, context.blend_losses, context.votes, context.seed),
            }
        }


def count_duplicates(columns: Mapping[str, pa.Table], losses: Doubles, votes: Votes, seed: int) -> dict[str, Any]:
    """Return counts of exact copies and near-duplicates among the records, and the losses (m,) without them."""
    first = votes.first
    rows = len(first)
    hashes = np.concatenate([table["text_hash"].to_numpy() for table in columns.values()])
    pairs = duplicates.near_duplicate_pairs(np.concatenate([read_signatures(table) for table in columns.values()]))
    # Exact copies are near-duplicates, too, and certain ones.
    _, original, copy_of = np.unique(hashes, return_index=True, return_inverse=True)
    copies = np.stack([original[copy_of], np.arange(len(hashes))], axis=1)
    pairs = np.concatenate([pairs, copies[copies[:, 0] < copies[:, 1]]])
    cluster = duplicates.cluster_records(len(hashes), pairs)
    in_train, in_test = cluster[:rows], cluster[rows:]
    shared = _cluster_sizes(in_train) > 1
    straddling = _straddling(in_train, votes.folds[first])
    seen_first = np.zeros(rows, bool)
    seen_first[np.unique(in_train, return_index=True)[1]] = True
    subsets = {"one record of each cluster": seen_first, "records without a duplicate in another fold": ~straddling}
    kept = {name: mask for name, mask in subsets.items() if mask.any()}
    parts = np.stack([votes.spread(mask) for mask in kept.values()], axis=1)
    scores = score_parts(parts, losses, votes, seed)
    return {
        "threshold": duplicates.THRESHOLD,
        "shingle": duplicates.SHINGLE_LENGTH,
        "permutations": duplicates.PERMUTATIONS,
        "bands": duplicates.BANDS,
        "exact": {
            "train": int((_cluster_sizes(hashes[:rows]) > 1).sum()),
            "test_in_train": int(np.isin(hashes[rows:], hashes[:rows]).sum()),
        },
        "near": {
            "train": int(shared.sum()),
            "clusters": len(np.unique(in_train[shared])),
            "across_folds": int(straddling.sum()),
            "test_in_train": int(np.isin(in_test, in_train).sum()),
        },
        "without": [{"kept": name, **score} for name, score in zip(kept, scores, strict=True)],
    }


def _cluster_sizes(names: Ints) -> Ints:
    """Return the number of records (n,) with the same name as each."""
    _, index, counts = np.unique(names, return_inverse=True, return_counts=True)
    sizes: Ints = counts[index]
    return sizes


def _straddling(cluster: Ints, folds: Folds) -> Mask:
    """Return whether the cluster of each record (n,) has members in several folds."""
    _, index = np.unique(cluster, return_inverse=True)
    least, most = np.full(len(index), np.iinfo(np.int16).max), np.full(len(index), -1)
    np.minimum.at(least, index, folds)
    np.maximum.at(most, index, folds)
    straddling: Mask = (least < most)[index]
    return straddling
