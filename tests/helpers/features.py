"""Features of small tables without Ray: what the featurize job does for one entry, in this process."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from core.settings.features import FamilyEntry
from core.storage import Folder
from featurize.components import Moments, principal_components
from featurize.families import embeddings
from featurize.outputs import Output, entry_family
from featurize.text import DistinctTexts

FINGERPRINT = "made-by-a-test"


def output_of(entry: FamilyEntry) -> Output:
    """The files of one entry."""
    family = entry_family(entry)
    return Output(family.folder(entry), (entry,), FINGERPRINT, {"train": FINGERPRINT}, family.fitted_file)


def fit_entry(entry: FamilyEntry, shards: Sequence[pa.Table], folder: Folder) -> Output:
    """Fit what the entry needs on some shards and write it, as the job does."""
    family, output = entry_family(entry), output_of(entry)
    texts = [DistinctTexts.of(shard) for shard in shards]
    for counter in family.counters([output]):
        kept, request = counter.select_candidates(counter.merge(*(counter.report(shard) for shard in texts)))
        exact = None if request is None else np.sum([counter.recount(shard, request) for shard in texts], axis=0)
        counter.write(kept, exact, output, folder)
    if family.fits_on_stream:
        stream = (text for shard in texts for text in shard.texts)
        output.write_fitted_table(folder, family.fit(entry, stream, 1, lambda step: None))
    if isinstance(entry, embeddings.EmbeddingSettings):
        encoder = embeddings.load_encoder(entry)
        moments = [Moments.of(side) for shard in texts for side in encoder.encode_sides(shard).values()]
        total = sum(moments[1:], start=moments[0])
        embeddings.write_components(principal_components(total, entry.components), output, folder)
    return output


def shard_file(entry: FamilyEntry, shard: pa.Table, folder: Folder) -> pa.Table:
    """The columns of a shard's file, with what is fitted in the folder."""
    family, output = entry_family(entry), output_of(entry)
    columns: Any = family.transform(DistinctTexts.of(shard), entry, family.read_fitted(output, folder))
    return pa.table(dict(columns))
