from core.storage import Folder
from votes.records import Records


def records(inputs, **settings):
    manifest = {"fingerprint": "f", "schema_version": 1, "settings": settings, "inputs": inputs, "rows": {"train": 1}}
    return Records(Folder("nowhere"), manifest)


def test_the_same_votes_are_the_same_whatever_the_settings():
    inputs = {"train/0": "d2", "train/1": "d1", "test/0": "d3", "source-arena/0": "d4"}
    one, other = (records(inputs, seed=seed, shard_rows=100 * seed) for seed in (1, 2))
    assert one.fingerprint_of("train") != other.fingerprint_of("train")
    assert one.vote_files == other.vote_files == ["d1", "d2"]
