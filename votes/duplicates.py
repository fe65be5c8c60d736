"""Near-duplicate records by MinHash: a few hashes of each stand for its texts, whatever their length.

Two records are near-duplicates if the sets of their shingles, the stretches of 9 letters or digits in the normalised
prompt and answers, have a Jaccard similarity of at least 0.8. The share of equal minima under random permutations
estimates it (Broder 1997, "On the resemblance and containment of documents"); 128 of them have a standard error of
0.035 at the threshold. Records are compared only if they agree on one of 32 bands of 4 minima (locality-sensitive
hashing: Leskovec, Rajaraman and Ullman, "Mining of Massive Datasets", chapter 3), as a pair at the threshold does all
but surely (1 - (1 - 0.8^4)^32 > 0.9999).
"""

import hashlib
import json
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from votes.folds import normalise_prompt

SHINGLE = 9  # characters, as the book advises for documents longer than an e-mail; right for scripts without spaces too
PERMUTATIONS = 128
BANDS = 32
THRESHOLD = 0.8
# Part of the fingerprint of stored signatures: raise it when they come out differently.
VERSION = 1

Signatures = npt.NDArray[np.uint32]
_BLOCK = 4096  # shingles or pairs at a time, so that memory stays small for the longest texts and largest clusters
_RANDOM = np.random.default_rng(97)
_FACTORS = _RANDOM.integers(1, 2**63, PERMUTATIONS, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
_TERMS = _RANDOM.integers(0, 2**63, PERMUTATIONS, dtype=np.uint64)
_BASE = np.uint64(0x9E3779B97F4A7C15)


def text_hash(prompt: Sequence[str | None], answers: Sequence[Sequence[str | None]]) -> int:
    """A stable 63-bit hash of the texts to the letter; the same for both orders of the answers."""
    text = json.dumps([prompt, *sorted(map(json.dumps, answers))])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def signature(texts: Sequence[Sequence[str | None]]) -> Signatures:
    """The MinHash signature (128,) of a record's texts, each a sequence of turns; their order makes no difference."""
    shingles = np.concatenate([_shingles(normalise_prompt(turns)) for turns in texts])
    least = np.full(PERMUTATIONS, np.iinfo(np.uint32).max, np.uint32)
    for start in range(0, len(shingles), _BLOCK):
        # Multiply-shift hashing (Dietzfelbinger et al. 1997): the upper half of a x + b modulo 2^64.
        hashed = shingles[start : start + _BLOCK, None] * _FACTORS + _TERMS
        least = np.minimum(least, (hashed >> np.uint64(32)).astype(np.uint32).min(axis=0))
    return least


def _shingles(text: str) -> npt.NDArray[np.uint64]:
    """A hash of each stretch of SHINGLE characters; of the whole text if it is shorter."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    width = min(SHINGLE, len(codes))
    hashes = np.zeros(len(codes) - width + 1, np.uint64)
    for offset in range(width):
        hashes = hashes * _BASE + codes[offset : offset + len(hashes)]
    # A polynomial's low bits know little of its early characters; splitmix64's finaliser mixes them.
    hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return hashes ^ (hashes >> np.uint64(31))


def near_pairs(signatures: Signatures) -> npt.NDArray[np.int64]:
    """Pairs (m, 2) of near-duplicates among n records by their signatures (n, 128), the smaller number first.

    Of records that agree on a band, each is compared with the first one only, so that the work grows with the records
    and not with the square of the largest cluster: what is found are the members, not every pair of them.
    """
    rows = len(signatures)
    found: list[npt.NDArray[np.int64]] = []
    for band in np.split(signatures, BANDS, axis=1):
        key = np.zeros(rows, np.uint64)
        for column in band.T:
            key = key * _BASE + column
        order = np.argsort(key, kind="stable")
        starts = np.concatenate([[True], key[order][1:] != key[order][:-1]])
        first = order[np.maximum.accumulate(np.where(starts, np.arange(rows), 0))]
        found.append((first * rows + order)[~starts])  # a pair as one number
    pairs = np.stack(np.divmod(np.unique(np.concatenate(found)), rows), axis=1)
    alike = [
        (signatures[part[:, 0]] == signatures[part[:, 1]]).mean(axis=1) >= THRESHOLD
        for part in np.array_split(pairs, len(pairs) // _BLOCK + 1)
    ]
    near: npt.NDArray[np.int64] = pairs[np.concatenate(alike)]
    return near


def clusters(rows: int, pairs: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The cluster (rows,) of each record, named by its first member: what pairs (m, 2) connect."""
    cluster = np.arange(rows)
    while len(pairs):
        least = np.minimum(cluster[pairs[:, 0]], cluster[pairs[:, 1]])
        before = cluster.copy()
        np.minimum.at(cluster, pairs[:, 0], least)
        np.minimum.at(cluster, pairs[:, 1], least)
        if (cluster == before).all():
            break
    return cluster
