"""Records with the answers A and B exchanged."""

import pyarrow as pa

from votes.swap import swap_labels


def swap_records(records: pa.Table) -> pa.Table:
    """Return the same records with A and B exchanged, labels too if the table has any."""
    counterpart = {"response_a": "response_b", "response_b": "response_a", "model_a": "model_b", "model_b": "model_a"}
    names = records.column_names
    swapped = records.rename_columns([counterpart.get(name, name) for name in names]).select(names)
    if "label" in names:
        labels = swap_labels(records["label"].to_numpy())
        swapped = swapped.set_column(names.index("label"), records.schema.field("label"), pa.array(labels))
    if "votes" in names:
        votes = [[b, a, *rest] for a, b, *rest in records["votes"].to_pylist()]
        swapped = swapped.set_column(names.index("votes"), records.schema.field("votes"), [votes])
    return swapped
