"""Folds stratified by label and grouped by prompt, assigned once at ingest."""

from __future__ import annotations

import functools
import hashlib
import sys
import unicodedata
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from core.arrays import Folds, Groups, Ints, Labels


@functools.cache
def _ignored() -> dict[int, None]:
    """Return a table for str.translate that drops punctuation, separators and control characters, not turn ends."""
    dropped = {code: None for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code))[0] in "PZC"}
    del dropped[0x1F]
    return dropped


def normalize_prompt(turns: Sequence[str | None]) -> str:
    """Return a prompt reduced to what makes two prompts the same question.

    It drops compatibility forms, case, white space and punctuation, so that near-copies compare equal. A prompt
    without any letter, digit or symbol keeps its punctuation: "?" and "!" stay different questions.
    """
    joined = "\x1f".join(turn or "" for turn in turns)
    folded = unicodedata.normalize("NFKC", joined).casefold()
    kept = folded.translate(_ignored())
    return kept if kept.strip("\x1f") else folded


def prompt_group(turns: Sequence[str | None]) -> int:
    """Return a stable 63-bit hash of the normalized prompt. Records of one group never straddle folds."""
    text = normalize_prompt(turns).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


def assign_folds(labels: Labels, groups: Groups, folds: int, seed: int) -> Folds:
    """Return the fold (n,) of each record. Groups stay whole, and folds are stratified by label as far as they allow.

    Groups of several records go first, the largest first. Each goes to the fold where it leaves the label counts
    closest to even (the greedy rule of scikit-learn's StratifiedGroupKFold). Single records are then dealt label by
    label to the folds that lack most. Only groups of several records cost a Python loop. So 57,477 prompts take a
    fraction of a second; StratifiedGroupKFold takes minutes.

    Raises ValueError if there are fewer groups than folds, or if the sizes of groups leave a fold empty.
    """
    unique_groups, group_of, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    if len(unique_groups) < folds:
        raise ValueError(f"{len(unique_groups)} different prompts cannot fill {folds} folds")
    classes = int(labels.max()) + 1
    label_counts = np.zeros((len(unique_groups), classes), dtype=np.int64)
    np.add.at(label_counts, (group_of, labels), 1)
    total = label_counts.sum(axis=0)
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(len(unique_groups))
    fold_of_group = np.full(len(unique_groups), -1, dtype=np.int16)
    counts = np.zeros((folds, classes), dtype=np.int64)

    several = shuffled[sizes[shuffled] > 1]
    for group in several[np.argsort(-sizes[several], kind="stable")]:
        # Adding the group changes the squared distance of one fold from its target, so these changes are compared.
        # The factor `folds` keeps them whole numbers, in which equal values are exactly equal.
        before = ((counts * folds - total) ** 2).sum(axis=1)
        after = (((counts + label_counts[group]) * folds - total) ** 2).sum(axis=1)
        # The smallest of equal folds wins, so that no fold stays empty while another has two groups.
        fold = int(np.lexsort((counts.sum(axis=1), after - before))[0])
        fold_of_group[group] = fold
        counts[fold] += label_counts[group]

    single = shuffled[sizes[shuffled] == 1]
    single_label = label_counts[single].argmax(axis=1)
    # The folds of a file with A and B exchanged are the same: its B is dealt as A is here.
    sided = np.flatnonzero((sizes[group_of] == 1) & (labels < 2))
    turned = len(sided) > 0 and labels[sided[0]] == 1
    for label in [1, 0, *range(2, classes)] if turned else range(classes):
        chosen = single[single_label == label]
        dealt = _deal(counts[:, label], len(chosen), order=np.argsort(counts.sum(axis=1), kind="stable"))
        fold_of_group[chosen] = dealt
        counts[:, label] += np.bincount(dealt, minlength=folds)
    if len(np.unique(fold_of_group)) < folds:
        raise ValueError(f"{len(unique_groups)} different prompts, some with many records, leave a fold empty")
    return fold_of_group[group_of]


def _deal(counts: Ints, cards: int, order: Ints) -> Folds:
    """Return folds (cards,) that bring `counts` (folds,) as level as `cards` single records can.

    A remainder goes to the first folds in `order`, the smallest ones.
    """
    # The k-th card goes to the fold whose next record has the k-th smallest ordinal.
    level = -(-(cards + int(counts.sum())) // len(counts)) + 1
    ordinals = [(np.arange(counts[fold], max(level, counts[fold])), fold) for fold in order]
    heights = np.concatenate([height for height, _ in ordinals])
    owners = np.concatenate([np.full(len(height), fold, dtype=np.int16) for height, fold in ordinals])
    return owners[np.argsort(heights, kind="stable")[:cards]]
