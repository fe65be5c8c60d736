"""Turn records into features, shard by shard: hand-made columns, n-grams, word vectors, sentence embeddings.

What is fitted is fitted on the training records only. The unit of resume is the shard: each file carries the
fingerprint of the settings and records that made it, so changing one n-gram block redoes that block alone.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from core.progress import Progress
from core.ray_session import connect
from core.resources import embeddings_request, require_room
from core.run import Run, StageResult
from core.shards import Item, map_shards
from core.stage import Stage
from featurize import text_families
from featurize.blocks import PlainBlock, to_lists
from featurize.families import named_entities, similarity, word2vec
from featurize.families.embed_stage import embed, embed_fitted
from featurize.families.similarity import vector_cosines
from featurize.families.word2vec_stage import finish_word2vec, load_word_vectors, start_word2vec
from featurize.ngrams import vectorize
from featurize.ngrams.fit import PARTS, fit_counts, ngram_settings, read_rarity, read_vocabulary, vocabularies
from featurize.store import VERSIONS, Output, catalogue, handmade_families, layout, plan, settings_of
from featurize.text import Distinct
from votes.records import Records, open_records

if TYPE_CHECKING:
    from core.settings.features import Featurize
    from core.storage import Folder

Make = Callable[..., Iterator[Item]]  # _make_shard with folders and settings, still without outputs

_SIDE = {"prompt": "prompt", "response_a": "a", "response_b": "b"}


def make_features(run: Run) -> list[StageResult]:
    """Make every feature file that the settings ask for, for every split."""
    records = open_records(run)
    wanted = run.settings.featurize
    outputs = plan(wanted, records, run.settings.seed)
    stage = features_stage(run, records, outputs)
    manifest = None if run.force else stage.manifest()
    if manifest is not None:
        return [StageResult("featurize", True, manifest)]

    connect(run)
    stage.begin()
    _require_room(wanted)
    splits = [*records.splits, *records.sources]
    items = _shards(records, splits)
    _make_all(run, records, stage.folder, outputs, items)

    made = layout(stage.folder, wanted, outputs)
    columns = made.columns()
    keep = {output.fitted for output in outputs if output.is_fitted}
    keep |= {output.file(item) for output in outputs for item in items}
    manifest = stage.commit(
        rows={split: records.rows(split) for split in splits},
        schema={c.name: "float32" for block in made.blocks if isinstance(block, PlainBlock) for c in block.columns()},
        metrics={"columns": len(columns)},
        keep=keep,
        extra={"catalogue": catalogue(made)},
    )
    return [StageResult("featurize", False, manifest, [f"{len(columns):,} columns for the boosters"])]


def features_stage(run: Run, records: Records, outputs: Sequence[Output]) -> Stage:
    """The stage of features/, with the outputs that the settings ask for; see feature_store.plan."""
    return Stage(
        "featurize",
        run.folder / "features",
        settings={
            "featurize": settings_of(run.settings.featurize),
            "versions": VERSIONS,
            "outputs": {output.folder: dict(output.by_split) for output in outputs},
        },
        inputs={"records": records.fingerprint},
    )


def featurize_more(run: Run, records: Records, fitted: Folder) -> StageResult:
    """Make the features of further test records with what another run fitted in its features/."""
    wanted = run.settings.featurize
    outputs = plan(wanted, records, run.settings.seed)
    stage = features_stage(run, records, outputs)
    manifest = None if run.force else stage.manifest()
    if manifest is not None:
        return StageResult("featurize", True, manifest)
    connect(run)
    stage.begin()
    _require_room(wanted)
    items = _shards(records, records.splits)
    of_kind = {output.kind: output for output in outputs}
    make = functools.partial(
        _make_shard, records=records.folder, fitted=fitted, target=stage.folder, wanted=wanted, redo=run.force
    )
    _make_plain(make, outputs, items)
    if wanted.embeddings is not None:
        vectors, reduced = of_kind["sentence_vectors"], of_kind["embeddings"]
        embed_fitted(fitted, stage.folder, records, vectors, reduced, wanted.embeddings, items, run.force)
    if wanted.word2vec is not None:
        _pool_words(make, of_kind["word2vec"], fitted, stage.folder, items, run.force)
    keep = {output.file(item) for output in outputs for item in items}
    rows = {split: records.rows(split) for split in records.splits}
    return StageResult("featurize", False, stage.commit(rows=rows, keep=keep))


def _shards(records: Records, splits: Sequence[str]) -> list[Item]:
    return [{"split": split, "shard": name.partition("/")[2]} for split in splits for name in records.shards(split)]


def _require_room(wanted: Featurize) -> None:
    if wanted.embeddings is not None:
        require_room(embeddings_request(wanted.embeddings))


def _make_all(run: Run, records: Records, folder: Folder, outputs: list[Output], items: list[Item]) -> None:
    """Fit and make what is missing."""
    wanted = run.settings.featurize
    of_kind = {output.kind: output for output in outputs}
    training: Any = None
    if wanted.word2vec is not None:
        # Training takes one core for long, so it begins first and the rest is made on the others.
        parameters = word2vec.Word2VecSettings(**wanted.word2vec.model_dump(exclude={"view", "cosines"}))
        training = start_word2vec(folder, records, of_kind["word2vec"], parameters, run.settings.seed, run.force)
    fit_counts(folder, records, vocabularies(outputs, wanted.ngrams), of_kind.get("similarity"), run.force)
    make = functools.partial(
        _make_shard, records=records.folder, fitted=folder, target=folder, wanted=wanted, redo=run.force
    )
    _make_plain(make, outputs, items)
    if wanted.embeddings is not None:
        vectors, reduced = of_kind["sentence_vectors"], of_kind["embeddings"]
        embed(folder, records, vectors, reduced, wanted.embeddings, items, run.force)
    if wanted.word2vec is not None:
        finish_word2vec(training, wanted.word2vec.epochs)
        _pool_words(make, of_kind["word2vec"], folder, folder, items, run.force)


def _make_plain(make: Make, outputs: Sequence[Output], items: list[Item]) -> None:
    """Make the files that need nothing but what is counted."""
    plain = [each for each in outputs if each.kind not in ("word2vec", "sentence_vectors", "embeddings")]
    _on_shards(items, functools.partial(make, outputs=plain))


def _pool_words(make: Make, output: Output, fitted: Folder, target: Folder, items: list[Item], redo: bool) -> None:
    rest = items if redo else output.missing(target, items)
    word_vectors = load_word_vectors(fitted, output) if rest else None
    _on_shards(rest, functools.partial(make, outputs=[output], word_vectors=word_vectors), "shards pooled")


def _on_shards(items: list[Item], work: Any, unit: str = "shards") -> None:  # noqa: ANN401 - see map_shards
    progress = Progress("featurize", unit, total=len(items))
    for done in map_shards(items, work):
        progress.advance(rows=done["rows"])


def _make_shard(
    item: Item,
    records: Folder,
    fitted: Folder,
    target: Folder,
    outputs: list[Output],
    wanted: Featurize,
    redo: bool,
    word_vectors: Any = None,  # noqa: ANN401 - a Ray object reference
) -> Iterator[Item]:
    """Make every feature file of one shard that is not there yet; Word2Vec's need the word vectors."""
    missing = [output for output in outputs if redo or not output.is_made(target, item)]
    rows = 0
    if missing:
        table = records.read_table(f"{item['split']}/{item['shard']}", ["id", *_SIDE])
        rows = len(table)
        distinct = Distinct.of(table)
        counts: dict[Any, vectorize.Counts] = {}
        for output in missing:
            made = _make(output, distinct, fitted, wanted, counts, word_vectors)
            target.write_table(output.file(item), pa.table({"id": table["id"], **made}), output.by_split[item["split"]])
    yield {"rows": rows}


def _make(
    output: Output,
    distinct: Distinct,
    fitted: Folder,
    wanted: Featurize,
    counts: dict[Any, vectorize.Counts],
    word_vectors: Any,  # noqa: ANN401 - a Ray object reference
) -> Mapping[str, Any]:
    """The columns of one feature file. `counts` carries n-gram counts from block to block."""
    if output.kind == "handmade":
        families = handmade_families(wanted)
        values = text_families.featurize(distinct, families)
        return {column.name: values[:, n] for n, column in enumerate(text_families.columns(families))}
    if output.kind == "named_entities":
        values = named_entities.featurize(distinct, str(wanted.spacy_model))
        return {column.name: values[:, n] for n, column in enumerate(named_entities.columns())}
    if output.kind == "similarity":
        values = similarity.featurize(distinct, read_rarity(fitted, output))
        return {column.name: values[:, n] for n, column in enumerate(similarity.columns())}
    if output.kind == "word2vec":
        import ray

        means = word2vec.mean_vectors(distinct.texts, ray.get(word_vectors))
        vectors = {side: means[distinct.index[part]] for part, side in _SIDE.items()}
        cosines = to_lists(vector_cosines(*vectors.values()))
        return {"cosines": cosines, **{side: to_lists(each) for side, each in vectors.items()}}
    block = next(each for each in wanted.ngrams if f"ngrams/{each.name}" == output.folder)
    return _ngram_columns(distinct, PARTS[block.part], read_vocabulary(fitted, output), ngram_settings(block), counts)


def _ngram_columns(
    distinct: Distinct,
    parts: tuple[str, ...],
    vocabulary: vectorize.Vocabulary,
    settings: vectorize.NgramSettings,
    counts: dict[Any, vectorize.Counts],
) -> dict[str, pa.ListArray]:
    used, texts, _ = distinct.used_by(parts)
    key = (parts, settings.analyzer, settings.ngram_range, tuple(vocabulary.terms))
    if key not in counts:
        counts[key] = vectorize.count(texts, vocabulary, settings)
    weighed = vectorize.weigh(counts[key], vocabulary, settings)
    return {
        _SIDE[part]: vectorize.to_arrow(vectorize.take(weighed, used.searchsorted(distinct.index[part])))
        for part in parts
    }
