"""Index the distinct requests of packed records, shard by shard."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from core.arrays import Doubles, Ints, Mask, Probabilities
from votes.schema import PROBABILITIES

if TYPE_CHECKING:
    import numpy.typing as npt

    from core.storage import Folder
    from votes.records import Records

RecordMasks = Mapping[str, Mask]  # by split, (n,): which records
OrderMasks = Mapping[str, Mask]  # by split, (n, 2): records to score in the orders A, B and B, A
ORDERS = ("ab", "ba")


@dataclass(frozen=True)
class RequestIndex:
    """The distinct requests that packed records make. Equal texts share one, whatever their record, order and split."""

    numbers: Mapping[str, Ints]  # by split, (n, 2): each record's requests in both orders
    texts: pa.Array  # (requests,) hashes of their token ids
    token_counts: Ints  # (requests,)
    classes: int = 3  # outcomes that a reply has probabilities of

    def count(self, masks: OrderMasks) -> tuple[int, int]:
        """Return how many distinct requests the masks select, and how many tokens these have."""
        selected = self.selected(masks)
        return len(selected), int(self.token_counts[selected].sum())

    def selected(self, masks: OrderMasks) -> Ints:
        """Return the distinct requests that the masks select, ascending."""
        return np.unique(np.concatenate([self.numbers[split][mask] for split, mask in masks.items()]))


@dataclass(frozen=True)
class RequestShard:
    """The requests of one shard and order, which are sent in this sequence and written together.

    The longest requests should be first. They show at once whether they fit into memory, and do not run last.
    """

    file: str  # of the replies, in the folder of the predictions
    packed_shard: str  # file of the packed records
    rows: npt.NDArray[np.int32]  # (n,) of that file
    swapped: bool  # whether the order is B, A
    requests: Ints  # (n,) numbers, of which each is in one shard only
    classes: int = 3  # outcomes that a reply has probabilities of


def deduplicate_requests(packed_folder: Folder, records: Records) -> RequestIndex:
    """Return the index of the distinct texts of tokens/<name>, the packed records.

    It has a hash, a length and a number for each request.
    """
    columns = ["ab_hash", "ba_hash", "tokens"]
    tables = {
        split: pa.concat_tables([packed_folder.read_table(shard, columns) for shard in records.shards(split)])
        for split in records.splits
    }
    hashes = pa.concat_arrays(
        [table[f"{order}_hash"].combine_chunks() for table in tables.values() for order in ORDERS]
    )
    coded = hashes.dictionary_encode()
    codes = coded.indices.to_numpy().astype(np.int64)
    numbers, lengths = {}, np.zeros(len(coded.dictionary), np.int64)
    start = 0
    for split, table in tables.items():
        both = codes[start : start + 2 * len(table)].reshape(2, len(table)).T
        lengths[both] = table["tokens"].to_numpy()[:, None]
        numbers[split] = both
        start += 2 * len(table)
    return RequestIndex(numbers, coded.dictionary, lengths, records.classes)


def request_shards(
    index: RequestIndex, records: Records, masks: OrderMasks, answered: Mask, prefix: str
) -> list[RequestShard]:
    """Return the selected requests that are not `answered` (requests,) yet, by order and shard, the longest first.

    A text is in the first shard that selects it and in no other. Replies are files below `prefix`.
    """
    shards = []
    taken = answered.copy()
    for order, name in enumerate(ORDERS):
        for split in records.splits:
            first = 0
            for shard in records.shards(split):
                extent = slice(first, first + records.shard_rows(shard))
                first = extent.stop
                rows = np.flatnonzero(masks[split][extent, order])
                numbers, positions = np.unique(index.numbers[split][extent, order][rows], return_index=True)
                fresh = ~taken[numbers]
                numbers, positions = numbers[fresh], positions[fresh]
                taken[numbers] = True
                if len(numbers):
                    longest = np.argsort(-index.token_counts[numbers], kind="stable")
                    chosen = rows[positions].astype(np.int32)
                    file = f"{prefix}/{name}/{shard}"
                    requests = numbers[longest]
                    shards.append(RequestShard(file, shard, chosen[longest], order == 1, requests, index.classes))
    return shards


@dataclass(frozen=True)
class Replies:
    """What a model has replied so far, by the requests' numbers."""

    probabilities: Probabilities  # (requests, k), nan without a reply
    reasons: Mapping[int, str]  # why failed requests failed
    seconds: Doubles  # (requests,) of wall clock that each took

    def answered(self, failed_too: bool) -> Mask:
        """Return which requests (requests,) need not be asked; failed ones may be asked again."""
        mask: Mask = ~np.isnan(self.probabilities[:, 0])
        if failed_too:
            mask[list(self.reasons)] = True
        return mask


def reply_schema(texts: pa.DataType, classes: int = 3) -> pa.Schema:
    """Return the columns of a file of replies, given the type of a text's hash and the number of outcomes."""
    return pa.schema(
        [
            ("text", texts),  # hash of the token ids: what was asked, whatever record it came from
            # In the order that the model read; null if it failed.
            *((name, pa.float64()) for name in PROBABILITIES[:classes]),
            ("reason", pa.string()),  # why it failed, else empty
            ("seconds", pa.float64()),  # its share of the wall clock
        ]
    )


def read_replies(folder: Folder, index: RequestIndex, prefix: str, model: str) -> Replies:
    """Return the replies of the model of this fingerprint to the index's texts, from files below `prefix`."""
    values = np.full((len(index.texts), index.classes), np.nan)
    reasons: dict[int, str] = {}
    seconds = np.zeros(len(index.texts))
    for file in reply_files(folder, prefix, model):
        table = folder.read_table(file)
        positions = pc.index_in(table["text"], index.texts).combine_chunks()
        table = table.filter(positions.is_valid())
        numbers = positions.drop_null().to_numpy().astype(np.int64)
        probabilities = np.stack([table[name].to_numpy() for name in PROBABILITIES[: index.classes]], axis=1)
        scored = ~np.isnan(probabilities[:, 0])
        # A text that failed in one file may have been answered in another.
        values[numbers[scored]] = probabilities[scored]
        seconds[numbers] += table["seconds"].to_numpy()
        messages = table["reason"].to_pylist()
        reasons |= {int(number): reason for number, reason in zip(numbers, messages, strict=True) if reason}
    reasons = {number: reason for number, reason in reasons.items() if np.isnan(values[number, 0])}
    return Replies(values, reasons, seconds)


def reply_files(folder: Folder, prefix: str, model: str) -> list[str]:
    """Return the files below `prefix` with replies of the model of this fingerprint."""
    folders = tuple(f"{prefix}/{order}/" for order in ORDERS)
    names = [name for name in folder.files() if name.startswith(folders)]
    return [name for name, made_by in zip(names, folder.table_fingerprints(names), strict=True) if made_by == model]


def prediction_entropy(probabilities: Probabilities) -> Doubles:
    """Return the entropy (n,) of probabilities (n, k) in nats: how unsure a prediction is. nan rows stay nan."""
    logs = np.log(np.where(probabilities > 0, probabilities, 1.0))
    result: Doubles = -(probabilities * logs).sum(axis=1)
    return result


def select_most_uncertain(probabilities: Probabilities, share: float) -> Mask:
    """Return the mask (n,) of exactly round(share * n) predictions of highest entropy. nan rows do not count."""
    unsure = prediction_entropy(probabilities)
    scored = np.flatnonzero(~np.isnan(unsure))
    chosen = scored[np.argsort(-unsure[scored], kind="stable")[: round(share * len(scored))]]
    mask = np.zeros(len(probabilities), bool)
    mask[chosen] = True
    return mask


def apply_temperature(probabilities: Probabilities, temperature: float) -> Probabilities:
    """Return probabilities (n, k) as if the logits had been divided by the temperature before the softmax."""
    if temperature == 1:
        return probabilities
    scores = np.log(np.maximum(probabilities, 1e-300)) / temperature
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    result: Probabilities = powers / powers.sum(axis=1, keepdims=True)
    return result
