"""Which requests a language model gets for packed records: each distinct text once, shard by shard."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from featurize.tokens.columns import DIGEST_BYTES
from votes.schema import PROBABILITIES

if TYPE_CHECKING:
    from core.storage import Folder
    from votes.records import Records

Probabilities = npt.NDArray[np.float64]
Wanted = Mapping[str, npt.NDArray[np.bool_]]  # by split, (n, 2): whether the orders A, B and B, A are asked for
ORDERS = ("ab", "ba")

ANSWERS = pa.schema(
    [
        ("text", pa.binary(DIGEST_BYTES)),  # hash of the token ids: what was asked, whatever record it came from
        *((name, pa.float64()) for name in PROBABILITIES),  # in the order that the model read; null if it failed
        ("reason", pa.string()),  # why it failed, else empty
        ("seconds", pa.float64()),  # its share of the wall clock
    ]
)


@dataclass(frozen=True)
class Packed:
    """Packed records without their ids: what tells which requests there are."""

    requests: Mapping[str, npt.NDArray[np.int64]]  # by split, (n, 2): numbers of both orders; equal texts share one
    texts: pa.Array  # (requests,) their hashes
    tokens: npt.NDArray[np.int64]  # (requests,)

    def count(self, wanted: Wanted) -> tuple[int, int]:
        """How many distinct requests are wanted, and how many tokens they have."""
        numbers = self.numbers(wanted)
        return len(numbers), int(self.tokens[numbers].sum())

    def numbers(self, wanted: Wanted) -> npt.NDArray[np.int64]:
        """The distinct requests that are wanted."""
        return np.unique(np.concatenate([self.requests[split][mask] for split, mask in wanted.items()]))


@dataclass(frozen=True)
class Unit:
    """The requests of one shard and order, which are scored and written together."""

    file: str  # for the answers, in the folder of the predictions
    shard: str
    rows: npt.NDArray[np.int32]  # of the shard
    swapped: bool
    requests: npt.NDArray[np.int64]


def read_packed(tokens: Folder, records: Records) -> Packed:
    """Number the distinct texts of tokens/<name>. In memory: a hash, a length and a number for each request."""
    columns = ["ab_hash", "ba_hash", "tokens"]
    tables = {
        split: pa.concat_tables([tokens.read_table(shard, columns) for shard in records.shards(split)])
        for split in records.splits
    }
    hashes = pa.concat_arrays(
        [table[f"{order}_hash"].combine_chunks() for table in tables.values() for order in ORDERS]
    )
    coded = hashes.dictionary_encode()
    numbers = coded.indices.to_numpy().astype(np.int64)
    requests, lengths = {}, np.zeros(len(coded.dictionary), np.int64)
    start = 0
    for split, table in tables.items():
        both = numbers[start : start + 2 * len(table)].reshape(2, len(table)).T
        lengths[both] = table["tokens"].to_numpy()[:, None]
        requests[split] = both
        start += 2 * len(table)
    return Packed(requests, coded.dictionary, lengths)


def units(packed: Packed, records: Records, wanted: Wanted, answered: npt.NDArray[np.bool_], prefix: str) -> list[Unit]:
    """Requests for the records wanted that are not `answered` (requests,) yet, by order and shard.

    A text is in the first that wants it and in no other.
    """
    found = []
    taken = answered.copy()
    for order, name in enumerate(ORDERS):
        for split in records.splits:
            first = 0
            for shard in records.shards(split):
                of_shard = slice(first, first + records.shard_rows(shard))
                first = of_shard.stop
                rows = np.flatnonzero(wanted[split][of_shard, order])
                numbers, places = np.unique(packed.requests[split][of_shard, order][rows], return_index=True)
                fresh = ~taken[numbers]
                taken[numbers[fresh]] = True
                if fresh.any():
                    of_unit = rows[places[fresh]].astype(np.int32), order == 1, numbers[fresh]
                    found.append(Unit(f"{prefix}/{name}/{shard}", shard, *of_unit))
    return found


@dataclass(frozen=True)
class Answers:
    """What a model has answered so far, by the requests' numbers."""

    probabilities: Probabilities  # (requests, 3), nan where there are none
    reasons: Mapping[int, str]  # why those that failed did
    seconds: npt.NDArray[np.float64]  # (requests,) of wall clock that each took

    def answered(self, failed_too: bool) -> npt.NDArray[np.bool_]:
        """Which requests (requests,) need not be asked; those that failed may be asked again."""
        there = ~np.isnan(self.probabilities[:, 0])
        if failed_too:
            there[list(self.reasons)] = True
        return there


def read_answers(folder: Folder, packed: Packed, prefix: str, model: str) -> Answers:
    """The answers below `prefix` that the model of this fingerprint gave to the texts there are now."""
    values = np.full((len(packed.texts), len(PROBABILITIES)), np.nan)
    reasons: dict[int, str] = {}
    seconds = np.zeros(len(packed.texts))
    for file in answer_files(folder, prefix, model):
        table = folder.read_table(file)
        found = pc.index_in(table["text"], packed.texts).combine_chunks()
        table = table.filter(found.is_valid())
        numbers = found.drop_null().to_numpy().astype(np.int64)
        given = np.stack([table[name].to_numpy() for name in PROBABILITIES], axis=1)
        there = ~np.isnan(given[:, 0])
        # A text that failed in one file may have been answered in another.
        values[numbers[there]] = given[there]
        seconds[numbers] += table["seconds"].to_numpy()
        why = table["reason"].to_pylist()
        reasons |= {int(number): reason for number, reason in zip(numbers, why, strict=True) if reason}
    reasons = {number: reason for number, reason in reasons.items() if np.isnan(values[number, 0])}
    return Answers(values, reasons, seconds)


def answer_files(folder: Folder, prefix: str, model: str) -> list[str]:
    """Files below `prefix` with answers of the model of this fingerprint."""
    places = tuple(f"{prefix}/{order}/" for order in ORDERS)
    names = [name for name in folder.files() if name.startswith(places)]
    return [name for name, made_by in zip(names, folder.table_fingerprints(names), strict=True) if made_by == model]


def entropy(probabilities: Probabilities) -> npt.NDArray[np.float64]:
    """Entropy (n,) of probabilities (n, 3) in nats: how unsure a prediction is. nan rows stay nan."""
    logs = np.log(np.where(probabilities > 0, probabilities, 1.0))
    result: npt.NDArray[np.float64] = -(probabilities * logs).sum(axis=1)
    return result


def least_sure(probabilities: Probabilities, share: float) -> npt.NDArray[np.bool_]:
    """The mask (n,) of exactly round(share * n) records of highest entropy among those that have a prediction."""
    unsure = entropy(probabilities)
    there = np.flatnonzero(~np.isnan(unsure))
    chosen = there[np.argsort(-unsure[there], kind="stable")[: round(share * len(there))]]
    mask = np.zeros(len(probabilities), bool)
    mask[chosen] = True
    return mask


def tempered(probabilities: Probabilities, temperature: float) -> Probabilities:
    """Probabilities (n, 3) as if the logits had been divided by the temperature before the softmax."""
    if temperature == 1:
        return probabilities
    scores = np.log(np.maximum(probabilities, 1e-300)) / temperature
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    result: Probabilities = powers / powers.sum(axis=1, keepdims=True)
    return result
