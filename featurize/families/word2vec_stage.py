"""Training word vectors on the training records, beside whatever else runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from core.errors import InputError
from core.progress import Progress, say
from featurize.blocks import from_lists, to_lists
from featurize.families import word2vec
from featurize.store import Output, is_fitted, read_fitted_table
from featurize.text import Text
from votes.schema import TEXTS

if TYPE_CHECKING:
    from core.storage import Folder
    from votes.records import Records


class _Epochs:
    """Counts finished epochs where the driver can ask; takes no CPU."""

    def __init__(self) -> None:
        self._done = 0

    def set(self, done: int) -> None:
        self._done = done

    def get(self) -> int:
        return self._done


def _fit_word2vec(
    target: Folder,
    records: Records,
    output: Output,
    settings: word2vec.Word2VecSettings,
    seed: int,
    epochs: Any,  # noqa: ANN401 - a Ray actor
) -> int:
    """Train on the training records and write the vectors; returns the number of words."""
    try:
        model = word2vec.train(_stream_texts(records), settings, seed, epochs.set.remote)
    except ValueError as error:
        raise InputError(str(error), where="featurize.word2vec", fix="leave word2vec out.") from error
    table = pa.table({"word": model.words, "vector": to_lists(model.vectors)})
    target.write_table(output.fitted, table, output.fingerprint)
    return len(model.words)


def _stream_texts(records: Records) -> Iterator[Text]:
    for shard in records.shards("train"):
        table = records.folder.read_table(shard, list(TEXTS))
        for part in TEXTS:
            yield from map(Text, table[part].to_pylist())


def start_word2vec(
    target: Folder, records: Records, output: Output, settings: word2vec.Word2VecSettings, seed: int, redo: bool
) -> Any:  # noqa: ANN401 - Ray references
    """Begin to train word vectors beside whatever else runs; None if they are there."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    if not redo and is_fitted(target, output):
        return None
    # A task, since an actor would keep its CPU after training, and on a machine with one CPU for ever.
    # Beside the driver, so that no other node takes it along.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    epochs = ray.remote(num_cpus=0)(_Epochs).options(scheduling_strategy=here).remote()
    return ray.remote(num_cpus=1)(_fit_word2vec).remote(target, records, output, settings, seed, epochs), epochs


def finish_word2vec(started: Any, total: int) -> None:  # noqa: ANN401 - what start_word2vec returned
    """Wait for the word vectors and say how far they are."""
    import ray

    if started is None:
        return
    fit, epochs = started
    progress = Progress("featurize", "Word2Vec epochs", total=total)
    while not ray.wait([fit], timeout=2.0)[0]:
        done = ray.get(epochs.get.remote())
        while progress.done < done:
            progress.advance()
    words = ray.get(fit)
    ray.kill(epochs)
    say("featurize", f"word2vec: vectors of {words:,} words")


def load_word_vectors(target: Folder, output: Output) -> Any:  # noqa: ANN401 - a Ray object reference
    """The fitted word vectors in Ray's object store, where the tasks of a node share them."""
    import ray

    return ray.remote(num_cpus=1)(_read_word_vectors).remote(target, output)


def _read_word_vectors(target: Folder, output: Output) -> word2vec.WordVectors:
    table = read_fitted_table(target, output)
    return word2vec.WordVectors(table["word"].combine_chunks(), from_lists(table["vector"]))
