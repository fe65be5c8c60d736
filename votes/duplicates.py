"""Find near-duplicate records with MinHash, which describes texts of any length by a few hashes.

A shingle is a stretch of 9 letters or digits in the normalized prompt and answers. Two records are near-duplicates if
their sets of shingles have a Jaccard similarity of at least 0.8. The share of equal minima under random permutations
estimates it (Broder 1997, "On the resemblance and containment of documents"). With 128 permutations the standard error
is 0.035 at the threshold. Only records that agree on one of 32 bands of 4 minima are compared (locality-sensitive
hashing: Leskovec, Rajaraman and Ullman, "Mining of Massive Datasets", chapter 3). A pair at the threshold agrees on a
band with a probability of 1 - (1 - 0.8^4)^32 > 0.9999.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from votes.folds import normalize_prompt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from core.arrays import Ints

SHINGLE_LENGTH = (
    9  # characters, as the book advises for documents longer than an e-mail; fits scripts without spaces, too
)
PERMUTATIONS = 128
BANDS = 32
THRESHOLD = 0.8
# Part of the fingerprint of stored signatures. Raise it when signatures change.
VERSION = 1

Signatures = npt.NDArray[np.uint32]
_BLOCK = 4096  # shingles or pairs at a time: bounds the memory for the longest texts and largest clusters
_RANDOM = np.random.default_rng(97)
_FACTORS = _RANDOM.integers(1, 2**63, PERMUTATIONS, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
_TERMS = _RANDOM.integers(0, 2**63, PERMUTATIONS, dtype=np.uint64)
_BASE = np.uint64(0x9E3779B97F4A7C15)


def text_hash(prompt: Sequence[str | None], answers: Sequence[Sequence[str | None]]) -> int:
    """Return a stable 63-bit hash of the exact texts. Both orders of the answers have the same hash."""
    text = json.dumps([prompt, *sorted(map(json.dumps, answers))])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def minhash_signature(texts: Sequence[Sequence[str | None]]) -> Signatures:
    """Return the MinHash signature (128,) of texts, each a sequence of turns. Their order does not matter."""
    shingles = np.concatenate([_shingles(normalize_prompt(turns)) for turns in texts])
    least = np.full(PERMUTATIONS, np.iinfo(np.uint32).max, np.uint32)
    for start in range(0, len(shingles), _BLOCK):
        # Multiply-shift hashing (Dietzfelbinger et al. 1997): the upper half of a x + b modulo 2^64.
        hashed = shingles[start : start + _BLOCK, None] * _FACTORS + _TERMS
        least = np.minimum(least, (hashed >> np.uint64(32)).astype(np.uint32).min(axis=0))
    return least


def _shingles(text: str) -> npt.NDArray[np.uint64]:
    """Return a hash of each stretch of SHINGLE_LENGTH characters, or of the whole text if it is shorter."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    width = min(SHINGLE_LENGTH, len(codes))
    hashes = np.zeros(len(codes) - width + 1, np.uint64)
    for offset in range(width):
        hashes = hashes * _BASE + codes[offset : offset + len(hashes)]
    # The low bits of a polynomial depend little on its first characters; splitmix64's finalizer mixes them.
    hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return hashes ^ (hashes >> np.uint64(31))


def near_duplicate_pairs(signatures: Signatures) -> Ints:
    """Return pairs (m, 2) of near-duplicates among n records by their signatures (n, 128), the smaller number first.

    Each record is compared only with the first record that agrees with it on a band. So the work grows with the number
    of records, not with the square of the largest cluster. The pairs connect all members; they are not all pairs.
    """
    rows = len(signatures)
    candidates: list[Ints] = []
    for band in np.split(signatures, BANDS, axis=1):
        key = np.zeros(rows, np.uint64)
        for column in band.T:
            key = key * _BASE + column
        order = np.argsort(key, kind="stable")
        starts = np.concatenate([[True], key[order][1:] != key[order][:-1]])
        first = order[np.maximum.accumulate(np.where(starts, np.arange(rows), 0))]
        candidates.append((first * rows + order)[~starts])  # a pair as one number
    pairs = np.stack(np.divmod(np.unique(np.concatenate(candidates)), rows), axis=1)
    alike = [
        (signatures[part[:, 0]] == signatures[part[:, 1]]).mean(axis=1) >= THRESHOLD
        for part in np.array_split(pairs, len(pairs) // _BLOCK + 1)
    ]
    near: Ints = pairs[np.concatenate(alike)]
    return near


def cluster_records(rows: int, pairs: Ints) -> Ints:
    """Return the cluster (rows,) of each record, named by its first member. Pairs (m, 2) connect records."""
    cluster = np.arange(rows)
    while len(pairs):
        least = np.minimum(cluster[pairs[:, 0]], cluster[pairs[:, 1]])
        before = cluster.copy()
        np.minimum.at(cluster, pairs[:, 0], least)
        np.minimum.at(cluster, pairs[:, 1], least)
        if (cluster == before).all():
            break
    return cluster
