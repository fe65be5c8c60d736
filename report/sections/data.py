"""What the report says of the data: rows, quarantine, duplicates, and the score without them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from report.columns import signatures
from report.scores import on_parts
from votes import duplicates

if TYPE_CHECKING:
    from votes.records import Records

Floats = npt.NDArray[np.float64]


def data(
    records: Records,
    columns: dict[str, pa.Table],
    losses: Floats,
    folds: npt.NDArray[np.int16],
    groups: npt.NDArray[np.int64],
    seed: int,
) -> dict[str, Any]:
    """Rows by split, quarantined rows by reason, and duplicates with the blend's losses (n,) without them."""
    return {
        "rows": dict(records.manifest["rows"]),
        "prompts": len(np.unique(groups)),
        "quarantine": [
            {"reason": reason, "rows": count} for reason, count in records.manifest["metrics"]["quarantine"].items()
        ],
        "duplicates": _duplicates(columns, losses, folds, groups, seed),
    }


def _duplicates(
    columns: dict[str, pa.Table],
    losses: Floats,
    folds: npt.NDArray[np.int16],
    groups: npt.NDArray[np.int64],
    seed: int,
) -> dict[str, Any]:
    rows = len(losses)
    hashes = np.concatenate([table["text_hash"].to_numpy() for table in columns.values()])
    pairs = duplicates.near_pairs(np.concatenate([signatures(table) for table in columns.values()]))
    # Copies to the letter are near-duplicates too, and sure ones.
    _, first, copy_of = np.unique(hashes, return_index=True, return_inverse=True)
    copies = np.stack([first[copy_of], np.arange(len(hashes))], axis=1)
    pairs = np.concatenate([pairs, copies[copies[:, 0] < copies[:, 1]]])
    cluster = duplicates.clusters(len(hashes), pairs)
    in_train, in_test = cluster[:rows], cluster[rows:]
    shared = _members(in_train) > 1
    straddles = _straddles(in_train, folds)
    seen_first = np.zeros(rows, bool)
    seen_first[np.unique(in_train, return_index=True)[1]] = True
    every = {"one of each cluster": seen_first, "none that has one in another fold": ~straddles}
    kept = {name: some for name, some in every.items() if some.any()}
    return {
        "threshold": duplicates.THRESHOLD,
        "shingle": duplicates.SHINGLE,
        "permutations": duplicates.PERMUTATIONS,
        "bands": duplicates.BANDS,
        "exact": {
            "train": int((_members(hashes[:rows]) > 1).sum()),
            "test_in_train": int(np.isin(hashes[rows:], hashes[:rows]).sum()),
        },
        "near": {
            "train": int(shared.sum()),
            "clusters": len(np.unique(in_train[shared])),
            "across_folds": int(straddles.sum()),
            "test_in_train": int(np.isin(in_test, in_train).sum()),
        },
        "without": [
            {"kept": name, **found}
            for name, found in zip(
                kept, on_parts(np.stack(list(kept.values()), axis=1), losses, groups, seed), strict=True
            )
        ],
    }


def _members(names: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """How many records (n,) have the name of each."""
    _, place, counts = np.unique(names, return_inverse=True, return_counts=True)
    members: npt.NDArray[np.int64] = counts[place]
    return members


def _straddles(cluster: npt.NDArray[np.int64], folds: npt.NDArray[np.int16]) -> npt.NDArray[np.bool_]:
    """Whether the cluster of each record (n,) has members in several folds."""
    _, place = np.unique(cluster, return_inverse=True)
    least, most = np.full(len(place), np.iinfo(np.int16).max), np.full(len(place), -1)
    np.minimum.at(least, place, folds)
    np.maximum.at(most, place, folds)
    straddles: npt.NDArray[np.bool_] = (least < most)[place]
    return straddles
