"""Columns of the tables of packed records."""

from __future__ import annotations

from typing import Final

import pyarrow as pa

# For each record: its number, and for both orders of the answers the ids and each id's part of the record.
PACKED_SCHEMA: Final = pa.schema(
    [
        ("row", pa.int64()),
        ("ab", pa.list_(pa.int32())),
        ("ba", pa.list_(pa.int32())),
        ("ab_parts", pa.list_(pa.int8())),
        ("ba_parts", pa.list_(pa.int8())),
    ]
)
DIGEST_BYTES: Final = 16  # of the hashes of ids, in the columns ab_hash and ba_hash
