import functools
import logging

import pytest

from core import logs
from core.errors import InputError
from core.stage import Stage, fingerprint, read_manifest, require_stage
from core.storage import Folder


def stage(tmp_path, **settings):
    return Stage("work", Folder(str(tmp_path / "work")), settings={"a": 1, **settings}, inputs={"records": "r1"})


def test_a_stage_is_done_only_with_its_own_settings_inputs_and_files(tmp_path):
    first = stage(tmp_path)
    assert first.manifest() is None
    first.folder.write_bytes("out", b"123")
    first.commit(rows={"train": 3})
    assert stage(tmp_path).manifest()["rows"] == {"train": 3}
    assert stage(tmp_path, b=2).manifest() is None
    assert Stage("work", first.folder, {"a": 1}, {"records": "r2"}).manifest() is None
    first.folder.write_bytes("out", b"12")
    assert stage(tmp_path).manifest() is None


def test_verbose_says_why_a_stage_runs_again(tmp_path, capsys):
    stage(tmp_path).commit(rows={})
    try:
        logs.configure(logging.DEBUG)
        assert stage(tmp_path, a=2).manifest() is None
        logging.getLogger("a.library").info("its own line")
    finally:
        logs.configure()
    logging.getLogger("a.library").info("too much")
    lines = [line.partition(" ")[2] for line in capsys.readouterr().err.splitlines()]
    assert lines == [
        "DEBUG   [work] to do: work was built with other settings: a (1 then, 2 now)",
        "INFO    [a.library] its own line",
    ]


def test_beginning_again_uncounts_the_stage_and_committing_removes_strangers(tmp_path):
    one = stage(tmp_path)
    one.folder.write_bytes("old", b"1")
    one.commit(rows={})
    one.begin()
    assert stage(tmp_path).manifest() is None
    one.folder.write_bytes("new", b"2")
    one.commit(rows={}, keep={"new"})
    assert list(one.folder.files()) == ["manifest.json", "new"]


def test_a_stage_killed_while_it_removes_strangers_is_done(tmp_path, monkeypatch):
    one = stage(tmp_path)
    for name in ("old/a", "old/b", "new"):
        one.folder.write_bytes(name, b"1")

    def killed(folder, name):
        raise KeyboardInterrupt

    monkeypatch.setattr(Folder, "delete", killed)
    with pytest.raises(KeyboardInterrupt):
        one.commit(rows={}, keep={"new"})
    assert stage(tmp_path).manifest()["files"] == {"new": 1}


def test_what_keeps_a_stage_from_being_the_finished_one_is_named(tmp_path):
    def reason(of):
        with pytest.raises(InputError) as caught:
            of.require("work")
        assert caught.value.where == f"{tmp_path}/work"
        assert "tiebreak work" in caught.value.fix or "schema" in caught.value.reason
        return caught.value.reason

    made = stage(tmp_path, pair=(1, 2))
    assert reason(made) == "work is not built yet, or a job is still rebuilding it"
    for name in ("out/a", "out/b"):
        made.folder.write_bytes(name, b"123")
    made.commit(rows={"train": 3})
    assert stage(tmp_path, pair=(1, 2)).require("work")["rows"] == {"train": 3}
    assert (
        reason(stage(tmp_path, pair=(1, 3), b=2))
        == "work was built with other settings: b (null then, 2 now), pair ([1, 2] then, [1, 3] now)"
    )
    assert reason(stage(tmp_path, pair=(1, 3), version=2)) == "work was built by another version of this code"
    other_inputs = Stage("work", made.folder, made.settings, {"records": "r2"})
    assert reason(other_inputs) == "work was built with other inputs: records"
    made.folder.write_bytes("out/b", b"12")
    assert reason(made) == "work lacks files, or they changed: out/b"
    made.folder.write_json("manifest.json", {**made.folder.read_json("manifest.json"), "schema_version": 0})
    assert reason(made) == "built with schema version 0, this code has 2"
    made.folder.write_bytes("manifest.json", b'{"fingerprint')
    assert reason(made) == "the manifest.json of work is corrupt"


def test_a_stage_can_be_required_by_some_settings_and_inputs_alone(tmp_path):
    built = Stage("work", Folder(f"{tmp_path}/work"), {"a": 1, "b": 2}, {"records": "r", "other": "x"})
    built.commit(rows={"train": 3})
    require = functools.partial(require_stage, built.folder, "work")
    assert require(settings={"a": 1}, inputs={"records": "r"})["rows"] == require()["rows"] == {"train": 3}
    with pytest.raises(InputError, match=r"other settings: a \(1 then, 3 now\).*tiebreak work"):
        require(settings={"a": 3})
    with pytest.raises(InputError, match="other inputs: records"):
        require(inputs={"records": "s"})
    with pytest.raises(InputError, match="nothing is not built yet"):
        require_stage(Folder(f"{tmp_path}/nothing"), "work")


@pytest.mark.parametrize("content", [b"", b'{"fingerprint": "x', b"[]", b"\xff"])
def test_a_truncated_manifest_does_not_count(tmp_path, content):
    folder = Folder(str(tmp_path))
    folder.write_bytes("manifest.json", content)
    assert read_manifest(folder) is None


def test_fingerprints_depend_on_content_not_on_order():
    assert fingerprint({"a": 1, "b": [1, 2]}) == fingerprint({"b": [1, 2], "a": 1})
    assert fingerprint({"a": [1, 2]}) != fingerprint({"a": [2, 1]})
