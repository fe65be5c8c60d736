"""Which requests a language model gets for packed records: each distinct text once, shard by shard."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from preference.schema import PROBABILITIES
from ray_jobs.artifacts import fingerprint
from ray_jobs.records import Records
from ray_jobs.storage import Folder

Probabilities = npt.NDArray[np.float64]
Wanted = Mapping[str, npt.NDArray[np.bool_]]  # by split, (n, 2): whether the orders A, B and B, A are asked for
ORDERS = ("ab", "ba")

ANSWERS = pa.schema(
    [
        ("request", pa.int64()),
        *((name, pa.float64()) for name in PROBABILITIES),  # in the order that the model read; null if it failed
        ("reason", pa.string()),  # why it failed, else empty
        ("seconds", pa.float64()),  # its share of the wall clock
    ]
)


@dataclass(frozen=True)
class Packed:
    """Packed records without their ids: what tells which requests there are."""

    requests: Mapping[str, npt.NDArray[np.int64]]  # by split, (n, 2): numbers of both orders; equal texts share one
    tokens: npt.NDArray[np.int64]  # (requests,)

    def count(self, wanted: Wanted) -> tuple[int, int]:
        """How many distinct requests are wanted, and how many tokens they have."""
        numbers = np.unique(np.concatenate([self.requests[split][mask] for split, mask in wanted.items()]))
        return len(numbers), int(self.tokens[numbers].sum())


@dataclass(frozen=True)
class Unit:
    """The requests of one shard and order, which are scored, written and resumed together."""

    file: str  # for the answers, in the folder of the predictions
    shard: str
    rows: npt.NDArray[np.int32]  # of the shard
    swapped: bool
    requests: npt.NDArray[np.int64]
    fingerprint: str


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
    numbers = hashes.dictionary_encode().indices.to_numpy().astype(np.int64)
    requests, lengths = {}, np.zeros(int(numbers.max(initial=-1)) + 1, np.int64)
    start = 0
    for split, table in tables.items():
        both = numbers[start : start + 2 * len(table)].reshape(2, len(table)).T
        lengths[both] = table["tokens"].to_numpy()[:, None]
        requests[split] = both
        start += 2 * len(table)
    return Packed(requests, lengths)


def units(packed: Packed, records: Records, wanted: Wanted, prefix: str, model: str) -> list[Unit]:
    """Requests for the records wanted, by order and shard; a text is in the first that wants it and in no other.

    The units for A, B do not depend on which records are wanted as B, A, so that these can be chosen by their answers.
    `model` is the fingerprint of what gives the answers.
    """
    found = []
    taken = np.zeros(len(packed.tokens), bool)
    for order, name in enumerate(ORDERS):
        for split in records.splits:
            first = 0
            for shard in records.shards(split):
                of_shard = slice(first, first + records.shard_rows(shard))
                first = of_shard.stop
                rows = np.flatnonzero(wanted[split][of_shard, order])
                numbers, places = np.unique(packed.requests[split][of_shard, order][rows], return_index=True)
                fresh = ~taken[numbers]
                numbers, rows = numbers[fresh], rows[places[fresh]].astype(np.int32)
                taken[numbers] = True
                if len(numbers):
                    print_of = fingerprint({"model": model, "requests": numbers.tolist(), "rows": rows.tolist()})
                    found.append(Unit(f"{prefix}/{name}/{shard}", shard, rows, order == 1, numbers, print_of))
    return found


@dataclass(frozen=True)
class Answers:
    """Answers by the requests' numbers."""

    probabilities: Probabilities  # (requests, 3), nan where there are none
    reasons: Mapping[int, str]  # why those that failed did
    failed: list[str]  # files with failed requests in them
    seconds: float


def read_answers(folder: Folder, done: list[Unit], requests: int) -> Answers:
    """The answers of finished units to so many requests in all."""
    values = np.full((requests, len(PROBABILITIES)), np.nan)
    reasons: dict[int, str] = {}
    failed = []
    seconds = 0.0
    for unit in done:
        table = folder.read_table(unit.file)
        numbers = table["request"].to_numpy()
        values[numbers] = np.stack([table[name].to_numpy() for name in PROBABILITIES], axis=1)
        seconds += float(table["seconds"].to_numpy().sum())
        why = table["reason"].to_pylist()
        if any(why):
            failed.append(unit.file)
            reasons |= {int(number): reason for number, reason in zip(numbers, why, strict=True) if reason}
    return Answers(values, reasons, failed, seconds)


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
    powers = np.maximum(probabilities, 1e-300) ** (1 / temperature)
    result: Probabilities = powers / powers.sum(axis=1, keepdims=True)
    return result
