"""Fitting what features count on the training records: n-gram vocabularies, and how rare words are.

Shards are read by Ray tasks; what they send back does not grow with the number of records.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from core.errors import InputError
from core.progress import Progress, say
from featurize.families import similarity
from featurize.ngrams import counting, term_counts, vectorize
from featurize.store import Output, is_fitted, read_fitted, read_fitted_table
from featurize.text import Distinct
from votes.schema import TEXTS

if TYPE_CHECKING:
    import ray

    from core.settings.features import NgramBlock
    from core.storage import Folder
    from featurize.ngrams.term_counts import TermCounts
    from featurize.ngrams.tokenize import Ints
    from votes.records import Records

PARTS: dict[str, tuple[str, ...]] = {"prompt": ("prompt",), "response": ("response_a", "response_b")}
_MERGED_AT_ONCE = 8
_FEW_TEXTS = 4
_BATCH_ROWS = 4096  # at most, since the texts of a batch are in memory together
Group = tuple[tuple[str, ...], str, tuple[int, int]]  # parts, analyzer, n-gram range


@dataclass(frozen=True)
class Vocabulary:
    """A vocabulary to be fitted: the texts it counts, how, and where it goes."""

    output: Output
    parts: tuple[str, ...]
    settings: vectorize.NgramSettings

    @property
    def counted_as(self) -> Group:
        """Vocabularies with the same value count the same n-grams of the same texts."""
        return self.parts, self.settings.analyzer, self.settings.ngram_range


def ngram_settings(block: NgramBlock) -> vectorize.NgramSettings:
    """A block's settings as featurize.ngrams takes them."""
    return vectorize.NgramSettings(block.analyzer, block.ngram_range, block.weighting, block.min_df, block.max_features)


def vocabularies(outputs: Sequence[Output], blocks: Sequence[NgramBlock]) -> list[Vocabulary]:
    """The vocabularies that the outputs need."""
    by_folder = {f"ngrams/{block.name}": block for block in blocks}
    return [
        Vocabulary(output, PARTS[by_folder[output.folder].part], ngram_settings(by_folder[output.folder]))
        for output in outputs
        if output.kind == "ngrams"
    ]


def fit_counts(
    target: Folder, records: Records, wanted: Sequence[Vocabulary], similar: Output | None, redo: bool
) -> None:
    """Fit what is counted on the training records, unless it is there: vocabularies and the words' rarity.

    How vocabularies come about without counting everything is told in featurize.ngrams.term_counts.
    """

    missing = [each for each in wanted if redo or not is_fitted(target, each.output)]
    count_buckets = similar is not None and (redo or not is_fitted(target, similar))
    if not missing and not count_buckets:
        return
    groups: dict[Group, list[Vocabulary]] = {}
    for each in missing:
        groups.setdefault(each.counted_as, []).append(each)
    reports, documents = _first_pass(records, groups, count_buckets)
    if similar is not None and count_buckets:
        rarity = similarity.Rarity.of(documents, records.rows("train") * len(TEXTS))
        target.write_table(similar.fitted, pa.table({"idf": rarity.idf, "capped": rarity.capped}), similar.fingerprint)
    if missing:
        _choose_vocabularies(target, records, reports, groups)


def _first_pass(
    records: Records, groups: dict[Group, list[Vocabulary]], count_buckets: bool
) -> tuple[list[ray.ObjectRef[dict[Group, TermCounts]]], Ints]:
    """The shards' reports of their terms, and in how many texts each bucket's words stand."""
    import ray

    shards = records.shards("train")
    report = ray.remote(num_cpus=1, num_returns=2)(_report)
    parts = _batches(records, shards, groups)
    both = [report.remote(records.folder, part, groups, count_buckets) for part in parts]
    reports = [each[0] for each in both]
    size = {each[1]: len(part) for each, part in zip(both, parts, strict=True)}
    del both  # so that counts are let go as they are added up
    add = ray.remote(num_cpus=1)(_add)
    documents: list[ray.ObjectRef[Ints]] = []  # added up by tasks: what the driver reads of the store stays its memory
    progress = Progress("featurize", "shards counted", total=len(shards))
    for counted in _finished(list(size)):
        for _ in range(size.pop(counted)):
            progress.advance()
        documents.append(counted)
        if len(documents) == _MERGED_AT_ONCE:
            documents = [add.remote(*documents)]
    return reports, ray.get(add.remote(*documents))


def _choose_vocabularies(
    target: Folder,
    records: Records,
    reports: list[ray.ObjectRef[dict[Group, TermCounts]]],
    groups: dict[Group, list[Vocabulary]],
) -> None:
    """Merge the reports, count again what they leave open, choose and write the vocabularies."""
    import ray

    rows = records.rows("train")
    merge = ray.remote(num_cpus=1)(_merge)
    while len(reports) > 1:
        reports = [merge.remote(*reports[at : at + _MERGED_AT_ONCE]) for at in range(0, len(reports), _MERGED_AT_ONCE)]
    what_is_wanted = ray.remote(num_cpus=1, num_returns=3)(_what_is_wanted)
    wanted, matchers, again = what_is_wanted.remote(reports[0], groups, rows)
    exact: dict[Group, Ints] = {}
    if ray.get(again):
        shards = records.shards("train")
        progress = Progress("featurize", "shards counted again", total=len(shards))
        count = ray.remote(num_cpus=1)(_count)
        for done in _finished([count.remote(records.folder, shard, matchers) for shard in shards]):
            for group, counts in ray.get(done).items():
                exact[group] = exact[group] + counts if group in exact else counts
            progress.advance()
    choose = ray.remote(num_cpus=1)(_choose)
    members = [each for group in groups.values() for each in group]
    chosen = [
        choose.remote(wanted, each, exact.get(each.counted_as), rows * len(each.parts), target) for each in members
    ]
    for each, terms in zip(members, ray.get(chosen), strict=True):
        say("featurize", f"{each.output.folder}: vocabulary of {terms:,} terms")


def _finished(waiting: list[Any]) -> Iterator[Any]:
    """Tasks as they finish. A list that nobody else holds lets go of each result once the caller has had it."""
    import ray

    while waiting:
        done, waiting = ray.wait(waiting)
        yield from done


def _batches(records: Records, shards: Sequence[str], groups: dict[Group, list[Vocabulary]]) -> list[list[str]]:
    """Shards put together until a share of min_df of their texts is a few: else every term would be a frequent one."""
    needed = min(
        max(
            (_FEW_TEXTS / max(each.settings.min_df, 1e-9) / len(each.parts) for g in groups.values() for each in g),
            default=1,
        ),
        _BATCH_ROWS,
    )
    batches: list[list[str]] = []
    rows = 0
    for shard in shards:
        if not batches or rows >= needed:
            batches.append([])
            rows = 0
        batches[-1].append(shard)
        rows += records.shard_rows(shard)
    return batches


def _report(
    records: Folder, shards: Sequence[str], groups: dict[Group, list[Vocabulary]], count_buckets: bool
) -> tuple[dict[Group, TermCounts], Ints]:
    distinct = Distinct.of(pa.concat_tables([records.read_table(shard, list(TEXTS)) for shard in shards]))
    reports = {}
    for group, members in groups.items():
        loosest = min((each.settings for each in members), key=lambda settings: settings.min_df)
        reports[group] = vectorize.report(*distinct.used_by(group[0])[1:], loosest)
    buckets = similarity.document_counts(distinct) if count_buckets else np.zeros(similarity.BUCKETS, np.int64)
    return reports, buckets


def _add(*counts: Ints) -> Ints:
    total: Ints = np.sum(counts, axis=0)
    return total


def _merge(*reports: dict[Group, TermCounts]) -> dict[Group, TermCounts]:
    return {group: term_counts.merge(*(each[group] for each in reports)) for group in reports[0]}


def _what_is_wanted(
    counts: dict[Group, TermCounts], groups: dict[Group, list[Vocabulary]], rows: int
) -> tuple[dict[Group, TermCounts], dict[Group, counting.Matcher], bool]:
    """The terms that may be chosen, what finds those of them that must be counted once more, and if there are any."""
    kept, again = {}, {}
    for group, members in groups.items():
        wanted = [
            counts[group].wanted(rows * len(each.parts), each.settings.min_df, each.settings.max_features)
            for each in members
        ]
        kept[group] = counts[group].take(np.logical_or.reduce(wanted))
        uncertain = kept[group].take(kept[group].uncertain()).terms
        if uncertain:
            again[group] = vectorize.matcher(uncertain, members[0].settings)
    return kept, again, bool(again)


def _count(records: Folder, shard: str, matchers: dict[Group, counting.Matcher]) -> dict[Group, Ints]:
    distinct = Distinct.of(records.read_table(shard, list(TEXTS)))
    return {
        group: counting.count_terms(*distinct.used_by(group[0])[1:], matcher) for group, matcher in matchers.items()
    }


def _choose(counts: dict[Group, TermCounts], wanted: Vocabulary, exact: Ints | None, texts: int, target: Folder) -> int:
    known = counts[wanted.counted_as]
    if exact is not None:
        known = term_counts.settle(known, exact)
    try:
        chosen = vectorize.choose_vocabulary(known, texts, wanted.settings)
    except InputError as error:
        raise InputError(error.reason, where=f"featurize.{wanted.output.folder}", fix=error.fix) from None
    fitted = {"fingerprint": wanted.output.fingerprint, "terms": chosen.terms, "idf": chosen.idf.tolist()}
    target.write_json(wanted.output.fitted, fitted)
    return len(chosen.terms)


def read_vocabulary(target: Folder, output: Output) -> vectorize.Vocabulary:
    """The fitted vocabulary of an output. Raises InputError if it was fitted for another."""
    fitted = read_fitted(target, output)
    return vectorize.Vocabulary(fitted["terms"], np.array(fitted["idf"]))


def read_rarity(target: Folder, output: Output) -> similarity.Rarity:
    """How rare words are. Raises InputError if it was fitted for another output."""
    table = read_fitted_table(target, output)
    return similarity.Rarity(table["idf"].to_numpy(), table["capped"].to_numpy())
